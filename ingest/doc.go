// Package ingest applies the events of firehoses, so that every tracked repository stays complete.
//
// # Purpose
//
// It takes the events that package firehose reads, verifies every one, and makes it durable once,
// in the order of the repository's events.
//
// # Invariants
//
//  1. One shard handles the events of a DID, strictly in the order in which they were read. Events
//     of other DIDs wait only while the shard computes, never while an event waits for the network.
//     There is one exception: a shard takes no more events while many wait for a directory that
//     answers.
//  2. An event is finished at its source when it is skipped, or by the batch that has its changes,
//     while that gets its place in the log. So a cursor never covers an event that a crash loses.
//  3. Nothing is applied to a repository that is incomplete, hidden, or being fetched: its commits
//     are buffered durably, or its row records the highest rev announced. A complete repository
//     that waits for its host accepts commits that follow its tree.
//  4. A commit is applied only if its envelope, signature, blocks and operations agree, and undoing
//     the operations gives the tree that we hold; or, where they cannot be undone, if it names the
//     commit that we hold (check.go). After any other commit the repository is fetched again, as
//     often as the refetch budgets of its DID and its host allow. Changes of a status have a
//     separate budget.
//  5. Draining uses the code for live events: the shard of the DID handles buffered commits in the
//     order of their revs, as if they had just arrived. A crash anywhere leaves a row from which
//     the drain continues.
//  6. A commit that cannot be decoded causes a fetch, as an invalid one does.
//  7. A row is changed under its lock, in the batch that has all other changes of the event.
//
// # Concurrency
//
// Run owns every goroutine: the firehose's; for each shard, the shard and one that waits for its
// batches; bounded pools for lookups, for lookups after #identity, for lookups of did:web, and for
// account events that change many records. Drain may be called from any goroutine. shard.mu is
// never held over I/O.
//
// # Files
//
//	runner.go  Runner, Run            options.go  Options           limits.go   limits of fetches
//	shard.go   queues by DID          park.go     waiting DIDs      item.go     one step of a DID
//	writing.go changes of a group     check.go    verification      verify.go   proofs of sync v1.1
//	commit.go  #commit                sync.go     #sync             drain.go    buffered commits
//	account.go #account               identity.go #identity         future.go   revs in the future
//	discover.go unknown DIDs          budget.go   refetches         buckets.go  token buckets by key
//	outage.go  failing lookups        reread.go   reads for #identity
//	tally.go   metrics                traced.go   traces of commits
package ingest
