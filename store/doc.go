// Package store keeps everything that Cistern has on disk.
//
// # Purpose
//
// It holds verified copies of repositories, the ordered log of their changes, and the state of the
// work on them, so that each change is stored as a whole or not at all.
//
// # Invariants
//
//  1. A change is one Batch: its rows, index rows, queue rows, counters, source cursor and events
//     become durable together. batch.go lists what is written without a Batch.
//  2. Event ids rise in the order of visibility, without a gap, and are assigned as part of
//     committing. What is published (Head) is durable; a published id never names another event.
//     Times rise with ids, by at least a microsecond each.
//  3. Every counter and total equals its rows at each point in time. Check recomputes all.
//  4. Rows of an import are under an ordinal that a lease covers until the flip, and no row outside
//     the lease names them. Opening the store deletes what open leases cover. If a repository was
//     wiped, dropped or never became visible, the bulk rows of its ordinal are abandoned: one row
//     records this until the collector has deleted them.
//  5. An ordinal is assigned once. Blocks of an ordinal are numbered upwards and never rewritten. A
//     block without a ref row has one reference. A block without references has a superseded row,
//     and is deleted when the tail has passed the event that superseded it.
//  6. Every shown event from the tail on has its body, unless its repository was wiped. Of a
//     dropped repository only the deletes are shown, so that readers drop its records. A page of
//     the log never passes an event that is hidden by a batch which is not durable yet.
//  7. The row of a repository decides which queue rows exist: one pending row while it is pending,
//     one retry row while it waits for a time. Enqueue ids are fresh, so that the front of a queue
//     only moves forward. The newest repo event of a repository tells the condition of its row.
//  8. No table spans two keyspaces, so that imports land at the bottom level.
//  9. A firehose cursor is computed while its batch gets its place in the order of the log, and
//     never falls unless it is dropped: a cursor on disk covers no event whose batch is missing.
//  10. A draining repository has buffered commits, a pending repository may have some until its
//     fetch or the process ends, and no other has any. Dropping unused commits raises SeenRev.
//  11. The listing rows of an ordinal have ascending op numbers, and one entry names each. Rows
//     from the repository's Listed on are left by an interrupted relist, and no entry names them.
//  12. The filter that a row names chose its records: wanted records are shown, and others are
//     absent or shelved (kept with their blocks, but in no list, collection count or event). Until
//     a row is swept, it may have records that only an older filter wanted; while it lacks records,
//     wanted records are missing. A record without a valid path is kept if all records are wanted
//     or stored. The selection and the host that a row names are never deleted.
//  13. After the first failed write, also of a flush or a compaction, every write returns the
//     failure, and Run ends with it. The process should end; opening recovers everything durable.
//  14. Every event that may be shown is in the postings of its kind or collection.
//  15. While the store is frozen, its files do not change and have everything that was committed.
//  16. An ephemeral store, which is one from its creation on, has a record row, and a block of it,
//     only while the log, or below its tail an entry that lapses, has the entry that wrote it.
//
// # Concurrency
//
// Methods of Store may be called from any goroutine; a Batch belongs to one. Lock(did) gives the
// right to write a repository's rows: read the row under the lock, commit, unlock, then wait. Locks
// are taken in order of DID, and HoldFilter before them. The sequencer's mutex is held only to
// assign ids and hand the batch to the engine. Import must be called without a lock of Lock, and
// its callbacks must not import. The flip calls Complete with the members' locks held, so Complete
// must not lock. It calls Done with its slot held; no holder of a lock waits for a slot. Writes of
// a frozen store wait before the locks of reads. Run owns the goroutines that flip.
//
// # Files
//
//	store.go, options.go  Open, Run        keys.go, values.go, codec.go  the schema
//	engine.go  Pebble's options, failures  format.go    format version, epoch
//	batch.go   Batch, how rows change      control.go   its rows of no repository
//	apply.go   Apply: changes of records   sequencer.go ids, counters, durable head
//	repo.go, update.go, transition.go  the row of a repository  count.go, census.go, total*.go,
//	arrivals.go  counters, gauges, totals by collection and day
//	import.go  import groups and the flip  slots.go     groups being filled
//	sink.go    tables or batches of groups check*.go, examine.go, repair.go  Check, Repair
//	log.go, since.go, event.go  ReadLog    segment.go, kept.go  what the archive has, and gets
//	record.go  records and their bodies    postings.go, sparse.go  events by collection
//	retention.go, prune.go, lapse.go  old events  anchor.go, backlog.go  what readers keep
//	collect.go, compact.go  freed space    unsettled.go events hidden by volatile batches
//	recent.go, cache.go  newest events, written rows    buffer.go  live commits during a fetch
//	pending.go, retry.go  queues    host*.go  hosts    *lock.go, door.go, freeze*.go, ordinalset.go
//	cursor.go, source.go, crawlsource.go  sources       limits.go, errors.go, metrics.go
//	relist.go, listing.go  rows of many ops             status.go, condition.go  what is told
//	snapshot.go, passrepos.go, current.go, bycollection.go  many records    view.go, repoview.go  one point in time
//	filter.go, shelve.go, holds.go  the filter, shown records   drop.go  dropped repositories
//	subscription.go, position.go  consumers      checkpoint.go, restored.go  backups; list.go, sizes.go
//	progress.go, crawlmark.go, reconcile.go, refilter.go, describe.go, maintenance.go, copies.go  positions
package store
