package firehose

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cistern/ingest/identity"
	"cistern/loop"
	"cistern/store"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Status describes a source.
type Status struct {
	URL    string // normalised
	PDS    bool
	Named  bool // named by the Options
	Direct bool // a PDS that is followed because relays leave out some of its accounts
	// added while running, so that it is followed after a restart whatever the Options name
	Persisted bool

	Running  bool // connected
	Failures int  // in a row
	RetryIn  time.Duration
	// LastFailure and its time, kind (dial, http, closed, timeout, silent, error, read) and text;
	// zero if there was none.
	LastFailure LastFailure

	Cursor    int64         // durable low watermark; 0 for none yet
	Seq       int64         // newest seq read
	Events    int64         // frames read since the process began
	Bytes     int64         // of them
	BadFrames int64         // malformed frames, skipped
	Refused   int64         // events that a PDS sent about accounts that are not its own
	LastEvent time.Time     // when the newest frame was read
	Lag       time.Duration // now less the time that the newest event states; 0 if unknown
}

// LastFailure describes how a connection ended, or why there was none.
type LastFailure = struct {
	At     time.Time
	Kind   string
	Detail string
}

// Sources is the set of all sources that are followed, and what they share.
type Sources struct {
	metrics *metrics
	opts    Options
	store   *store.Store
	submit  func(context.Context, *Event) error // hands an event to its shard
	dial    func(ctx context.Context, network, address string) (net.Conn, error)

	pool   pool
	queue  *semaphore.Weighted // of Options.QueueBytes
	queued atomic.Int64        // bytes taken from queue
	spoke  atomic.Int64        // unix nanoseconds of the newest message of any source

	named map[string]bool // URLs in the Options
	kick  chan struct{}   // wakes run, which starts new sources

	// held while the row of a source is changed and then the set; may be held over I/O
	rows sync.Mutex

	// mu guards:
	mu    sync.Mutex
	byURL map[string]*Source

	stuckAfter time.Duration // see the limit of that name
	direct     direct
}

// New returns the set of the sources that the Options and the store name. It connects none before
// Run.
func New(opts Options) (*Sources, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("firehose: %w", err)
	}
	s := &Sources{
		opts:  opts,
		store: opts.Store,
		dial: identity.Dialer(identity.TransportOptions{AllowPrivate: opts.AllowPrivate,
			Resolver: opts.Resolver}),
		queue: semaphore.NewWeighted(opts.QueueBytes),
		named: map[string]bool{},
		kick:  make(chan struct{}, 1),
		byURL: map[string]*Source{},

		stuckAfter: stuckAfter,
		direct:     direct{applied: map[string]appliedEvent{}, needed: map[*Source]time.Time{}},
	}
	var err error
	if s.metrics, err = newMetrics(opts.Registerer, s); err != nil {
		return nil, fmt.Errorf("firehose: register metrics: %w", err)
	}
	for _, named := range opts.Sources {
		src, err := ParseSource(named.URL, named.PDS)
		if err != nil {
			return nil, err
		}
		s.named[src.URL] = true
		s.byURL[src.URL] = newSource(s, src)
	}
	rows, err := opts.Store.Sources()
	if err != nil {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	// the row is newer than the Options: it was requested while they were in force
	for _, row := range rows {
		if row.Removed {
			if s.named[row.URL] {
				opts.Logger.Warn("source stays removed though an option names it: DELETE /firehose/sources "+
					"removed it, POST adds it again", "source", row.URL)
			}
			delete(s.byURL, row.URL)
			continue
		}
		src := newSource(s, row)
		src.persisted.Store(true)
		s.mark(src, row)
		s.byURL[row.URL] = src
	}
	opts.Gate.OnChange(s.switched)
	s.switched() // it may be shut already
	return s, nil
}

// Run reads all sources until ctx ends, and hands each event to submit, which many goroutines call.
// submit may wait, and fails only when ctx ends. Whatever takes an event passes its Number to
// Source.Finish, once it is done, and then releases it. Run returns when all sources have ended. An
// error is the store's. Run may be called again.
func (s *Sources) Run(ctx context.Context, submit func(context.Context, *Event) error) error {
	s.submit = submit
	// Events that an earlier run read and did not handle are read again.
	for _, src := range s.all() {
		if err := src.rewind(); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.saveEvery(ctx) })
	g.Go(func() error {
		for {
			for _, src := range s.all() {
				if src.start() {
					g.Go(func() error { return src.run(ctx) })
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-s.kick:
			}
		}
	})
	return g.Wait()
}

// saveEvery writes cursors that moved past skipped events only, and the progress of sources, and
// requests the comparisons that are owed.
func (s *Sources) saveEvery(ctx context.Context) error {
	t := time.NewTicker(cursorEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := s.Save(); err != nil {
				return err
			}
			if err := s.dropDirect(); err != nil {
				return err
			}
			for _, src := range s.all() {
				if err := s.askOwed(src); err != nil {
					return err
				}
			}
		}
	}
}

// Save writes the cursors of all sources up to the events that are handled. After Run it writes
// what was handled since.
func (s *Sources) Save() error {
	b := s.store.NewBatch()
	moved, unlock, err := s.gather(b)
	defer unlock()
	if err != nil || !moved {
		b.Discard()
		return err
	}
	return b.CommitSync()
}

// gather adds to a batch what save writes. The caller calls unlock once the batch is committed or
// discarded. Until then no source records an owed comparison, which the batch would overwrite.
func (s *Sources) gather(b *store.Batch) (moved bool, unlock func(), err error) {
	all := s.all()
	slices.SortFunc(all, func(a, b *Source) int { return strings.Compare(a.url, b.url) })
	for _, src := range all {
		src.gaps.mu.Lock()
	}
	unlock = func() {
		for _, src := range all {
			src.gaps.mu.Unlock()
		}
	}
	for _, src := range all {
		behind, err := src.behind()
		if err != nil {
			return false, unlock, err
		}
		if behind {
			b.SetCursor(src.url, src.tracker.mark)
		}
		moved = src.progress(b) || behind || moved
	}
	return moved, unlock, nil
}

// switched closes all connections, or has them opened again, as the gate says.
func (s *Sources) switched() {
	s.mu.Lock()
	defer s.mu.Unlock()
	shut := s.opts.Gate.IsShut()
	for _, src := range s.byURL {
		src.setPaused(shut)
	}
}

// Add follows one more source from now on, also after a restart. It replaces the source with
// the same URL.
func (s *Sources) Add(src store.Source) error {
	src, err := ParseSource(src.URL, src.PDS)
	if err != nil {
		return err
	}
	s.rows.Lock()
	defer s.rows.Unlock()
	if s.get(src.URL) == nil && s.count(nil) >= sourcesMax {
		return fmt.Errorf("add source %s: the limit of %d sources is reached", src.URL, sourcesMax)
	}
	b := s.store.NewBatch()
	b.PutSource(src)
	if err := b.CommitSync(); err != nil {
		return err
	}
	return s.follow(src)
}

// follow adds a source to the set, or changes the one with its URL.
func (s *Sources) follow(row store.Source) error {
	fresh := newSource(s, row)
	if err := fresh.rewind(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.byURL[row.URL]
	if src == nil {
		src = fresh
		s.byURL[row.URL] = src
	}
	src.persisted.Store(true)
	src.pds.Store(row.PDS)
	s.mark(src, row)
	src.setPaused(s.opts.Gate.IsShut())
	src.setRemoved(false) // with mu held, since the source may be about to leave the set
	loop.Wake(s.kick)
	return nil
}

// Remove stops following a source, given in any form that ParseSource reads, or returns
// store.ErrNotFound. The source stays removed after a restart until Add, whatever the Options
// name.
func (s *Sources) Remove(url string) error {
	row, err := ParseSource(url, false)
	if err != nil {
		return err
	}
	s.rows.Lock()
	defer s.rows.Unlock()
	src := s.get(row.URL)
	if src == nil {
		return fmt.Errorf("source %s: %w", row.URL, store.ErrNotFound)
	}
	named := s.named[row.URL]
	if named || src.persisted.Load() {
		b := s.store.NewBatch()
		if named {
			b.PutSource(store.Source{URL: row.URL, PDS: src.pds.Load(), Removed: true})
		} else {
			b.DropSource(row.URL)
		}
		if err := b.CommitSync(); err != nil {
			return err
		}
	}
	src.persisted.Store(false)
	src.setRemoved(true)
	s.opts.Logger.Info("source removed", "source", row.URL, "named_by_option", named)
	return nil
}

// ForgetCursor deletes the cursor of a source and connects it anew at its tip. It returns
// store.ErrNotFound if there is no cursor.
func (s *Sources) ForgetCursor(url string) error {
	row, err := ParseSource(url, false)
	if err != nil {
		return err
	}
	s.rows.Lock()
	defer s.rows.Unlock()
	_, ok, err := s.store.Cursor(row.URL)
	if err != nil {
		return err
	}
	s.mu.Lock()
	// also a source that is being removed: its events may still write their cursor
	src := s.byURL[row.URL]
	s.mu.Unlock()
	switch {
	case src != nil && (ok || src.tracker.last() >= 0):
		release := src.hold()
		defer release()
		src.restart(-1)
	case !ok:
		return fmt.Errorf("cursor of %s: %w", row.URL, store.ErrNotFound)
	}
	b := s.store.NewBatch()
	b.DropCursor(row.URL)
	b.DropProgress(row.URL)
	return b.CommitSync()
}

// QueueBytes returns Options.QueueBytes.
func (s *Sources) QueueBytes() int64 { return s.opts.QueueBytes }

// Follows reports whether a relay with an id (store.SourceID) is followed.
func (s *Sources) Follows(id uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.byURL {
		if src.id == id && !src.pds.Load() {
			return true
		}
	}
	return false
}

// Status returns the status of every source, in order of URL.
func (s *Sources) Status() []Status {
	var all []Status
	for _, src := range s.all() {
		if !src.isRemoved() {
			all = append(all, src.status())
		}
	}
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.URL, b.URL) })
	return all
}

// InFlight returns how many connections are open or being made, and how many events were read and
// are not applied yet. Some of the events may wait for the documents of accounts; no cursor has
// passed them.
func (s *Sources) InFlight() (connections, events int) {
	for _, src := range s.all() {
		if src.attempting() {
			connections++
		}
		events += src.tracker.waiting()
	}
	return connections, events
}

// Tried reports whether every wanted source was connected once, or failed to be: from then on a
// fetch that begins misses no event of a source that answers.
func (s *Sources) Tried() bool {
	for _, src := range s.all() {
		if src.isWanted() && !src.tried.Load() {
			return false
		}
	}
	return true
}

// all returns the sources of the set, including those being removed.
func (s *Sources) all() []*Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Source, 0, len(s.byURL))
	for _, src := range s.byURL {
		all = append(all, src)
	}
	return all
}

// get returns a source that is not being removed, nil if there is none.
func (s *Sources) get(url string) *Source {
	s.mu.Lock()
	src := s.byURL[url]
	s.mu.Unlock()
	if src == nil || src.isRemoved() {
		return nil
	}
	return src
}

// drop removes a source from the set if it is still to be removed.
func (s *Sources) drop(src *Source) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !src.isRemoved() {
		return false
	}
	delete(s.byURL, src.url)
	return true
}

// count returns the number of sources for which is holds (nil: all), without those being removed.
func (s *Sources) count(is func(*Source) bool) int {
	n := 0
	for _, src := range s.all() {
		if !src.isRemoved() && (is == nil || is(src)) {
			n++
		}
	}
	return n
}

// idleAfter returns how long a connected source must send nothing to count as having no more to
// send.
func (s *Sources) idleAfter() time.Duration { return s.opts.SilentAfter / 4 }
