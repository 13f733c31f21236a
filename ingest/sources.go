package ingest

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
	"cistern/store"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// SourceStatus is what is known of a source.
type SourceStatus struct {
	URL       string // normalised
	PDS       bool
	Named     bool // by the Options
	Direct    bool // a PDS that is followed because relays send nothing of some of its accounts
	Persisted bool // added while running, so that it is followed after a restart whatever the Options name

	Running  bool // connected
	Failures int  // in a row
	RetryIn  time.Duration
	// LastFailure and its time, kind (dial, http, closed, timeout, silent, error, read) and text; zero if there was none.
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

// LastFailure is how a connection ended, or why there was none.
type LastFailure = struct {
	At     time.Time
	Kind   string
	Detail string
}

// sources are all sources that are followed, and what they share.
type sources struct {
	metrics *metrics
	opts    Options
	store   *store.Store
	submit  func(context.Context, *event) error // to the shards
	dial    func(ctx context.Context, network, address string) (net.Conn, error)

	pool   pool
	queue  *semaphore.Weighted // of Options.QueueBytes
	queued atomic.Int64        // what is taken of it
	spoke  atomic.Int64        // unix nanoseconds of the newest message of any source

	named map[string]bool // URLs that the Options name
	kick  chan struct{}   // wakes run, which starts what is new

	rows sync.Mutex // held while the row of a source is changed and the set after it; may be held over I/O

	// mu guards:
	mu    sync.Mutex
	byURL map[string]*source

	stuckAfter time.Duration // the limit of that name
	direct     direct
}

// newSources makes the set of what the Options and the store name. Nothing is connected before run.
func newSources(opts Options, m *metrics, submit func(context.Context, *event) error) (*sources, error) {
	s := &sources{
		opts:    opts,
		store:   opts.Store,
		metrics: m,
		submit:  submit,
		dial:    identity.Dialer(identity.TransportOptions{AllowPrivate: opts.AllowPrivate, Resolver: opts.Resolver}),
		queue:   semaphore.NewWeighted(opts.QueueBytes),
		named:   map[string]bool{},
		kick:    make(chan struct{}, 1),
		byURL:   map[string]*source{},

		stuckAfter: stuckAfter,
		direct:     direct{applied: map[string]appliedEvent{}, needed: map[*source]time.Time{}},
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
	for _, row := range rows { // the row is newer than the Options: somebody asked for it while they held
		if row.Removed {
			if s.named[row.URL] {
				opts.Logger.Warn("source stays removed though an option names it: DELETE /firehose/sources removed it, POST adds it again", "source", row.URL)
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

// runSources reads all sources until ctx ends, and returns when all have ended. An error is the store's.
func (r *Runner) runSources(ctx context.Context) error { return r.sources.run(ctx) }

func (s *sources) run(ctx context.Context) error {
	// What an earlier run read and did not handle is read again.
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

// saveEvery writes the cursors that moved over skipped events only, and how far sources were read; and asks for the comparisons
// that are owed.
func (s *sources) saveEvery(ctx context.Context) error {
	t := time.NewTicker(cursorEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := s.save(); err != nil {
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

// saveCursors writes the cursors of all sources as far as their events are handled, at the end of a run.
func (r *Runner) saveCursors() error { return r.sources.save() }

func (s *sources) save() error {
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
func (s *sources) gather(b *store.Batch) (moved bool, unlock func(), err error) {
	all := s.all()
	slices.SortFunc(all, func(a, b *source) int { return strings.Compare(a.url, b.url) })
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
func (s *sources) switched() {
	s.mu.Lock()
	defer s.mu.Unlock()
	shut := s.opts.Gate.IsShut()
	for _, src := range s.byURL {
		src.setPaused(shut)
	}
}

// AddSource follows one more source from now on, and after a restart. Replaces the one with the same URL.
func (r *Runner) AddSource(src store.Source) error {
	src, err := ParseSource(src.URL, src.PDS)
	if err != nil {
		return err
	}
	s := r.sources
	s.rows.Lock()
	defer s.rows.Unlock()
	if s.get(src.URL) == nil && s.count(nil) >= sourcesMax {
		return fmt.Errorf("add source %s: there are %d already", src.URL, sourcesMax)
	}
	b := s.store.NewBatch()
	b.PutSource(src)
	if err := b.CommitSync(); err != nil {
		return err
	}
	return s.follow(src)
}

// follow puts a source into the set, or changes the one that is there.
func (s *sources) follow(row store.Source) error {
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
	src.setRemoved(false) // with mu held: it may be about to leave the set
	signal(s.kick)
	return nil
}

// RemoveSource stops following a source, given in any form that ParseSource reads: store.ErrNotFound if there is none. It stays
// removed after a restart until AddSource, whatever the Options name.
func (r *Runner) RemoveSource(url string) error {
	row, err := ParseSource(url, false)
	if err != nil {
		return err
	}
	s := r.sources
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
	r.opts.Logger.Info("source removed", "source", row.URL, "named_by_option", named)
	return nil
}

// ForgetCursor forgets how far a source was read and connects it anew at its tip: store.ErrNotFound if it has no cursor.
func (r *Runner) ForgetCursor(url string) error {
	row, err := ParseSource(url, false)
	if err != nil {
		return err
	}
	s := r.sources
	s.rows.Lock()
	defer s.rows.Unlock()
	_, ok, err := s.store.Cursor(row.URL)
	if err != nil {
		return err
	}
	s.mu.Lock()
	src := s.byURL[row.URL] // one that is being removed too: its events may still write their cursor
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

// Follows reports whether a relay with an id (store.SourceID) is followed.
func (r *Runner) Follows(id uint32) bool {
	s := r.sources
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.byURL {
		if src.id == id && !src.pds.Load() {
			return true
		}
	}
	return false
}

// Sources tells of every source, in order of URL.
func (r *Runner) Sources() []SourceStatus {
	var all []SourceStatus
	for _, src := range r.sources.all() {
		if !src.isRemoved() {
			all = append(all, src.status())
		}
	}
	slices.SortFunc(all, func(a, b SourceStatus) int { return strings.Compare(a.URL, b.URL) })
	return all
}

// Tried says whether every source that is wanted was connected, or could not be, once: from then on a fetch
// that begins misses no event of a source that answers.
func (r *Runner) Tried() bool {
	for _, src := range r.sources.all() {
		if src.isWanted() && !src.tried.Load() {
			return false
		}
	}
	return true
}

// all are the sources of the set, those being removed too.
func (s *sources) all() []*source {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*source, 0, len(s.byURL))
	for _, src := range s.byURL {
		all = append(all, src)
	}
	return all
}

// get is a source that is not being removed, nil if there is none.
func (s *sources) get(url string) *source {
	s.mu.Lock()
	src := s.byURL[url]
	s.mu.Unlock()
	if src == nil || src.isRemoved() {
		return nil
	}
	return src
}

// drop takes a source out of the set if it is still to be removed.
func (s *sources) drop(src *source) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !src.isRemoved() {
		return false
	}
	delete(s.byURL, src.url)
	return true
}

// count is the number of sources for which is holds (nil: all), less those being removed.
func (s *sources) count(is func(*source) bool) int {
	n := 0
	for _, src := range s.all() {
		if !src.isRemoved() && (is == nil || is(src)) {
			n++
		}
	}
	return n
}

// idleAfter is how long a source that is connected sends nothing before it counts as having no more to send.
func (s *sources) idleAfter() time.Duration { return s.opts.SilentAfter / 4 }

// signal leaves a message for a loop that has none waiting.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
