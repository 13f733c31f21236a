package store

import (
	"context"
	"time"

	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

type Options struct {
	Dir        string
	FS         vfs.FS
	Retention  time.Duration
	Now        func() time.Time
	Registerer prometheus.Registerer
}
type Store struct{}

func Open(o Options) (*Store, error)           { panic("stub") }
func (s *Store) Close() error                  { panic("stub") }
func (s *Store) Run(ctx context.Context) error { panic("stub") }

// Lock gives the caller the sole right to write did's row until unlock.
func (s *Store) Lock(did string) (unlock func()) { panic("stub") }
func (s *Store) Repo(did string) (Repo, error)   { panic("stub") }

// RepoOrNew: the row, or a fresh one (not on disk) for an unknown DID
func (s *Store) RepoOrNew(did string) (Repo, error) { panic("stub") }

type Batch struct{}

func (s *Store) NewBatch() *Batch { panic("stub") }

// PutRepo writes r; moves gauges and the pending and retry index rows; r is then as loaded.
// StatePending with Pending.Enqueue==0 gets a new place in the queue.
func (b *Batch) PutRepo(r *Repo) { panic("stub") }

// Apply: one commit's worth of changes to r, one log entry. Actions derive from what is stored. Updates r's counts.
type Op struct {
	Path   []byte
	CID    repo.CID // zero: delete
	Record []byte
}

func (b *Batch) Apply(r *Repo, live bool, rev string, ops []Op) error { panic("stub") }
func (b *Batch) Wipe(r *Repo) error                                   { panic("stub") } // data gone; r zeroed but for identity+status
func (b *Batch) Account(r *Repo)                                      { panic("stub") } // appends an account event with r.Status
func (b *Batch) Identity(r *Repo)                                     { panic("stub") }
func (b *Batch) SetCrawlCursor(source, cursor string)                 { panic("stub") }
func (b *Batch) Bytes() int                                           { panic("stub") }

// Commit applies the batch and returns at once when it is visible; wait waits until it is durable.
func (b *Batch) Commit() (wait func() error, err error) { panic("stub") }
func (b *Batch) CommitSync() error                      { panic("stub") } // Commit + wait

func (s *Store) CrawlCursor(source string) (string, error) { panic("stub") }

// HostID gives the id of a host (lower-case host[:port]), handing one out to a new host.
func (s *Store) HostID(host string) (uint32, error) { panic("stub") }
func (s *Store) HostName(id uint32) (string, error) { panic("stub") }

type Scan uint8

const (
	ScanNext Scan = iota
	ScanSkipHost
	ScanStop
)

// ScanPending calls fn for each pending row, host by host from host `from` (wrap is the caller's).
func (s *Store) ScanPending(ctx context.Context, from uint32, fn func(k PendingKey, did string) Scan) error {
	panic("stub")
}

// DueRetries: DIDs whose Retry.Next <= now, in due order, and the time of the next due one (zero: none).
func (s *Store) DueRetries(now time.Time, limit int) (dids []string, next time.Time, err error) {
	panic("stub")
}

type Import struct {
	DID     string
	Attempt uint64
	Rev     string
	Blocks  int                                  // as CAR.Blocks
	Walk    func(fn func(repo.Leaf) error) error // must be proven free of errors before; called once, inside Import
	// Complete fills the fresh row under its lock just before the flip makes it visible (state, rev, data, commit, identity); counts and ordinal are set by the store.
	Complete func(r *Repo)
	// Done is called exactly once after the flip is durable (nil), or ErrStale, or failure.
	Done func(r Repo, err error)
}

// Import returns when appended (im.Walk is not used after it returns).
func (s *Store) Import(ctx context.Context, im Import) error { panic("stub") }

type Row struct {
	Path   []byte
	CID    repo.CID
	Hidden bool
}

// Rows iterates the record rows of an ordinal in MST key order.
type Rows struct{}

func (s *Store) Rows(o Ordinal) (*Rows, error) { panic("stub") }
func (r *Rows) Next() bool                     { panic("stub") }
func (r *Rows) Row() Row                       { panic("stub") } // valid until Next
func (r *Rows) Close() error                   { panic("stub") } // and the iteration's error

type Record struct {
	Path       string
	Collection string
	Rkey       string
	Rev        string
	CID        repo.CID
	Record     []byte
}

func (s *Store) Record(r *Repo, collection, rkey string) (Record, error) { panic("stub") }

// ListRecords: descending rkey unless reverse; cursor exclusive, "" from the start.
func (s *Store) ListRecords(r *Repo, collection, cursor string, limit int, reverse bool) ([]Record, error) {
	panic("stub")
}
func (s *Store) Collections(r *Repo) ([]string, error) { panic("stub") }

// Repos pages rows by DID order, exclusive cursor; match may be nil. next "" at the end. examined-bounded: may return fewer than limit with next set.
func (s *Store) Repos(cursor string, limit int, match func(*Repo) bool) (rows []Repo, next string, err error) {
	panic("stub")
}

// ReposByOrdinal pages repos that hold data, by ordinal, exclusive; stops at lowest open lease.
func (s *Store) ReposByOrdinal(after Ordinal, limit int) ([]Repo, error) { panic("stub") }

func (s *Store) Head() uint64             { panic("stub") } // last durable event id, 0 none
func (s *Store) Tail() uint64             { panic("stub") } // lowest id kept
func (s *Store) Epoch() string            { panic("stub") }
func (s *Store) Changed() <-chan struct{} { panic("stub") } // closed when Head moves after the call

// ReadLog calls fn for visible events from cursor (inclusive), at most ~maxEvents ids; next = where to go on (<= Head+1).
func (s *Store) ReadLog(ctx context.Context, cursor uint64, maxEvents int, fn func(*Event) error) (next uint64, err error) {
	panic("stub")
}

// Counts: exact counters by name: repos records blocks events collections pending synced gone resync idle error_ratelimited error_transport error_generic
func (s *Store) Counts() map[string]int64         { panic("stub") }
func (s *Store) Sizes() (map[string]int64, error) { panic("stub") } // bytes on disk by keyspace
func (s *Store) Check(ctx context.Context, report func(string)) (differences int, err error) {
	panic("stub")
}
