// Follows Cistern with a published client of Jetstream, and prints every event as a JSON line, {"error"} if the client
// does not take one. It ends when its standard input does.
//
//   node jetstream.mjs skyware|atcute ws://127.0.0.1:2481 cursor [collection ...]
const [client, origin, cursor, ...collections] = process.argv.slice(2)
const wantedCollections = collections.length > 0 ? collections : undefined

const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const fail = (error) => print({ error: String(error?.message ?? error) })

if (client === 'skyware') {
  const { Jetstream } = await import('@skyware/jetstream')
  const jetstream = new Jetstream({ endpoint: `${origin}/subscribe`, cursor: Number(cursor), wantedCollections })
  for (const kind of ['commit', 'identity', 'account']) jetstream.on(kind, print)
  jetstream.on('error', (error) => error instanceof SyntaxError && fail(error)) // the rest: it connects again
  jetstream.start()
} else {
  const { JetstreamSubscription } = await import('@atcute/jetstream')
  const subscription = new JetstreamSubscription({ url: origin, cursor: Number(cursor), wantedCollections, onError: fail })
  ;(async () => {
    for await (const event of subscription) print(event)
  })().catch(fail)
}
process.stdin.resume().on('end', () => process.exit(0))
