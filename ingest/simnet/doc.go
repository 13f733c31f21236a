// Package simnet is a seeded AT network in one process, for tests, benchmarks and the demo.
//
// # Purpose
//
// Serve a PLC directory, a fleet of PDS hosts and relays on loopback, with real signed
// repositories, their firehoses, every fault an indexer must survive, and the truth to compare with.
//
// # Invariants
//
//  1. Accounts, keys, records, revs, CIDs and CAR bytes are a function of Options and of the
//     mutations made, not of ports, wall time or the order in which accounts are touched.
//  2. Without faults every answer is what a correct host would give: repositories verify with
//     indigo's own reader, and Truth is what a complete index holds.
//  3. A fault that fires is counted by its Injection, so a test can prove that it met it.
//  4. Everything listens on 127.0.0.1; the network itself calls nobody.
//  5. A commit raises the rev of its account. A request sees one commit, never a mixture of two.
//  6. Every mutation of an account is told once, by its host's stream and then by those of all relays, in the
//     order it happened, unless the account is not active: then only #account and #identity are. Accounts
//     made before Start are not news.
//  7. Times of events, and of the operations in the PLC directory's log, are those of the account's
//     logical clock, which also gives the revs.
//  8. A cursor is a seq of one stream. It gives all messages after it that the window kept.
//
// # Concurrency
//
// All methods are safe for concurrent use. Start runs one http.Server per host in an errgroup, which costs a
// listening socket and a waiting goroutine each; Close stops and joins them. Repositories are generated when first touched, or all at once by Build. An event is
// in all logs when the mutation returns; each connection sends them at its own pace. Locks are taken in the
// order account, stream, network.
//
// # Files
//
//   - options.go: Options
//   - network.go: Network, its life and its accounts
//   - history.go: seeded random mutations of the whole network
//   - account.go: Account, Truth, mutations; redundant.go: commits whose operations come to less than they say
//   - snapshot.go: one commit of a repository: tree, signature, blocks
//   - seat.go: which accounts live on which host
//   - host.go: Host, one server with faults and a request log; connection.go: its connections, and its death
//   - limit.go: how much a host answers, and who asks for more
//   - pds.go, proof.go, plc.go, plclog.go, relay.go, query.go: what the three kinds of server answer
//   - decision.go: what relays and former hosts say of accounts against their hosts
//   - manners.go: what relays leave out, and what they lose
//   - event.go: the messages of a firehose; emit.go: which of them a mutation makes
//   - stream.go: the log of a host's firehose; subscribe.go: its connections
//   - streamfault.go: the faults of firehoses; streamhostile.go: the commits they alter
//   - fault.go: the faults and their injection; hostile.go: what a faulty host answers
//   - forge.go: parts for repositories that no correct host would make
//   - car.go, cbor.go, key.go: encodings and signatures
//   - record.go, words.go: plausible records
package simnet
