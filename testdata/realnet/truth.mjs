// Prints what the hosts themselves answer about every account they list, one JSON object a line, sorted:
//
//   {"type":"account","did","pds","active","status","rev","head","handle","collections":[...]}     the last two for active accounts
//   {"type":"record","did","collection","rkey","cid","value"}
//
// An account that has moved is listed by its former hosts too: what the host of its DID document answers counts.
import { each, network, pages, xrpc } from './lib.mjs'

/** The host that the directory names, undefined if it has no document. */
async function home(did) {
  const res = await fetch(`${plc}/${did}`)
  return res.ok ? (await res.json()).service?.find((s) => s.id.endsWith('#atproto_pds'))?.serviceEndpoint : undefined
}

const lines = []
const { plc, pds: hosts } = network()
for (const pds of hosts) {
  const repos = await Array.fromAsync(pages(pds, 'com.atproto.sync.listRepos', { limit: 1000 }, 'repos'))
  await each(repos, async ({ did, active, status, rev, head }) => {
    if ((await home(did)) !== pds) return
    const entry = { type: 'account', did, pds, active, status, rev, head }
    lines.push(entry)
    if (!active) return
    const { handle, collections } = await xrpc(pds, 'com.atproto.repo.describeRepo', { params: { repo: did } })
    Object.assign(entry, { handle, collections })
    for (const collection of collections) {
      for await (const { uri, cid, value } of pages(pds, 'com.atproto.repo.listRecords', { repo: did, collection, limit: 100 }, 'records')) {
        lines.push({ type: 'record', did, collection, rkey: uri.split('/').pop(), cid, value })
      }
    }
  })
}
process.stdout.write(lines.map((l) => JSON.stringify(l) + '\n').sort().join(''))
