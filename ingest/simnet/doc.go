// Package simnet is a seeded AT network in one process, for tests, benchmarks and the demo.
//
// # Purpose
//
// Serve a PLC directory, a fleet of PDS hosts and a relay on loopback, with real signed
// repositories, every fault an indexer must survive, and the truth to compare with.
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
//
// # Concurrency
//
// All methods are safe for concurrent use. Start runs one http.Server per host in an errgroup; Close
// stops and joins them. Repositories are generated when first touched, or all at once by Build.
//
// # Files
//
//   - options.go: Options
//   - network.go: Network, its life and its accounts
//   - account.go: Account, Truth, mutations
//   - snapshot.go: one commit of a repository: tree, signature, blocks
//   - host.go: Host, one server with faults and a request log
//   - pds.go, plc.go, relay.go, query.go: what the three kinds of server answer
//   - fault.go: the faults and their injection; hostile.go: what a faulty host answers
//   - forge.go: parts for repositories that no correct host would make
//   - car.go, cbor.go, key.go: encodings and signatures
//   - record.go, words.go: plausible records
package simnet
