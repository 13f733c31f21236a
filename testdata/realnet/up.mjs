// Starts a PLC directory and one or more reference PDSes on loopback, with all their state in one directory. Prints one JSON
// line when they answer, {"ready":true,"pid","plc","pds":[...],"state"}, and stays until SIGTERM or SIGINT.
//
//   node up.mjs [--with-parent]      --with-parent: stop when standard input ends, so no parent can leave it behind
//
//   REALNET_STATE      where accounts and databases go; emptied at the start   (default: cistern-realnet in the temporary directory)
//   REALNET_PLC_PORT   REALNET_PDS_PORTS (comma-separated, one PDS for each)    (default: 0, which is any free port)
//   REALNET_DID_DOCS   multikey (today's form), legacy (the form of this npm server), mixed (by DID, half of each)   (default: mixed)
//   LOG_ENABLED=true   lets the servers log
import crypto from 'node:crypto'
import fs from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import { STATE, writeJSON } from './lib.mjs'

process.env.LOG_ENABLED ??= 'false'
process.env.NODE_ENV ??= 'development'
const { PDS } = await import('@atproto/pds')
const { Database, PlcServer } = (await import('@did-plc/server')).default

// The servers bind every interface and offer no option against it: nothing outside this machine may reach them.
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port, ...rest) {
  return typeof port === 'number' ? listen.call(this, { port, host: '127.0.0.1' }, ...rest.filter((a) => typeof a === 'function')) : listen.call(this, port, ...rest)
}

// A PDS writes its own URL into DID documents, so its port has to be known before it starts.
const freePort = () => new Promise((resolve, reject) => {
  const probe = net.createServer().on('error', reject).listen(0, () => {
    const { port } = probe.address()
    probe.close(() => resolve(port))
  })
})

/** The DID document as the public directory writes it today; null leaves the answer to the npm server. */
function multikeyDocument(did, op) {
  const form = process.env.REALNET_DID_DOCS || 'mixed'
  if (form === 'legacy' || (form === 'mixed' && did.charCodeAt(did.length - 1) % 2)) return null
  if (op?.type !== 'plc_operation') return null
  return {
    '@context': ['https://www.w3.org/ns/did/v1', 'https://w3id.org/security/multikey/v1'],
    id: did,
    alsoKnownAs: op.alsoKnownAs,
    verificationMethod: Object.entries(op.verificationMethods).map(([name, key]) => ({
      id: `${did}#${name}`, type: 'Multikey', controller: did, publicKeyMultibase: key.replace('did:key:', ''),
    })),
    service: Object.entries(op.services).map(([name, s]) => ({ id: `#${name}`, type: s.type, serviceEndpoint: s.endpoint })),
  }
}

async function startPLC(port) {
  const db = Database.mock()
  const { app } = PlcServer.create({ db, port, version: 'realnet' })
  const server = http.createServer(async (req, res) => {
    const did = decodeURIComponent(req.url.slice(1))
    const doc = req.method === 'GET' && did.startsWith('did:') ? multikeyDocument(did, await db.lastOpForDid(did)) : null
    if (!doc) return app(req, res)
    res.setHeader('content-type', 'application/did+ld+json')
    res.end(JSON.stringify(doc))
  })
  await new Promise((resolve) => server.listen(port, resolve))
  return { url: `http://localhost:${port}`, stop: () => server.close() }
}

async function startPDS(name, port, plc) {
  const dir = path.join(STATE, name)
  fs.mkdirSync(path.join(dir, 'blobs'), { recursive: true })
  const secret = () => crypto.randomBytes(32).toString('hex')
  const nowhere = { url: 'http://localhost:1', did: 'did:example:nowhere' }
  const pds = await PDS.fromEnv({
    port, hostname: 'localhost', serviceDid: `did:web:localhost%3A${port}`, serviceName: name, devMode: true,
    dataDirectory: dir, blobstoreDiskLocation: path.join(dir, 'blobs'),
    adminPassword: 'admin-pass', jwtSecret: secret(), dpopSecret: secret(), plcRotationKeyK256PrivateKeyHex: secret(),
    didPlcUrl: plc, didCacheStaleTTL: 1000, didCacheMaxTTL: 2000, disableSsrfProtection: true,
    serviceHandleDomains: ['.test'], inviteRequired: false,
    bskyAppViewUrl: nowhere.url, bskyAppViewDid: nowhere.did, modServiceUrl: nowhere.url, modServiceDid: nowhere.did,
  })
  await pds.start()
  return { url: `http://localhost:${port}`, stop: () => pds.destroy() }
}

fs.rmSync(STATE, { recursive: true, force: true })
fs.mkdirSync(STATE, { recursive: true })
const pick = async (text) => Number(text) || freePort()
const plc = await startPLC(await pick(process.env.REALNET_PLC_PORT))
const hosts = []
for (const text of (process.env.REALNET_PDS_PORTS || '0').split(',')) {
  hosts.push(await startPDS(`pds${hosts.length}`, await pick(text), plc.url))
}

const ready = { ready: true, pid: process.pid, plc: plc.url, pds: hosts.map((h) => h.url), state: STATE }
writeJSON('net.json', ready)
console.log(JSON.stringify(ready))

async function stop() {
  const stopped = Promise.allSettled([...hosts, plc].map((s) => s.stop()))
  await Promise.race([stopped, new Promise((resolve) => setTimeout(resolve, 3000))])
  process.exit(0)
}
process.once('SIGTERM', stop).once('SIGINT', stop)
if (process.argv.includes('--with-parent')) process.stdin.on('end', stop).resume()
