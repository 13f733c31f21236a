// Consumes Cistern with the published client of tap, and prints every event as a JSON line after it is acknowledged,
// {"error"} if the client does not take one. Each line of its standard input is a request, {"add": did}, {"remove": did},
// {"info": did} or {"resolve": did}, and is answered by a line {"answer"}. It ends when its standard input does.
//
//   node tap.mjs http://127.0.0.1:2480 password
import readline from 'node:readline'
import { lexStringify } from '@atproto/lex'
import { Tap } from '@atproto/tap'

const [url, adminPassword] = process.argv.slice(2)
const print = (line) => process.stdout.write(line + '\n')
const fail = (error) => print(JSON.stringify({ error: [error.message, error.cause?.message, lexStringify(error.cause?.input ?? null)].join(': ') }))

const tap = new Tap(url, { adminPassword })
const handler = {
  onEvent: async (event, { ack }) => {
    await ack()
    print(lexStringify(event))
  },
  onError: fail,
}
// Its other errors are of the connection, which it makes again.
const channel = tap.channel(handler, { maxReconnectSeconds: 1 })
channel.start().then(() => fail(new Error('the channel ended')), fail)

const requests = {
  add: (did) => tap.addRepos([did]),
  remove: (did) => tap.removeRepos([did]),
  info: (did) => tap.getRepoInfo(did),
  resolve: (did) => tap.resolveDid(did),
}
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [[name, did]] = Object.entries(JSON.parse(line))
  try {
    print(JSON.stringify({ answer: (await requests[name](did)) ?? null }))
  } catch (error) {
    fail(error)
  }
}
process.exit(0)
