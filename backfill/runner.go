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
	kickIdle chan struct{} // wakes flush
	fatal    chan error    // a failure of the store in a callback
	refilter *refilter.Runner

	// mu guards:
	mu                  sync.Mutex
	lookups             pace.Limiter // of lookups in the directory that all DIDs share
	resolving           int          // lookups of repositories with an unknown host
	waiting             int          // repositories that wait in memory for a permit
	inflight            map[string]*flight
	versions            map[string]uint32 // of the filter that each DID in flight is fetched by
	queues              map[uint32]*queue
	stalled             []*queue  // their work needs lookups, which were parked
	rescan              bool      // another package enqueued rows
	rescanAll           bool      // any queue may hold rows
	scanned, scannedAll time.Time // when the last scan of each kind ran
	nextDue             int64
	rand                *rand.Rand
}

// New returns a Runner, and starts nothing.
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

// Run fetches until ctx ends, and returns when all goroutines that it started have returned. An
// error means that the store failed.
//
// Run may be called again after it returned.
func (r *Runner) Run(ctx context.Context) error {
	r.mu.Lock()
	// Tasks of an earlier run that were stopped left their rows pending.
	r.rescanAll, r.scannedAll = true, time.Time{}
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

// Refilter reports whether repositories are being adapted to a changed filter (refilter.Runner).
func (r *Runner) Refilter() (cursor string, running bool, err error) { return r.refilter.Progress() }

// flush makes imports visible at once when nothing is left to fetch. Otherwise their group would
// wait for more imports until it reaches its maximum age.
func (r *Runner) flush(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.kickIdle:
		}
		sleep(ctx, idlePause, nil)
		if ctx.Err() != nil || !r.idle() {
			continue // the tasks in flight signal kickIdle when they release their permits
		}
		if err := r.store.FlushImports(); err != nil {
			return quiet(ctx, ours(err))
		}
	}
}

// idle reports whether imports that wait to be flipped are the only work left.
func (r *Runner) idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.onlyImports()
}

// onlyImports is idle with mu held.
func (r *Runner) onlyImports() bool {
	return r.hosts.Free() == r.opts.Concurrency && r.resolving == 0 && len(r.inflight) > r.waiting
}

// Wake reports that rows were enqueued or have become due. Without a call they are found later.
func (r *Runner) Wake() {
	r.Enqueued()
	signal(r.kickDue)
	r.refilter.Wake()
}

// Enqueued reports that rows were written to queues of hosts. The dispatcher then reads the front
// of each queue.
func (r *Runner) Enqueued() {
	r.mu.Lock()
	r.rescan, r.rescanAll = true, true
	r.mu.Unlock()
	signal(r.kick)
}

// Hosts returns the table of hosts, whose permits the fetches take.
func (r *Runner) Hosts() *hosts.Table { return r.hosts }

// Syncing returns the number of repositories that are being fetched, or are fetched and about to
// become visible.
func (r *Runner) Syncing() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.inflight) - r.waiting
}

// InFlight reports whether a task of did is in flight.
func (r *Runner) InFlight(did string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.inflight[did]
	return ok
}

// note is lookInto for callers that do not hold mu.
func (r *Runner) note(id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookInto(id)
}

// stop makes Run return an error from a callback.
func (r *Runner) stop(err error) {
	select {
	case r.fatal <- err:
	default:
	}
}

// signal wakes the loop that reads c. Signals that were not received yet coalesce.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sleep waits for a signal, for d to pass, or for ctx to end.
func sleep(ctx context.Context, d time.Duration, kick <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-kick:
	case <-t.C:
	}
}
