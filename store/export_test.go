package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// SetFormat writes another format version.
func SetFormat(s *Store, v string) error {
	return s.db.Set(metaKey(metaFormat), []byte(v), pebble.Sync)
}

// Chunked returns options with chunks and buckets of postings of 2^chunk and 2^bucket ids.
func Chunked(o Options, chunk, bucket uint8) Options {
	o.chunkBits, o.bucketBits = chunk, bucket
	return o
}

// AddToPostings adds n events of one op to postings that begin empty, and calls row for each row.
func AddToPostings(t testing.TB, s *Store, n int, path func(n int) []byte, row func()) {
	var p postings
	p.init(&s.opts, 0)
	b := s.db.NewBatch()
	e := entry{entryV1: entryV1{Kind: entryCommit, Ops: make([]entryOp, 1)}}
	for id := range uint64(n) {
		e.id, e.Ops[0].Path = id, path(int(id))
		err := errors.Join(p.addEntry(b, &e), p.pass(b, id+1))
		if err != nil {
			t.Fatal(err)
		}
		if !b.Empty() {
			for range b.Count() {
				row()
			}
			b.Reset()
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// ReadPostings returns the runs of a row of postings up to the first error, and AppendPostings a row
// of some runs.
func ReadPostings(row []byte, first, end uint64) (runs [][2]uint64, err error) {
	r, err := newRunReader(row, first, end)
	for err == nil {
		run, ok, rerr := r.next()
		if err = rerr; !ok {
			break
		}
		runs = append(runs, [2]uint64{run.from, run.to})
	}
	return runs, err
}

func AppendPostings(first uint64, runs [][2]uint64) []byte {
	l := postingList{row: []byte{valueVersion}, end: first, last: idRun{first, first}}
	for _, r := range runs {
		l.add(r[0], r[1]-r[0])
	}
	l.close()
	return l.row
}

// EngineMetrics are the metrics that the store exports.
func EngineMetrics(s *Store) *pebble.Metrics { return s.engineMetrics() }

// Metrics returns Pebble's metrics.
func Metrics(s *Store) *pebble.Metrics { return s.db.Metrics() }

// Prune prunes the entries that end before event to, page by page.
func Prune(ctx context.Context, s *Store, to uint64) error {
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if more, err = PrunePage(s, to); err != nil {
			return err
		}
	}
	return nil
}

// Retain does what Prune does, with that retention, and deletes what the removed events leave.
func Retain(ctx context.Context, s *Store, retention time.Duration) error {
	err := s.retain(ctx, retention, NoProgress)
	for more := true; more && err == nil; {
		more, err = s.garbagePage(ctx)
	}
	return err
}

// NoProgress ignores the progress of Prune and CollectGarbage.
func NoProgress(done, total int64) {}

// LogBytes returns the size of the log as RetentionBytes counts it.
func LogBytes(s *Store) int64 { return s.logBytes.Load() }

// Now returns the time of the store's clock.
func Now(s *Store) time.Time { return s.now() }

// Collect deletes the rows of abandoned ordinals.
func Collect(s *Store) error { return s.collect(context.Background()) }

// Compact flushes the memtable, so that all rows are in tables.
func Compact(s *Store) error { return s.db.Flush() }

// RangeTombstones returns the number of range tombstones in tables, after flushing the memtable.
func RangeTombstones(s *Store) (n uint64, err error) {
	if err := s.db.Flush(); err != nil {
		return 0, err
	}
	levels, err := s.db.SSTables(pebble.WithProperties())
	for _, tables := range levels {
		for _, t := range tables {
			n += t.Properties.NumRangeDeletions
		}
	}
	return n, err
}

// PrunePage prunes one page of entries, and one of what earlier ones left.
func PrunePage(s *Store, to uint64) (more bool, err error) {
	entries, err := s.pruneEntries(to)
	if err != nil {
		return false, err
	}
	garbage, err := s.garbagePage(context.Background())
	return entries || garbage, err
}

// Tables returns the tables of each level.
func Tables(s *Store) ([][]pebble.SSTableInfo, error) { return s.db.SSTables() }

// SetRaw, DeleteRaw, GetRaw and ScanRaw bypass Batch, to damage a store.
func SetRaw(s *Store, key, value []byte) error { return s.db.Set(key, value, pebble.Sync) }

func DeleteRaw(s *Store, key []byte) error { return s.db.Delete(key, pebble.Sync) }

func GetRaw(s *Store, key []byte) (value []byte, err error) {
	err = get(s.db, key, func(v []byte) error { value = append(value, v...); return nil })
	return value, err
}

func ScanRaw(s *Store, space byte, fn func(key, value []byte)) error {
	return scan(s.db, []byte{space}, spaceEnd(space), func(key, value []byte) (bool, error) { fn(key, value); return true, nil })
}

// AddBuffered makes the store count n more buffered bytes.
func AddBuffered(s *Store, n int64) {
	s.buffers.mu.Lock()
	defer s.buffers.mu.Unlock()
	s.buffers.bytes += n
}

// CacheRow and CacheCount put a row and a collection's count into the caches.
func CacheRow(s *Store, r Repo) { s.caches.rows.put(r.DID, r) }

func CacheCount(s *Store, o Ordinal, collection string, n int64) {
	s.caches.counts.put(collectionOf{o, collection}, n)
}

// ForgetCaches empties the caches of rows and counts, as after opening the store.
func ForgetCaches(s *Store) { s.caches.init() }

// ForgetTotals drops the totals from memory that no batch holds, as when others take their places.
func ForgetTotals(s *Store) {
	s.totals.mu.Lock()
	defer s.totals.mu.Unlock()
	s.totals.turn()
	s.totals.turn()
}

// TotalsInMemory returns how many totals are in memory.
func TotalsInMemory(s *Store) int {
	s.totals.mu.Lock()
	defer s.totals.mu.Unlock()
	return len(s.totals.new) + len(s.totals.old)
}

// TotalsCached bounds a generation of totals, besides those that are held.
const TotalsCached = totalsCached

// Total is a row of totals.
type Total struct {
	Repos, Records int64
	Day            uint32
	Arrived        Arrivals
}

func (t Total) Append(dst []byte) []byte {
	return (&total{t.Repos, t.Records, t.Day, t.Arrived}).append(dst)
}

func ParseTotal(b []byte) (Total, error) {
	t, err := parseTotal(b)
	return Total{t.repos, t.records, t.day, t.arrived}, err
}

// AppendArrivals and ParseArrivals are of rows of days.
func AppendArrivals(dst []byte, a Arrivals) []byte { return appendArrivalsRow(dst, a) }
func ParseArrivals(b []byte) (Arrivals, error)     { return parseArrivals(b) }

// NameHost names a host under an id, as if all lower ids had been assigned.
func NameHost(s *Store, id uint32, name string) error {
	q := &s.hosts
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.known(id) {
		return nil
	}
	value, err := s.codec.encode(&HostRow{})
	if err != nil {
		return err
	}
	b := s.db.NewBatch()
	q.next = max(q.next, id+1)
	err = errors.Join(b.Set(hostKey(name), binary.BigEndian.AppendUint32(nil, id), nil),
		b.Set(hostNameKey(id), []byte(name), nil), b.Set(hostIDKey(spaceHostRow, id), value, nil),
		setMetaNumber(b, metaHost, uint64(q.next)), s.apply(b, pebble.NoSync))
	q.enter(id, name)
	return err
}

// SetNextHost sets the next host id.
func SetNextHost(s *Store, id uint32) {
	s.hosts.mu.Lock()
	defer s.hosts.mu.Unlock()
	s.hosts.next = id
}

// SetVersion sets the version of the filter in force, which the next one follows.
func SetVersion(s *Store, version uint32) {
	next := *s.filters.kept.Load()
	next.inForce.Version = version
	s.filters.kept.Store(&next)
}

// EvictableHosts returns how many hosts may lose their id, sources aside, and Pins how many batches
// hold one.
func EvictableHosts(s *Store) (n int) {
	s.hosts.mu.Lock()
	defer s.hosts.mu.Unlock()
	for _, m := range s.hosts.of {
		if m.evictable() {
			n++
		}
	}
	return n
}

func Pins(s *Store) (n int) {
	s.hosts.mu.Lock()
	defer s.hosts.mu.Unlock()
	for _, m := range s.hosts.of {
		n += int(m.pins)
	}
	return n
}

// Failed is closed when the store can no longer be written.
func Failed(s *Store) <-chan struct{} { return s.failed }

// The keys, each with its parser.
var (
	AppendDID                   = appendDID
	ParseDID                    = parseDID
	MetaKey                     = metaKey
	CountKey                    = countKey
	CrawlKey                    = crawlKey
	ParseCrawlKey               = parseCrawlKey
	ReconcileKey                = reconcileKey
	ParseReconcileKey           = parseReconcileKey
	DescribeKey                 = describeKey
	ParseDescribeKey            = parseDescribeKey
	SubscriptionKey             = subscriptionKey
	ParseSubscriptionKey        = parseSubscriptionKey
	MaintenanceKey              = maintenanceKey
	ParseMaintenanceKey         = parseMaintenanceKey
	SegmentKey                  = segmentKey
	ParseSegmentKey             = parseSegmentKey
	HostKey                     = hostKey
	HostNameKey                 = hostNameKey
	RepoKey                     = repoKey
	ParseRepoKey                = parseRepoKey
	OrdinalKey                  = ordinalKey
	ParseOrdinalKey             = parseOrdinalKey
	RecordKey                   = recordKey
	ParseRecordKey              = parseRecordKey
	NumberedKey                 = numberedKey
	ParseNumberedKey            = parseNumberedKey
	CollectionKey               = collectionKey
	ParseCollectionKey          = parseCollectionKey
	TotalKey                    = totalKey
	ParseTotalKey               = parseTotalKey
	DayKey                      = dayKey
	ParseDayKey                 = parseDayKey
	EventKey                    = eventKey
	ParseEventKey               = parseEventKey
	SupersededKey               = supersededKey
	ParseSupersededKey          = parseSupersededKey
	DroppedAtKey                = droppedAtKey
	ParseDroppedAtKey           = parseDroppedAtKey
	AppendList                  = appendList
	PostingKey                  = postingKey
	ParsePostingKey             = parsePostingKey
	PendingRowKey               = pendingKey
	ParsePendingRowKey          = parsePendingKey
	RetryKey                    = retryKey
	ParseRetryKey               = parseRetryKey
	BufferKey                   = bufferKey
	ParseBufferKey              = parseBufferKey
	CursorKey                   = cursorKey
	SourceKey                   = sourceKey
	ProgressKey                 = progressKey
	SpaceNames                  = spaceNames
	ParseCountValue             = parseCountValue
	EncodeCount                 = encodeCount
	AppendListingOp             = appendListingOp
	CountNames                  = countNames
	EntryCommit                 = entryCommit
	EntryImport                 = entryImport
	EntryAccount                = entryAccount
	EntryIdentity               = entryIdentity
	EntryRelist                 = entryRelist
	EntryRepo                   = entryRepo
	EnqueueLease         uint64 = enqueueLease
)

const (
	SpaceLease      = spaceLease
	SpaceOwner      = spaceOwner
	SpaceBlock      = spaceBlock
	SpaceRef        = spaceRef
	SpaceListing    = spaceListing
	SpaceRecord     = spaceRecord
	SpaceCollection = spaceCollection
	SpaceEvent      = spaceEvent
	SpacePending    = spacePending
	SpaceDropped    = spaceDropped
	SpaceDroppedAt  = spaceDroppedAt
	SpaceGarbage    = spaceGarbage
	SpaceFilter     = spaceFilter

	SpaceSubscribed = spaceSubscribed
	SpacePosition   = spacePosition
	SpacePosting    = spacePosting
	ChunkBits       = chunkBits
	BucketBits      = bucketBits
	SpaceWebhook    = spaceWebhook
	SpaceTotal      = spaceTotal
	SpaceDay        = spaceDay

	SelectionsMax = selectionsMax
	IdleHostsMax  = idleHostsMax

	LargeBlocks   = largeBlocks
	LeaseOrdinals = leaseOrdinals
	PruneEntries  = pruneEntries
	LapseRows     = lapseRows
	LapsePage     = lapsePage
	PruneBlocks   = pruneBlocks
	PruneDropped  = pruneDropped
	PruneInterval = pruneInterval

	EntryOpsMax = entryOpsMax

	BufferBytesMax   = bufferBytesMax
	BufferTotalMax   = bufferTotalMax
	RelistBatchBytes = relistBatchBytes
)

// The values.
type (
	Entry   = entryV1
	EntryOp = entryOp
)

// IDs returns the number of event ids of an entry.
func IDs(e *Entry) uint64 { return e.ids() }

// Codec encodes and decodes rows.
func Codec() (encode func(any) ([]byte, error), decode func([]byte, any) error, err error) {
	c, err := newCodec()
	return c.encode, c.decode, err
}

// RecordRow is recordV1.
type RecordRow struct {
	Hidden  bool
	Shelved bool
	Block   uint32
	CID     repo.CID
	Rev     string
}

func (r RecordRow) Append(dst []byte) []byte {
	return recordRow{hidden: r.Hidden, shelved: r.Shelved, block: r.Block, cid: r.CID, rev: []byte(r.Rev)}.append(dst)
}

func ParseRecordRow(b []byte) (RecordRow, error) {
	r, err := parseRecordRow(b)
	return RecordRow{Hidden: r.hidden, Shelved: r.shelved, Block: r.block, CID: r.cid, Rev: string(r.rev)}, err
}

// ListingOp is one op of a listing row.
type ListingOp struct {
	Path  string
	Block uint32
}

// ReadListing reads the ops of a listing row up to the first error.
func ReadListing(row []byte) (ops []ListingOp, err error) {
	l, err := newListingReader(row)
	for err == nil {
		var more bool
		if more, err = l.next(); !more {
			break
		}
		ops = append(ops, ListingOp{Path: string(l.op.path), Block: l.op.block})
	}
	return ops, err
}

// WriteOn is Write on another file system.
func (r Restored) WriteOn(fs vfs.FS, dir string) error { return r.write(fs, dir) }

// ReadRestoredOn is ReadRestored on any file system.
func ReadRestoredOn(fs vfs.FS, dir string) (r Restored, ok bool, err error) {
	return readRestored(fs, dir)
}

// EngineFormat is the format of Pebble's files.
const EngineFormat = engineFormat

// WatchesDisk reports whether operations of the disk are watched; DiskSlow is called for one that
// hangs.
func WatchesDisk(s *Store) bool             { return s.health != nil }
func DiskSlow(s *Store, i vfs.DiskSlowInfo) { s.diskSlow(i) }

// Rows that have no type of their own in the interface.
type (
	SelectionRow      = selectionV1
	InForceRow        = inForceV1
	AgesRow           = agesV1
	ReconcileHostsRow = reconcileHostsV1
	SubscriptionRow   = subscriptionV1
	PositionRow       = positionV1
	SnapshotRow       = snapshotV1
	RecordRun         = recordRun
	BegunRow          = begunV1
	WebhookRow        = webhookV1
	WebhookStateRow   = webhookStateV1
	MaintenanceRow    = maintenanceV1
	CopiesRow         = copiesV1
	CopyRow           = copyV1
	SegmentRow        = segmentV1
	AgeMark           = ageMark
	Anchor            = anchor
)

// The counts of a host.
var (
	AppendHostCounts = appendHostCounts
	ParseHostCounts  = parseHostCounts
)

// ForgeRepo writes a row in any state, whatever the state of the row before.
func (b *Batch) ForgeRepo(r *Repo) { b.putRepo(r) }

// Arrow is one arrow of the state machine.
type Arrow struct {
	Name     string
	From, To State
}

// Arrows returns all of them, in the order of the table.
func Arrows() (out []Arrow) {
	for _, t := range transitions {
		for _, from := range t.from {
			out = append(out, Arrow{t.name, from, t.to})
		}
	}
	return out
}

// Locked reports whether the lock of a DID is held or awaited.
func (s *Store) Locked(did string) bool {
	s.locks.mu.Lock()
	defer s.locks.mu.Unlock()
	return s.locks.held[did] != nil
}

// FilterHeld reports whether HoldFilter keeps other filters from coming into force.
func (s *Store) FilterHeld() bool {
	if s.filters.use.TryLock() {
		s.filters.use.Unlock()
		return false
	}
	return true
}

// Unsettled has the repositories whose events are hidden by a batch that is not durable yet.
type Unsettled struct{ u unsettled }

func (u *Unsettled) Add(did string) uint64     { return u.u.add([]string{did}) }
func (u *Unsettled) Settle(number uint64) bool { return u.u.settle(number) }
func (u *Unsettled) Holds(did string) bool     { return u.u.holds(did) }
func (u *Unsettled) Wait() <-chan struct{}     { return u.u.wait() }

// ReadLogOnDisk is ReadLog without the newest events in memory.
func (s *Store) ReadLogOnDisk(ctx context.Context, cursor uint64, maxEvents int, fn func(*Event) error) (next uint64, err error) {
	return s.readLog(ctx, cursor, s.Head(), maxEvents, logReader{fn: fn})
}

// InMemory reports whether ReadLog gets an event from memory.
func InMemory(s *Store, id uint64) bool {
	s.recent.mu.Lock()
	defer s.recent.mu.Unlock()
	return id >= s.recent.from && id <= s.Head()
}

// FrontAfter returns the front of the retries after a scan that found its first row at found, while
// a row that is due at added came.
func FrontAfter(found, added int64) int64 {
	q := retries{low: noDue}
	_, adds := q.front()
	q.added(added)
	q.remember(found, adds)
	return q.low
}

// AllRows returns how many rows the store has, and a hash over all of them.
func AllRows(t testing.TB, s *Store) (n int, sum [32]byte) {
	t.Helper()
	h := sha256.New()
	it, err := s.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var length [4]byte
	for ok := it.First(); ok; ok = it.Next() {
		for _, part := range [][]byte{it.Key(), it.Value()} {
			binary.BigEndian.PutUint32(length[:], uint32(len(part)))
			h.Write(length[:])
			h.Write(part)
		}
		n++
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return n, [32]byte(h.Sum(nil))
}

// Door is the door at which writes wait.
type Door struct{ door }

// Enter, TryEnter, Leave, Shut and Open are the methods of door.
func (d *Door) Enter(stop <-chan struct{})     { d.enter(stop) }
func (d *Door) TryEnter() (opened bool)        { return d.tryEnter() == nil }
func (d *Door) Leave()                         { d.leave() }
func (d *Door) Shut(ctx context.Context) error { return d.shut(ctx) }
func (d *Door) Open()                          { d.open() }

// CheckedStep is a step of Check: its estimated work, and what it has done.
type CheckedStep struct {
	Part         string
	Work, Worked int64
}

// CheckSteps runs Check, and returns its steps with a part.
func (s *Store) CheckSteps(ctx context.Context, report func(string)) (steps []CheckedStep, err error) {
	_, err = s.check(ctx, report, checkWork{progress: func(CheckProgress) {}, ended: func(step checkStep, worked int64) {
		if step.part != "" || worked > 0 {
			steps = append(steps, CheckedStep{step.part, step.work, worked})
		}
	}})
	return steps, err
}

// The costs of Check, in nanoseconds for a row.
const (
	CheckRepoCost, CheckOwnerCost, CheckOwnedCost, CheckRecordCost      = checkRepoCost, checkOwnerCost, checkOwnedCost, checkRecordCost
	CheckStrayCost, CheckCollectionCost                                 = checkStrayCost, checkCollectionCost
	CheckTotalCost, CheckTotalEntryCost, CheckEventCost, CheckEntryCost = checkTotalCost, checkTotalEntryCost, checkEventCost, checkEntryCost
	CheckPostingCost, CheckPostingEntryCost                             = checkPostingCost, checkPostingEntryCost
)
