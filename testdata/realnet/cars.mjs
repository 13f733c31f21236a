// Verifies CARs of Cistern with the published libraries, and compares them with those of the PDSes.
//
//   node cars.mjs http://127.0.0.1:2480 DID...
//
// For each account it fetches the whole repository, proofs of some records, and proofs that records are absent. Each CAR must
// have the root of the PDS's CAR; a repository must have its records and no block that the PDS does not send, and a proof
// must have the same blocks. Both libraries must verify it with the account's signing key, and must refuse it with another
// account's key and with one bit flipped in a block. Prints one JSON line for each account,
// {"did","root","records","proofs","refused"}: the last three are numbers. Stops at the first difference.
import assert from 'node:assert/strict'
import { fromUint8Array as blocksOf } from '@atcute/car'
import { Secp256k1PublicKey, parseDidKey } from '@atcute/crypto'
import { fromStream, fromUint8Array as recordsOf, verifyRecord } from '@atcute/repo'
import { readCarWithRoot, verifyProofs, verifyRecords, verifyRepoCar } from '@atproto/repo'
import { account, network } from './lib.mjs'

const [cistern, ...dids] = process.argv.slice(2)
const proven = 5 // records of each account, about
const absent = ['app.aaa.none/self', 'app.bsky.feed.post/3aaaaaaaaaaaa', 'org.example.types/none', 'zzz.example.none/self']
const pathOf = ({ collection, rkey }) => `${collection}/${rkey}`
const sorted = (map) => [...map].sort()

async function fetchCAR(base, method, params) {
  const res = await fetch(`${base}/xrpc/com.atproto.sync.${method}?${new URLSearchParams(params)}`)
  if (!res.ok) throw new Error(`${base} ${method} ${JSON.stringify(params)}: HTTP ${res.status} ${await res.text()}`)
  return res.bytes()
}

/** The account's signing key, in the forms that the two libraries take. */
async function signingKey(did) {
  const res = await fetch(`${network().plc}/${did}/data`)
  const { verificationMethods: { atproto: key } } = await res.json()
  return { key, publicKey: await Secp256k1PublicKey.importRaw(parseDidKey(key).publicKeyBytes) }
}

/** Root and records, path to CID, of a whole repository that @atproto/repo verified. */
async function verifyWithAtproto(car, did, { key }) {
  const { creates, commit } = await verifyRepoCar(car, did, key)
  return { root: commit.cid.toString(), records: new Map(creates.map((c) => [pathOf(c), c.cid.toString()])) }
}

/** The same with @atcute/repo. Its readers do not hash blocks, so each record is verified by itself. */
async function verifyWithAtcute(car, did, { publicKey }) {
  const records = new Map()
  for (const { collection, rkey, cid } of recordsOf(car)) {
    const found = await verifyRecord({ did, collection, rkey, publicKey, carBytes: car })
    assert.equal(found.cid, cid.$link)
    records.set(pathOf({ collection, rkey }), found.cid)
  }
  return { root: blocksOf(car).roots[0].$link, records }
}

/** The records that the streaming reader of @atcute/repo finds; it verifies nothing. */
async function readStream(car) {
  const repo = fromStream(new Blob([car]).stream())
  const records = new Map()
  for await (const entry of repo) records.set(pathOf(entry), entry.cid.$link)
  assert.deepEqual(repo.missingBlocks, [])
  return records
}

/** CIDs of the root and of all blocks. */
async function contentOf(car) {
  const { root, blocks } = await readCarWithRoot(car)
  return [root.toString(), ...blocks.cids().map(String).sort()]
}

/**
 * Copies of a CAR, each with one bit flipped in the middle of a block: in the first, the last, and n-2 between them. Of
 * equal blocks only the last counts: it is the one that @atcute/repo reads.
 */
function* flipped(car, n) {
  const blocks = [...new Map(Array.from(blocksOf(car), (b) => [String(b.cid.bytes), b])).values()]
  n = Math.min(n, blocks.length)
  for (let i = 0; i < n; i++) {
    const { bytesStart, bytesEnd } = blocks[Math.floor((i * (blocks.length - 1)) / Math.max(1, n - 1))]
    const copy = car.slice()
    copy[(bytesStart + bytesEnd) >> 1] ^= 1
    yield copy
  }
}

let refused = 0
async function refuses(verify, message) {
  await assert.rejects(verify, message)
  refused++
}

async function compareRepo(did, pds, keys, other) {
  const [ours, theirs] = [await fetchCAR(cistern, 'getRepo', { did }), await fetchCAR(pds, 'getRepo', { did })]
  const want = await verifyWithAtproto(theirs, did, keys)
  const got = await verifyWithAtproto(ours, did, keys)
  assert.equal(got.root, want.root)
  assert.deepEqual(sorted(got.records), sorted(want.records))
  assert.deepEqual(await verifyWithAtcute(ours, did, keys), got)
  assert.deepEqual(sorted(await readStream(ours)), sorted(got.records))
  const served = new Set(await contentOf(theirs))
  assert.deepEqual((await contentOf(ours)).filter((cid) => !served.has(cid)), [])

  await refuses(verifyWithAtproto(ours, did, other), /Invalid signature/)
  for (const copy of flipped(ours, 4)) await refuses(verifyWithAtproto(copy, did, keys), /Not a valid CID/)
  if (got.records.size > 0) { // @atcute/repo verifies nothing of an empty repository
    await refuses(verifyWithAtcute(ours, did, other), /signature verification failed/)
    for (const copy of flipped(ours, 4)) await refuses(verifyWithAtcute(copy, did, keys))
  }
  return got
}

/** Compares the proof of a record, or of its absence if cid is null. */
async function compareProof(did, pds, keys, other, path, cid, records) {
  const [collection, rkey] = path.split('/')
  const [claim, params] = [{ collection, rkey, cid }, { did, collection, rkey }]
  const [ours, theirs] = [await fetchCAR(cistern, 'getRecord', params), await fetchCAR(pds, 'getRecord', params)]
  assert.deepEqual(await contentOf(ours), await contentOf(theirs))

  const prove = (car, key) => verifyProofs(car, [claim], did, key)
  const list = (car, key) => verifyRecords(car, did, key)
  const find = (car, publicKey) => verifyRecord({ ...params, publicKey, carBytes: car })
  assert.deepEqual(await prove(ours, keys.key), { verified: [claim], unverified: [] })
  const listed = (await list(ours, keys.key)).map(pathOf)
  if (cid) {
    assert.ok(listed.includes(path)) // and other paths only if they have an equal record
    for (const p of listed) assert.equal(records.get(p), cid.toString())
    assert.equal((await find(ours, keys.publicKey)).cid, cid.toString())
    const opposite = { ...claim, cid: null }
    assert.deepEqual(await verifyProofs(ours, [opposite], did, keys.key), { verified: [], unverified: [opposite] })
  } else {
    assert.deepEqual(listed, [])
    await assert.rejects(find(ours, keys.publicKey), /could not find record/)
  }
  for (const verify of [prove, list]) await refuses(verify(ours, other.key), /Invalid signature/)
  await refuses(find(ours, other.publicKey), /signature verification failed/)
  for (const copy of flipped(ours, Infinity)) {
    for (const verify of [prove, list]) await refuses(verify(copy, keys.key), /Not a valid CID/)
    await refuses(find(copy, keys.publicKey), /cid does not match/)
  }
}

for (const [i, did] of dids.entries()) {
  const { pds } = account(did)
  const [keys, other] = [await signingKey(did), await signingKey(dids[(i + 1) % dids.length])]
  refused = 0
  const { root, records } = await compareRepo(did, pds, keys, other)
  const { creates } = await verifyRepoCar(await fetchCAR(cistern, 'getRepo', { did }), did, keys.key)
  const present = creates.filter((_, n) => n % Math.ceil(creates.length / proven) === 0)
  for (const c of present) await compareProof(did, pds, keys, other, pathOf(c), c.cid, records)
  for (const path of absent) await compareProof(did, pds, keys, other, path, null, records)
  console.log(JSON.stringify({ did, root, records: records.size, proofs: present.length + absent.length, refused }))
}
