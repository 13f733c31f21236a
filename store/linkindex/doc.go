// Package linkindex keeps the index of backlinks: which records link to a target.
//
// # Purpose
//
// It answers which records, and how many of how many accounts, have a link to an at-uri, a DID or a
// URI at a path of their collection. It is built from the records of the store and from its log,
// behind the writes of the store, in an engine of its own: the store has no row for it, and its
// directory may be deleted, whereupon the index is built anew.
//
// # Invariants
//
//  1. Once no pass is in progress, the index has exactly the links of the records that readers of
//     the log up to Through hold: what a record has now replaces what the index had of it, and an
//     account event that hides an account removes all that the index has of it. The argument at the
//     top of store/snapshot.go then holds for the pass and the log behind it.
//  2. One write has the rows of a run and the state that it leads to. A crash leaves a prefix of
//     the writes, so that the index is never without what its state says. What comes again after a
//     crash changes nothing.
//  3. The counts of a target and a source equal its rows at each point in time.
//  4. The log keeps the events after what is durable in the index, within the bounds of durable
//     subscriptions. If it does not have them any more, or is another log, the index is emptied and
//     built anew. Numbers of sources are never given twice, so that no reader mixes two up.
//  5. A read examines a bounded number of rows. Records of accounts that are hidden now are not in
//     its answer, although counts may have them until the index has passed the account event.
//  6. No operation of the index changes a file while the store is frozen.
//  7. A failure of the index ends nothing else of the daemon. After one that may pass, such as a
//     full disk, it goes on by itself. If the engine loses its log or its manifest, nothing is
//     written until the daemon is restarted.
//
// # Concurrency
//
// Open, Close and Run are the wiring's; all other methods may be called from any goroutine. Run
// owns the run of changes, and no other goroutine. The engine owns those that flush and compact.
//
// # Files
//
//	index.go    Options, Index, State       state.go   the row of the state
//	keys.go     the schema                  names.go   numbers of sources and accounts
//	build.go    Run: a pass, then the log   run.go     changes that are not written yet
//	write.go    the rows of a run           targets.go those by target, and counts
//	sink.go     batches, or sorted tables   read.go    Count, Records, Each, DIDs, Sources
//	engine.go   Pebble's options            health.go  failures, and which of them pass
//	check.go    Check                       metrics.go
package linkindex
