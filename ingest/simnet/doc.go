// Package simnet is a seeded AT network in one process, for tests, benchmarks and the demo.
//
// # Purpose
//
// It serves a PLC directory, PDS hosts and relays on loopback, with signed repositories, their
// firehoses and every fault that an indexer must survive, and it knows the true state of all
// accounts.
//
// # Invariants
//
//  1. Accounts, keys, records, revs, CIDs and CAR bytes depend only on Options and on the mutations
//     made, not on ports, wall time or the order in which accounts are used.
//  2. Without faults every answer is that of a correct host: repositories verify with indigo's own
//     reader, and Truth is what a complete index holds.
//  3. A fault that fires is counted by its Injection, so that a test can prove that it happened.
//  4. Everything listens on 127.0.0.1; the network makes no requests itself.
//  5. A commit raises the rev of its account. A request sees one commit, never a mixture of two.
//  6. Every mutation of an account is one event, first on its host's stream and then on the streams
//     of all relays, in the order of mutations. An inactive account has only #account and #identity
//     events. Accounts made before Start have no event.
//  7. Times of events, and of the operations in the PLC directory's log, are those of the account's
//     logical clock, which also gives the revs.
//  8. A cursor is a seq of one stream. A connection with a cursor gets all later messages that the
//     window kept.
//
// # Concurrency
//
// All methods are safe for concurrent use. Start runs one http.Server per host in an errgroup,
// which costs a listening socket and a waiting goroutine each; Close stops and joins them.
// Repositories are generated when first used, or all at once by Build. When a mutation returns, all
// logs have its event. Each connection has its own pace. Locks are taken in the order account,
// stream, network.
//
// # Files
//
//   - options.go: Options
//   - network.go: Network, its life and its accounts
//   - history.go: seeded random mutations of the whole network
//   - account.go: Account, Truth, mutations; redundant.go: commits with redundant operations
//   - repository.go: the repository of an account and its clock
//   - snapshot.go: one commit of a repository: tree, signature, blocks
//   - placement.go: which accounts live on which host
//   - host.go: Host, one server with faults and a request log; port.go: the port of a host;
//     connection.go: its connections, and its outages
//   - limit.go: rate limits of hosts, and requests beyond them
//   - pds.go, proof.go, plc.go, plclog.go, relay.go, directory.go, query.go: answers of the three
//     kinds of server; names.go: a resolver of host names
//   - decision.go: statuses stated by relays and former hosts that contradict the host
//   - manners.go: what relays do not announce, and what they lose
//   - event.go: the messages of a firehose; emit.go: which of them a mutation makes
//   - stream.go: the log of a host's firehose; subscribe.go: its connections
//   - streamfault.go: the faults of firehoses; streamhostile.go: the commits they alter
//   - fault.go: the faults and their injection; hostile.go: answers of a faulty host
//   - forge.go: parts for repositories that no correct host would make
//   - car.go, cbor.go, key.go: encodings and signatures
//   - record.go, words.go: plausible records
package simnet
