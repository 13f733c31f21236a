// Package store keeps everything that Cistern has on disk.
//
// # Purpose
//
// It holds verified copies of repositories, the ordered log of what happened to them, and the
// state of the work on them, so that each change is there as a whole or not at all.
//
// # Invariants
//
//  1. A change is one Batch: its rows, index rows, queue rows, counters, source cursor and
//     events become durable together. Nothing else writes rows that anything names.
//  2. Ids of events rise in the order of visibility, without a gap, and are given as part of
//     committing. What is published (Head) is durable; a published id never stands for another
//     event. Times rise with ids, by at least a microsecond each.
//  3. Every counter equals what the rows make of it, at each point in time. Check recomputes
//     them, and every row that derives from another.
//  4. Rows of an import stand under an ordinal that a lease covers until the flip, and no row
//     outside the lease names them. Opening the store deletes what open leases cover. The bulk rows
//     of an ordinal whose repository was wiped, dropped or never became visible are abandoned: one
//     row records this until the collector has deleted them.
//  5. An ordinal is given once. Blocks of an ordinal are numbered upwards and never rewritten;
//     no ref row means one reference; a block without references has a superseded row, and
//     goes when the tail has passed the event that superseded it.
//  6. Every event from the tail on that is shown has its body, unless its repository was wiped. Of a
//     dropped one the deletions are shown, which have none: who had its records learns of their end.
//     A page of the log never passes an event that is hidden by a batch which a crash may still lose.
//  7. A repository's row says what queue rows exist: one pending row while it is pending, one
//     retry row while it waits for a time. Enqueue ids are fresh, so the front of a queue only
//     moves forward.
//  8. No table reaches over two keyspaces, so imports land at the bottom level.
//  9. A firehose cursor is asked for while its batch gets its place in the order of the log, and
//     never falls: a cursor on disk covers no event whose batch is not there.
//  10. A draining repository holds buffered commits; a pending one may, until its fetch ends or
//     the process does; nobody else holds any. What is dropped unused raises the row's SeenRev.
//  11. Listing rows of an ordinal stand at ascending ops, each named by one entry; those from the
//     row's Listed on, which an interrupted relist left, by none.
//  12. The filter that a row names chose its records: each that it wants is shown. Others are not held,
//     or shelved with their blocks: in no list, no collection count, no event. Until a row is swept,
//     records may be held as an older filter chose; while it lacks some, wanted ones are missing.
//     What has no valid path is kept where all is wanted or stored. What a row names stays: filter, host.
//  13. After the first failed write (of the log, a table, the manifest, a flush or a
//     compaction) nothing is written any more: every write gives the failure, and Run ends
//     with it. Then the process should end; opening the store again recovers all that was durable.
//
// # Concurrency
//
// Methods of Store may be called from any goroutine. A Batch belongs to one. Lock(did) gives the
// right to write a repository's rows: read the row under it, commit, unlock, then wait; who takes
// several takes them in order of DID, and HoldFilter before them. The sequencer's mutex is held
// only to give ids and hand the batch to the engine. Import must be called without a lock of Lock,
// and its callbacks must not import: the flip calls Complete with the members' locks held, so that
// it must not lock either, and Done with its slot held, for which no holder of a lock waits. Run
// owns the goroutines that flip groups by age, prune and collect; all others are Pebble's.
//
// # Files
//
//	store.go   Open, Run, Close            keys.go      the schema: every key
//	options.go Options                     values.go    encodings of rows
//	engine.go  Pebble's options, failures  format.go    format version, epoch
//	batch.go   Batch, the only writer      sequencer.go ids, counters, durable head
//	repo.go    the row of a repository     count.go     counters and gauges
//	import.go  import groups and the flip  slots.go     places of groups being filled
//	sink.go    tables or batches of a group check.go   Check
//	log.go     ReadLog                     event.go     Event
//	record.go  records and their bodies    list.go      lists of repositories, sizes
//	pending.go queues of work, retries     host.go, hostidle.go  ids of hosts
//	retention.go how old events are        prune.go     what goes with old events
//	collect.go rows of wiped repositories  unsettled.go what a crash may show again
//	lock.go, dirlock.go  a lock for each DID, and for the directory    errors.go  error classes
//	metrics.go what is measured            buffer.go    live commits during a fetch
//	cursor.go  firehose cursors            source.go, crawlsource.go  sources
//	status.go  whose word a status is      listing.go   rows of many ops
//	relist.go  Relist                      limits.go    what is bounded
//	codec.go   what is written as CBOR     cache.go     rows written last
//	filter.go  versions of the filter      retry.go    retries in due order
//	progress.go, crawlmark.go, reconcile.go, refilter.go, describe.go  how far work has come
//	shelve.go  what is kept, and shown     drop.go      repositories no longer followed
//	hostrow.go what is set for hosts       holds.go     whether records of a kind are held
//	checkhosts.go, checklog.go, checklive.go, checkmemory.go  more of Check
package store
