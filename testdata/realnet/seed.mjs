// Creates accounts and their records.
//
//   node seed.mjs [ACCOUNTS=20] [RECORDS=60]
//
// Accounts are u000, u001, ... with handle NAME.test, spread evenly over the hosts. u000 stays empty, u001 gets ten times as
// many records, and all the others RECORDS each, in both single commits and batches, some written twice and some removed
// again, so that trees have history. Prints {"accounts","records"}: the records left at the end.
import { accounts, each, network, writeJSON, xrpc } from './lib.mjs'

const [wantAccounts = 20, wantRecords = 60] = process.argv.slice(2).map(Number)
const { pds } = network()
const known = accounts()
const now = () => new Date().toISOString()

const fresh = []
await each([...Array(wantAccounts).keys()], async (i) => {
  const n = known.length + i
  const name = `u${String(n).padStart(3, '0')}`
  const password = `password of ${name}`
  const host = pds[n % pds.length]
  const made = await xrpc(host, 'com.atproto.server.createAccount', { body: { handle: `${name}.test`, email: `${name}@example.com`, password } })
  fresh.push({ n, name, did: made.did, handle: made.handle, password, pds: host, auth: `Bearer ${made.accessJwt}` })
})
fresh.sort((a, b) => a.n - b.n)
writeJSON('accounts.json', [...known, ...fresh.map(({ n, auth, ...rest }) => rest)])

const edgeKeys = ['a', '0', 'A.b_c~d:e-f', '_', 'z'.repeat(512)]

/** The i-th record of an account: [collection, value, rkey or undefined]. The last kinds have no lexicon and hold every type of the data model. */
function sample({ name }, i, blob) {
  const someone = fresh[i % fresh.length].did
  switch (i % 6) {
    case 0: return ['app.bsky.feed.post', { text: `post ${i} of ${name}: é 日本 🚀 \u2028 "quoted" \\ <b>`, langs: ['en', 'ja'], createdAt: now() }]
    case 1: return ['app.bsky.graph.follow', { subject: someone, createdAt: now() }]
    case 2: return ['app.bsky.feed.post', { text: '', createdAt: now(), embed: { $type: 'app.bsky.embed.images', images: [{ alt: '', image: blob }] } }]
    case 3: return ['org.example.types', {
      yes: true, no: false, none: null, zero: 0, minus: -1, big: Number.MAX_SAFE_INTEGER, small: Number.MIN_SAFE_INTEGER,
      empty: {}, list: [], nested: [[{ deep: [1, [2, [3]]] }]], bytes: { $bytes: 'AAECA/8' }, link: { $link: blob.ref.$link },
      'key with spaces': '', 'ключ': 'значение', aa: 1, b: 2, long: 'x'.repeat(300 * (i % 7)),
    }]
    case 4: return ['org.example.keys', { createdAt: now() }, edgeKeys[(i - 4) / 6] ?? `k${i}`]
    default: return ['org.example.a-very-long-name.thatSharesAPrefix', { i }, `prefix.shared.by.all.${String(i).padStart(6, '0')}`]
  }
}

let records = 0
await each(fresh, async (a) => {
  if (a.n === 0) return
  const call = (method, body) => xrpc(a.pds, `com.atproto.repo.${method}`, { auth: a.auth, body: { repo: a.did, ...body } })
  const profile = (displayName) => call('putRecord', { collection: 'app.bsky.actor.profile', rkey: 'self', record: { $type: 'app.bsky.actor.profile', displayName, createdAt: now() } })
  const { blob } = await xrpc(a.pds, 'com.atproto.repo.uploadBlob', { auth: a.auth, body: Buffer.from(`blob of ${a.name}`), type: 'image/png' })
  await profile('first name')

  const total = a.n === 1 ? wantRecords * 10 : wantRecords
  const writes = []
  for (let i = 0; i < total - 1; i++) {
    const [collection, value, rkey] = sample(a, i, blob)
    writes.push({ $type: 'com.atproto.repo.applyWrites#create', collection, rkey, value: { $type: collection, ...value } })
  }
  for (let i = 0; i < writes.length; i += 100) await call('applyWrites', { validate: false, writes: writes.slice(i, i + 100) })

  const extra = await call('createRecord', { collection: 'app.bsky.feed.post', record: { $type: 'app.bsky.feed.post', text: 'removed again', createdAt: now() } })
  await call('deleteRecord', { collection: 'app.bsky.feed.post', rkey: extra.uri.split('/').pop() })
  await profile(`name of ${a.name}`)
  records += writes.length + 1
})
console.log(JSON.stringify({ accounts: fresh.length, records }))
