package backfill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/backfill/refilter"
	"cistern/store"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// Runner fetches pending repositories.
type Runner struct {
	opts         Options
	store        *store.Store
	copier       *fetch.Copier
	signalMisses *signalMisses
	metrics      *metrics
	hosts        *hosts.Table
	moves        *rate.Limiter

	kick     chan struct{} // wakes the dispatcher
	kickDue  chan struct{} // wakes the retry loop
	kickIdle chan struct{} // wakes the flush
	fatal    chan error    // the store failed in a callback
	refilter *refilter.Runner

	// mu guards:
	mu                  sync.Mutex
	lookups             pace.Limiter // of the directory that lookups ask
	resolving           int          // lookups of repositories with an unknown host
	waiting             int          // repositories in rooms
	inflight            map[string]*flight
	versions            map[string]uint32 // of the filters that those in flight are fetched by
	queues              map[uint32]*queue
	stalled             []*queue  // have work that needs lookups, which were parked
	rescan              bool      // rows were enqueued by somebody else
	rescanAll           bool      // rows may stand in any queue
	scanned, scannedAll time.Time // when that was looked at last
	nextDue             int64
	rand                *rand.Rand
}

// New makes a Runner. Nothing happens before Run.
func New(opts Options) (*Runner, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("backfill options: %w", err)
	}
	r := &Runner{
		opts:      opts,
		store:     opts.Store,
		moves:     rate.NewLimiter(movesPerSecond, movesPerSecond),
		kick:      make(chan struct{}, 1),
		kickDue:   make(chan struct{}, 1),
		kickIdle:  make(chan struct{}, 1),
		fatal:     make(chan error, 1),
		inflight:  make(map[string]*flight),
		versions:  make(map[string]uint32),
		queues:    make(map[uint32]*queue),
		rescanAll: true,
		rand:      rand.New(rand.NewPCG(opts.Seed, 0)),
	}
	r.lookups.Configure(pace.Limits{Max: opts.Concurrency}, false)
	r.lookups.Trust()
	var err error
	if r.signalMisses, err = newSignalMisses(); err != nil {
		return nil, err
	}
	r.hosts, err = hosts.New(hosts.Options{
		Store: opts.Store, Concurrency: opts.Concurrency, PerHost: opts.PerHost, Rules: opts.HostRules,
		Transport: opts.Transport, UserAgent: opts.UserAgent,
		Freed: func() { signal(r.kick) }, Now: opts.Now, Registerer: opts.Registerer,
	})
	if err != nil {
		return nil, err
	}
	opts.Gate.OnChange(func() { signal(r.kick) })
	if r.metrics, err = newMetrics(opts.Registerer, r); err != nil {
		return nil, fmt.Errorf("register backfill metrics: %w", err)
	}
	r.copier, err = fetch.New(fetch.Options{
		Keys: opts.Directory, Crowded: r.hosts.Crowded, UserAgent: opts.UserAgent,
		Strategy: opts.Strategy, Unsigned: opts.SkipSignatures,
		Concurrency: opts.Concurrency, MemoryBytes: opts.MemoryBytes, RepoMemoryBytes: opts.RepoMemoryBytes,
		SpoolDir: opts.SpoolDir, SpoolBytes: opts.SpoolBytes, CARBytesMax: opts.CARBytesMax, CARBlocksMax: opts.CARBlocksMax,
		FetchTimeout: opts.FetchTimeout, IdleTimeout: opts.IdleTimeout,
		Now: opts.Now, Logger: opts.Logger, Registerer: opts.Registerer,
	})
	if err != nil {
		return nil, fmt.Errorf("backfill options: %w", err)
	}
	r.refilter, err = refilter.New(refilter.Options{
		Store: opts.Store, Gate: opts.Gate, WorksBefore: r.worksBefore, Queued: r.note, Due: r.due,
		DeadDelay: func() time.Duration { return r.jitter(opts.RetryMax) },
		Now:       opts.Now, Logger: opts.Logger, Registerer: opts.Registerer,
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Run fetches until ctx ends, and returns when everything it started has returned. An error means
// that the store failed.
//
// It may be called again after it returned.
func (r *Runner) Run(ctx context.Context) error {
	r.mu.Lock()
	r.rescanAll, r.scannedAll = true, time.Time{} // tasks of an earlier run were told to end and left their rows as they were
	r.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.dispatch(ctx, g) })
	g.Go(func() error { return r.retry(ctx) })
	g.Go(func() error { return r.flush(ctx) })
	g.Go(func() error { return quiet(ctx, ours(r.hosts.Run(ctx))) })
	g.Go(func() error { return quiet(ctx, ours(r.refilter.Run(ctx))) })
	err := g.Wait()
	r.hosts.CloseIdleConnections()
	if err == nil {
		err = ours(r.hosts.Flush())
	}
	return err
}

// Refilter reports whether repositories are being brought to a filter that was changed (refilter.Runner).
func (r *Runner) Refilter() (cursor string, running bool, err error) { return r.refilter.Progress() }

// flush makes imports visible at once when there is nothing left to fetch: their group would wait
// for more until it has reached its age.
func (r *Runner) flush(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.kickIdle:
		}
		sleep(ctx, idlePause, nil)
		if ctx.Err() != nil || !r.idle() {
			continue // who is busy now comes by here again
		}
		if err := r.store.FlushImports(); err != nil {
			return quiet(ctx, ours(err))
		}
	}
}

// idle says that imports waiting to be flipped are all there is.
func (r *Runner) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.onlyImports()
}

// onlyImports is idle with mu held.
func (r *Runner) onlyImports() bool {
	return r.hosts.Free() == r.opts.Concurrency && r.resolving == 0 && len(r.inflight) > r.waiting
}

// Wake says that rows were enqueued or have become due. Without it they are found some time later.
func (r *Runner) Wake() {
	r.Enqueued()
	signal(r.kickDue)
	r.refilter.Wake()
}

// Enqueued reports that rows were put into queues of hosts: the dispatcher looks at the front of
// each.
func (r *Runner) Enqueued() {
	r.mu.Lock()
	r.rescan, r.rescanAll = true, true
	r.mu.Unlock()
	signal(r.kick)
}

// Hosts returns the table of hosts, whose permits the fetches take.
func (r *Runner) Hosts() *hosts.Table { return r.hosts }

// Syncing is the number of repositories being fetched, or fetched and about to become visible.
func (r *Runner) Syncing() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.inflight) - r.waiting
}

// InFlight says whether a copy of did is being made.
func (r *Runner) InFlight(did string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.inflight[did]
	return ok
}

// note is lookInto for who does not hold mu.
func (r *Runner) note(id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookInto(id)
}

// stop ends Run with an error from a callback.
func (r *Runner) stop(err error) {
	select {
	case r.fatal <- err:
	default:
	}
}

// signal leaves a message for a loop that has none waiting.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sleep waits for a signal, for at most d, or for the end.
func sleep(ctx context.Context, d time.Duration, kick <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-kick:
	case <-t.C:
	}
}
