// Package ingest follows firehoses, so that every tracked repository stays complete.
//
// # Purpose
//
// It reads com.atproto.sync.subscribeRepos of any number of relays and PDSes, verifies every event,
// and makes it durable once, in the order of the repository's events.
//
// # Invariants
//
//  1. One shard handles the events of a DID, strictly in the order in which they were read. Events
//     of other DIDs wait only while the shard computes, never while an event waits for the network.
//     There is one exception: a shard takes no more events while many wait for a directory that
//     answers.
//  2. The cursor of a source is the low watermark: every event up to it was skipped, or is in an
//     earlier batch or the batch that writes the cursor. It moves past skipped events too, and
//     never moves backwards, unless it is dropped: for a new count (gap.go), for a message that
//     cannot be read (6), or by ForgetCursor.
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
//  6. A malformed message is counted and skipped; if it is a #commit or #sync whose DID and rev are
//     readable, the repository is fetched, as after an invalid commit. No message causes endless
//     reconnects at one cursor: if the connection breaks within the same message three times, over
//     two minutes or more, the source continues at its newest message.
//  7. Messages missed between two connections are found whether the host announces them or not, by
//     the signs that gap.go lists, and recovered by comparing the source's listing. The comparison
//     is requested, or recorded as owed, durably before the cursor moves past the gap.
//  8. A row is changed under its lock, in the batch that has all other changes of the event.
//
// # Concurrency
//
// Run owns every goroutine: one that starts sources, and for each source a reader and one that
// pings; one that saves cursors and requests owed comparisons; for each shard, the shard and one
// that waits for its batches; bounded pools for lookups, for lookups after #identity, for lookups
// of did:web, and for account events that change many records. Drain, Sources, AddSource,
// RemoveSource and ForgetCursor may be called from any goroutine. tracker.mu, source.mu, sources.mu
// and shard.mu are never held over I/O; sources.mu is taken before source.mu.
//
// # Files
//
//	runner.go  Runner, Run            options.go  Options           limits.go   limits of sockets
//	gap.go     missed messages        direct.go   hosts followed directly
//	source.go  one source             socket.go   its connection    event.go    one message
//	sources.go the set of sources     address.go  their addresses   watermark.go  cursors
//	shard.go   queues by DID          park.go     waiting DIDs      item.go     one step of a DID
//	writing.go changes of a group     check.go    verification      verify.go   proofs of sync v1.1
//	commit.go  #commit                sync.go     #sync             drain.go    buffered commits
//	account.go #account               identity.go #identity         future.go   revs in the future
//	discover.go unknown DIDs         budget.go   refetches
//	buckets.go token buckets by key   outage.go   failing lookups   reread.go   reads for #identity
//	metrics.go metrics of sources     tally.go    metrics of shards
//	traced.go  traces of commits
package ingest
