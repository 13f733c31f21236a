// Package ingest follows firehoses, so that every tracked repository stays complete.
//
// # Purpose
//
// Read com.atproto.sync.subscribeRepos of any number of relays and PDSes, verify every event, and make it
// durable once, in the order of its repository.
//
// # Invariants
//
//  1. Events of one DID are handled strictly in the order they were read, by one shard; events of other
//     DIDs wait for them only while the shard computes, never while it waits for the network; except that it
//     takes no more while much waits for a directory that answers.
//  2. The cursor of a source is the low watermark: every event up to it is in a batch before, or in the
//     batch that carries it, or was skipped. It moves over skipped events too, and never backwards.
//  3. Nothing is applied to a repository that is incomplete, hidden, or being fetched: its commits
//     are buffered durably, or its row remembers the highest rev seen. A complete repository that
//     waits for its host accepts commits that follow its tree.
//  4. A commit is applied only if envelope, commit, signature, blocks and operations agree, and the tree
//     before it, by inversion, is the tree we hold. What does not fit makes the repository fetched again,
//     as often as the refetch budget of its DID and its host allows. Changes of a status have a budget of their own.
//  5. Draining is the live path: the shard of the DID takes buffered commits in the order of their revs
//     as if they came now. A crash anywhere leaves a row from which it goes on.
//  6. A malformed message is counted and skipped; if it is a #commit or #sync whose DID and rev are
//     readable, the repository is fetched, as after an invalid commit. No message causes endless
//     reconnects at one cursor: when the connection breaks inside the same message three times over
//     two minutes, the source goes on at its newest message.
//  7. Messages missed between two connections are found whether the host announces them or not, by
//     the signs that gap.go lists, and recovered by comparing the source's listing. The comparison
//     is requested, or noted as owed, durably before the cursor moves past the gap.
//  8. A row is changed under its lock, in the batch that holds everything else of the event.
//
// # Concurrency
//
// Run owns every goroutine: one that reads a socket and one that pings, for each source; one a shard and one that waits for
// its batches to be durable; a bounded pool of lookups. Drain, Sources, AddSource, RemoveSource and ForgetCursor may be
// called by anybody. tracker.mu, source.mu, sources.mu and shard.mu are never held over I/O; sources.mu is taken before source.mu.
//
// # Files
//
//	runner.go  Runner, Run            options.go  Options           limits.go  every limit of sockets
//	gap.go     missed messages     direct.go   hosts beside relays
//	source.go  one source             socket.go   its connection    event.go   what it hands over
//	sources.go the set of them        address.go  their names       order.go   cursors, watermarks
//	shard.go   queues by DID          park.go     who waits          item.go     one step of a DID
//	verify.go  sync v1.1              commit.go   #commit           sync.go    #sync
//	account.go #account               identity.go #identity         drain.go   buffered commits
//	discover.go unknown DIDs          budget.go   refetches         future.go  revs that are not yet
//	buckets.go token buckets by key   outage.go   lookups that fail  reread.go   reads for #identity
//	metrics.go what sources count     tally.go    what shards count
package ingest
