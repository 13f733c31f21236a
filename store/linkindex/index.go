package linkindex

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"cistern/gate"
	"cistern/store"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// Options of Open. The zero value of a field takes the default.
type Options struct {
	// Store has the records and the log. Required.
	Store *store.Store
	// Dir holds the index and nothing else. Required.
	Dir string
	// FS is the file system. Default: the store's, in which nothing is written while the store is
	// frozen.
	FS vfs.FS
	// ReadOnly opens an existing index for Check; nothing is written.
	ReadOnly bool
	// Gate pauses building while it is shut. Default: a gate that is open.
	Gate *gate.Gate

	// RunBytes bounds the memory of links that are not written yet. More of them at a time cost
	// less, because they are sorted into one run of tables. Default 64 MiB.
	RunBytes int
	// CacheBytes is the block cache of the engine, beside one memtable. Default 16 MiB.
	CacheBytes int64
	// MemTableBytes is the size of one memtable. Default 8 MiB.
	MemTableBytes int64

	// Logger takes the engine's messages and our own. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
	// Step is called with the names of the steps of a write: "run" before it, and "written" after
	// it. Tests clone the file system there. Default: nothing.
	Step func(name string)

	tune      func(*pebble.Options) // set by benchmarks that compare engine options
	smallRows int                   // set by tests. Default: smallRows (sink.go)
	rest      time.Duration         // set by tests. Default: retryEvery (health.go)
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = o.Store.FS()
	}
	if o.Gate == nil {
		o.Gate = new(gate.Gate)
	}
	if o.RunBytes == 0 {
		o.RunBytes = 64 << 20
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 8 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	if o.rest == 0 {
		o.rest = retryEvery
	}
	if o.smallRows == 0 {
		o.smallRows = smallRows
	}
	return o
}

// Index knows which records link to a target. Its methods may be called from any goroutine.
type Index struct {
	opts    Options
	db      *pebble.DB
	engine  *pebble.Options
	secret  []byte
	sources sources
	bytes   atomic.Int64 // on disk, as of the last write
	metrics *metrics
	tables  uint64 // owned by Run; numbers the tables of runs
	health  *health
	stop    <-chan struct{} // owned by Run; closed when it is to end

	mu    sync.Mutex
	state state // mu guards; as it is on disk

	closeOnce sync.Once
	closeErr  error
}

// Open opens the index in o.Dir, and creates it if it is missing. It is built while Run runs.
func Open(o Options) (*Index, error) {
	o = o.withDefaults()
	x := &Index{opts: o, metrics: newMetrics(), health: newHealth(o.rest)}
	x.engine = engineOptions(&o, x.health)
	if o.ReadOnly {
		if found, err := pebble.Peek(o.Dir, o.FS); err != nil || !found.Exists {
			return nil, errors.Join(fmt.Errorf("no index of links in %s", o.Dir), err, store.ErrNotFound)
		}
	} else if err := o.FS.MkdirAll(x.runDir(), 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of the index of links: %w", err)
	}
	err := x.health.guard(nil, func() (err error) {
		x.db, err = pebble.Open(o.Dir, x.engine)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the index of links %s: %w", o.Dir, err)
	}
	if err := errors.Join(x.load(), o.Registerer.Register(x)); err != nil {
		return nil, errors.Join(fmt.Errorf("open the index of links %s: %w", o.Dir, err), x.db.Close())
	}
	x.measure()
	return x, nil
}

// runDir holds the tables of a run until they are ingested.
func (x *Index) runDir() string { return path.Join(x.opts.Dir, "run") }

// load reads the state, and deletes the tables of a run that a crash left. An index of another
// version has no state of any log then, so that Run empties it and builds it anew.
func (x *Index) load() error {
	ok, err := x.get([]byte{spaceState}, x.state.parse)
	if err != nil {
		return err
	}
	if version := x.state.Version; ok && version != stateVersion {
		if x.opts.ReadOnly {
			return fmt.Errorf("the index of links has version %d, this program reads %d: the daemon "+
				"builds it anew", version, stateVersion)
		}
		x.opts.Logger.Warn("the backlinks index has the format of another version of this program: "+
			"it is built anew from all stored records", "format", version, "wanted", stateVersion,
			"dir", x.opts.Dir)
		ok = false
	}
	if !ok {
		x.state = state{Secret: make([]byte, 16)}
		if _, err := rand.Read(x.state.Secret); err != nil {
			return err
		}
	}
	x.secret = x.state.Secret
	if x.opts.ReadOnly {
		return nil
	}
	return x.clearRun()
}

func (x *Index) clearRun() error {
	names, err := x.opts.FS.List(x.runDir())
	for _, name := range names {
		err = errors.Join(err, x.opts.FS.Remove(path.Join(x.runDir(), name)))
	}
	return err
}

// measure notes the size on disk. The engine computes it under a lock that it may hold while the
// store is frozen, so that a metric must not ask for it.
func (x *Index) measure() { x.bytes.Store(int64(x.db.Metrics().DiskSpaceUsage())) }

// Close closes the index. It is idempotent. Run must have returned, no read may be under way, and
// the store must not be frozen. An engine that is lost is not closed, since that could wait for
// ever.
func (x *Index) Close() error {
	x.closeOnce.Do(func() {
		close(x.health.closing)
		if !x.health.abandoned() {
			x.closeErr = x.db.Close()
		}
	})
	return x.closeErr
}

// through returns the event up to which the index has all.
func (x *Index) through() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.state.Through
}

// State is how far the index has come.
type State struct {
	Epoch   string // of the log
	Through uint64 // every event up to it is in the index
	Links   int64
	// Building reports whether the index does not have all records yet: a pass goes through what
	// was stored when it began, of which Done of about Total records are indexed.
	Building    bool
	Done, Total int64
	Err         error // why the index cannot be written now, nil while it can
}

// State returns how far the index has come.
func (x *Index) State() State {
	x.mu.Lock()
	defer x.mu.Unlock()
	st := &x.state
	s := State{Epoch: st.Epoch, Through: st.Through, Links: st.Links, Building: st.building(),
		Err: x.health.err()}
	if s.Building {
		s.Done = st.Passed
		s.Total = max(s.Done, x.opts.Store.Counts()["records"])
	}
	return s
}
