// What the scripts share: where the network is, who lives on it, and a small XRPC client.
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

export const STATE = process.env.REALNET_STATE || path.join(os.tmpdir(), 'cistern-realnet')
export const ADMIN = 'Basic ' + Buffer.from('admin:admin-pass').toString('base64')

const readJSON = (name) => JSON.parse(fs.readFileSync(path.join(STATE, name), 'utf8'))
export const writeJSON = (name, value) => fs.writeFileSync(path.join(STATE, name), JSON.stringify(value, null, 1) + '\n')

/** The running network as up.mjs announced it: {pid, plc, pds: [url, ...], state}. */
export const network = () => readJSON('net.json')

/** Every account ever seeded: {name, did, handle, password, pds}. */
export const accounts = () => (fs.existsSync(path.join(STATE, 'accounts.json')) ? readJSON('accounts.json') : [])

export function account(name) {
  const found = accounts().find((a) => a.name === name || a.did === name)
  if (!found) throw new Error(`no account ${name} in ${STATE}/accounts.json`)
  return found
}

/** One XRPC call: a procedure when there is a body, else a query. */
export async function xrpc(base, method, { params = {}, body, auth, type } = {}) {
  const url = new URL(`/xrpc/${method}`, base)
  for (const [key, value] of Object.entries(params)) if (value !== undefined) url.searchParams.set(key, value)
  const headers = auth ? { authorization: auth } : {}
  if (body !== undefined) headers['content-type'] = type ?? 'application/json'
  const res = await fetch(url, {
    method: body === undefined ? 'GET' : 'POST',
    headers,
    body: body === undefined || type ? body : JSON.stringify(body),
    signal: AbortSignal.timeout(30_000),
  })
  const text = await res.text()
  if (!res.ok) throw new Error(`${method} ${JSON.stringify(params)}: HTTP ${res.status} ${text}`)
  return text ? JSON.parse(text) : {}
}

/** All pages of a list query. */
export async function* pages(base, method, params, field) {
  for (let cursor; ; ) {
    const page = await xrpc(base, method, { params: { ...params, cursor } })
    yield* page[field]
    cursor = page.cursor
    if (!cursor || page[field].length === 0) return
  }
}

export async function login({ pds, did, password }) {
  const { accessJwt } = await xrpc(pds, 'com.atproto.server.createSession', { body: { identifier: did, password } })
  return `Bearer ${accessJwt}`
}

/** Calls fn for each item, four at a time: more only queue inside the PDS. */
export async function each(items, fn) {
  const rest = items.entries()
  await Promise.all(Array.from({ length: 4 }, async () => {
    for (const [i, item] of rest) await fn(item, i)
  }))
}
