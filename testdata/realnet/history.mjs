// Runs a random history of writes in the repositories of the accounts given.
//
//   node history.mjs SEED OPERATIONS DID...
//
// Each operation is one commit: a record is created, updated or deleted, or up to 20 records are in one batch. The same seed
// makes the same operations if the accounts have the same records. Prints {"create","update","delete","batch"}: how many of each.
import crypto from 'node:crypto'
import { account, each, login, pages, xrpc } from './lib.mjs'

const [seed, operations, ...dids] = process.argv.slice(2)
const collections = ['app.bsky.feed.post', 'app.bsky.graph.follow', 'org.example.history', 'org.example.keys']
const done = { create: 0, update: 0, delete: 0, batch: 0 }

/** A source of random integers below n. */
function source(name) {
  let i = 0
  return (n) => crypto.createHash('sha256').update(`${seed} ${name} ${i++}`).digest().readUInt32BE() % n
}

async function run(a, count) {
  const random = source(a.name)
  const auth = await login(a)
  const call = (method, body) => xrpc(a.pds, `com.atproto.repo.${method}`, { auth, body: { repo: a.did, ...body } })
  const paths = new Set()
  const { collections: had } = await xrpc(a.pds, 'com.atproto.repo.describeRepo', { params: { repo: a.did } })
  for (const collection of had.sort()) {
    for await (const { uri } of pages(a.pds, 'com.atproto.repo.listRecords', { repo: a.did, collection, limit: 100 }, 'records')) {
      paths.add(uri.split('/').slice(3).join('/'))
    }
  }

  /** One write of a path that is not in taken. */
  function write(taken) {
    const known = [...paths].filter((p) => !taken.has(p))
    let kind = ['create', 'create', 'update', 'delete'][random(4)]
    let path = known[random(known.length || 1)]
    if (kind === 'create' || path === undefined) {
      kind = 'create'
      do path = `${collections[random(collections.length)]}/h${random(1e6)}`; while (paths.has(path) || taken.has(path))
    }
    taken.add(path)
    const [collection, rkey] = path.split('/')
    if (kind === 'delete') return { kind, path, collection, rkey }
    return { kind, path, collection, rkey, value: { $type: collection, n: random(1e9), text: 'x'.repeat(random(500)), list: [random(9), { deep: null }] } }
  }
  const apply = ({ kind, path }) => (kind === 'delete' ? paths.delete(path) : paths.add(path))

  for (let i = 0; i < count; i++) {
    if (random(5) === 0) {
      const taken = new Set()
      const writes = Array.from({ length: 1 + random(20) }, () => write(taken))
      await call('applyWrites', {
        validate: false,
        writes: writes.map(({ kind, path, ...rest }) => ({ $type: `com.atproto.repo.applyWrites#${kind}`, ...rest })),
      })
      writes.forEach(apply)
      done.batch++
      continue
    }
    const w = write(new Set())
    const { kind, collection, rkey, value } = w
    const method = { create: 'createRecord', update: 'putRecord', delete: 'deleteRecord' }[kind]
    await call(method, { collection, rkey, ...(value && { record: value, validate: false }) })
    apply(w)
    done[kind]++
  }
}

const share = (i) => Math.floor(((i + 1) * operations) / dids.length) - Math.floor((i * operations) / dids.length)
await each(dids.map(account), (a, i) => run(a, share(i)))
console.log(JSON.stringify(done))
