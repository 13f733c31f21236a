// Changes accounts and records. Commands are separated by a comma of its own; each prints one JSON line.
//
//   node mutate.mjs create u002 3 , update u002 , delete u002 , deactivate u005
//
//   create A [N=1]    N posts, a commit each              handle A NEW       another handle
//   update A          the profile, in place               deactivate A       activate A
//   delete A [COLL]   the newest record of COLL (post)    takedown A         untakedown A       (as the host's operator)
//   batch A           one commit: create, update, delete  deleteaccount A                       (as the host's operator)
//   migrate A         to the next host, as the guide of the PDS has it; the account stays deactivated where it was
import path from 'node:path'
import Database from 'better-sqlite3'
import { ADMIN, STATE, account, accounts, login, network, writeJSON, xrpc } from './lib.mjs'

const POST = 'app.bsky.feed.post'
const PROFILE = 'app.bsky.actor.profile'
const post = (text) => ({ $type: POST, text, createdAt: new Date().toISOString() })
const profile = () => ({ $type: PROFILE, displayName: `changed at ${new Date().toISOString()}` })
const rkeyOf = (uri) => uri.split('/').pop()

/** A write to the account's own repository. */
async function write(a, method, body) {
  return xrpc(a.pds, `com.atproto.repo.${method}`, { auth: await login(a), body: { repo: a.did, ...body } })
}

async function newest(a, collection) {
  const { records } = await xrpc(a.pds, 'com.atproto.repo.listRecords', { params: { repo: a.did, collection, limit: 1 } })
  if (!records.length) throw new Error(`${a.name} has no ${collection}`)
  return rkeyOf(records[0].uri)
}

async function takedown(a, applied) {
  const subject = { $type: 'com.atproto.admin.defs#repoRef', did: a.did }
  return xrpc(a.pds, 'com.atproto.admin.updateSubjectStatus', { auth: ADMIN, body: { subject, takedown: { applied } } })
}

/** A token at another host, where the account is made, deactivated, unless it has been there before. */
async function arrive(a, pds) {
  const there = { ...a, pds }
  try {
    return await login(there)
  } catch {
    const { did: aud } = await xrpc(pds, 'com.atproto.server.describeServer')
    const { token } = await xrpc(a.pds, 'com.atproto.server.getServiceAuth', {
      auth: await login(a), params: { aud, lxm: 'com.atproto.server.createAccount' },
    })
    const body = { did: a.did, handle: a.handle, email: `${a.name}@example.com`, password: a.password }
    await xrpc(pds, 'com.atproto.server.createAccount', { auth: `Bearer ${token}`, body })
    return login(there)
  }
}

/** The token that a PDS sends by mail before it signs an operation for the directory. */
async function mailedToken(a, auth) {
  await xrpc(a.pds, 'com.atproto.identity.requestPlcOperationSignature', { auth, body: '', type: 'application/json' })
  const db = new Database(path.join(STATE, `pds${network().pds.indexOf(a.pds)}`, 'account.sqlite'), { readonly: true })
  const { token } = db.prepare("select token from email_token where purpose = 'plc_operation' and did = ?").get(a.did)
  db.close()
  return token
}

const commands = {
  async create(a, n = '1') {
    const made = []
    for (let i = 0; i < Number(n); i++) made.push((await write(a, 'createRecord', { collection: POST, record: post(`new post ${i}`) })).uri)
    return { made }
  },
  async update(a) {
    return write(a, 'putRecord', { collection: PROFILE, rkey: 'self', record: profile() })
  },
  async delete(a, collection = POST) {
    const rkey = await newest(a, collection)
    return { collection, rkey, ...(await write(a, 'deleteRecord', { collection, rkey })) }
  },
  async batch(a) {
    const op = 'com.atproto.repo.applyWrites'
    return write(a, 'applyWrites', {
      writes: [
        { $type: `${op}#create`, collection: POST, value: post('from a batch') },
        { $type: `${op}#update`, collection: PROFILE, rkey: 'self', value: profile() },
        { $type: `${op}#delete`, collection: POST, rkey: await newest(a, POST) },
      ],
    })
  },
  async handle(a, handle) {
    return xrpc(a.pds, 'com.atproto.identity.updateHandle', { auth: await login(a), body: { handle } })
  },
  async deactivate(a) {
    return xrpc(a.pds, 'com.atproto.server.deactivateAccount', { auth: await login(a), body: {} })
  },
  async activate(a) {
    return xrpc(a.pds, 'com.atproto.server.activateAccount', { auth: await login(a), body: '', type: 'application/json' })
  },
  takedown: (a) => takedown(a, true),
  untakedown: (a) => takedown(a, false),
  async migrate(a) {
    const hosts = network().pds
    const pds = hosts[(hosts.indexOf(a.pds) + 1) % hosts.length]
    const here = await login(a)
    const there = await arrive(a, pds)
    const car = await fetch(new URL(`/xrpc/com.atproto.sync.getRepo?did=${a.did}`, a.pds))
    await xrpc(pds, 'com.atproto.repo.importRepo', { auth: there, body: await car.bytes(), type: 'application/vnd.ipld.car' })
    const token = await mailedToken(a, here)
    const wanted = await xrpc(pds, 'com.atproto.identity.getRecommendedDidCredentials', { auth: there })
    const { operation } = await xrpc(a.pds, 'com.atproto.identity.signPlcOperation', { auth: here, body: { token, ...wanted } })
    await xrpc(pds, 'com.atproto.identity.submitPlcOperation', { auth: there, body: { operation } })
    await xrpc(pds, 'com.atproto.server.activateAccount', { auth: there, body: '', type: 'application/json' })
    await xrpc(a.pds, 'com.atproto.server.deactivateAccount', { auth: here, body: {} })
    writeJSON('accounts.json', accounts().map((x) => (x.did === a.did ? { ...x, pds } : x)))
    return { from: a.pds, to: pds }
  },
  async deleteaccount(a) {
    return xrpc(a.pds, 'com.atproto.admin.deleteAccount', { auth: ADMIN, body: { did: a.did } })
  },
}

for (const line of process.argv.slice(2).join(' ').split(' , ')) {
  const [name, who, ...args] = line.trim().split(' ')
  if (!commands[name] || !who) throw new Error(`not a command: ${line}`)
  const a = account(who)
  console.log(JSON.stringify({ command: name, did: a.did, ...(await commands[name](a, ...args)) }))
}
