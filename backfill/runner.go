package backfill

import (
	"context"
	"fmt"
	"time"

	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/backfill/refilter"
	"cistern/loop"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// Runner fetches pending repositories.
type Runner struct {
	opts         Options
	store        *store.Store
	copier       *fetch.Copier
	signalMisses *signalMisses
	metrics      *metrics
	hosts        *hosts.Table
	refilter     *refilter.Runner
	dispatcher   *dispatcher
	retries      *retries
	jitter       *loop.Jitter
}

// New returns a Runner, and starts nothing.
func New(opts Options) (*Runner, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("backfill options: %w", err)
	}
	r := &Runner{opts: opts, store: opts.Store, jitter: loop.NewJitter(opts.Seed)}
	kick := make(chan struct{}, 1)
	var err error
	if r.signalMisses, err = newSignalMisses(); err != nil {
		return nil, err
	}
	r.hosts, err = hosts.New(hosts.Options{
		Store: opts.Store, Concurrency: opts.Concurrency, PerHost: opts.PerHost, Rules: opts.HostRules,
		Transport: opts.Transport, UserAgent: opts.UserAgent, Receive: opts.Receive,
		Freed: func() { loop.Wake(kick) }, Now: opts.Now, Registerer: opts.Registerer,
	})
	if err != nil {
		return nil, err
	}
	opts.Gate.OnChange(func() { loop.Wake(kick) })
	r.dispatcher = newDispatcher(opts, r.hosts, kick)
	if r.metrics, err = newMetrics(opts.Registerer, r.dispatcher); err != nil {
		return nil, fmt.Errorf("register backfill metrics: %w", err)
	}
	r.retries = &retries{
		store: opts.Store, queued: r.dispatcher.note, requeued: r.metrics.requeued,
		now: opts.Now, kick: make(chan struct{}, 1),
	}
	r.copier, err = fetch.New(fetch.Options{
		Keys: opts.Directory, Crowded: r.hosts.Crowded, UserAgent: opts.UserAgent,
		Strategy: opts.Strategy, Unsigned: opts.SkipSignatures,
		Concurrency: opts.Concurrency, MemoryBytes: opts.MemoryBytes,
		RepoMemoryBytes: opts.RepoMemoryBytes, SpoolDir: opts.SpoolDir, SpoolBytes: opts.SpoolBytes,
		CARBytesMax: opts.CARBytesMax, CARBlocksMax: opts.CARBlocksMax,
		FetchTimeout: opts.FetchTimeout, IdleTimeout: opts.IdleTimeout,
		Now: opts.Now, Logger: opts.Logger, Registerer: opts.Registerer,
	})
	if err != nil {
		return nil, fmt.Errorf("backfill options: %w", err)
	}
	r.refilter, err = refilter.New(refilter.Options{
		Store: opts.Store, Gate: opts.Gate,
		WorksBefore: r.dispatcher.worksBefore, Queued: r.dispatcher.note, Due: r.retries.due,
		DeadDelay: func() time.Duration { return r.jitter.Vary(opts.RetryMax) },
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
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return r.dispatcher.run(ctx, func(c *claim) {
			g.Go(func() error { return newTask(r, c).run(ctx) })
		})
	})
	g.Go(func() error { return r.retries.run(ctx) })
	g.Go(func() error { return r.flush(ctx) })
	g.Go(func() error { return loop.Quiet(ctx, hosts.OfStore(r.hosts.Run(ctx))) })
	g.Go(func() error { return loop.Quiet(ctx, hosts.OfStore(r.refilter.Run(ctx))) })
	err := g.Wait()
	r.hosts.CloseIdleConnections()
	if err == nil {
		err = hosts.OfStore(r.hosts.Flush())
	}
	return err
}

// Refilter reports whether repositories are being adapted to a changed filter (refilter.Runner).
func (r *Runner) Refilter() (cursor string, running bool, err error) {
	return r.refilter.Progress()
}

// flush makes imports visible at once when nothing is left to fetch. Otherwise their group would
// wait for more imports until it reaches its maximum age.
func (r *Runner) flush(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.dispatcher.kickIdle:
		}
		loop.Sleep(ctx, idlePause, nil)
		if ctx.Err() != nil || !r.dispatcher.idle() {
			continue // the tasks in flight signal kickIdle when they release their permits
		}
		if err := r.store.FlushImports(); err != nil {
			return loop.Quiet(ctx, hosts.OfStore(err))
		}
	}
}

// Wake reports that rows were enqueued or have become due. Without a call Run finds them later.
func (r *Runner) Wake() {
	r.Enqueued()
	loop.Wake(r.retries.kick)
	r.refilter.Wake()
}

// Enqueued reports that rows were written to queues of hosts. The dispatcher then reads the front
// of each queue.
func (r *Runner) Enqueued() { r.dispatcher.enqueued() }

// Hosts returns the table of hosts, whose permits the fetches take.
func (r *Runner) Hosts() *hosts.Table { return r.hosts }

// Syncing returns the number of repositories that are being fetched, or are fetched and about to
// become visible.
func (r *Runner) Syncing() int { return r.dispatcher.syncing() }

// InFlight reports whether a task of did is in flight.
func (r *Runner) InFlight(did string) bool { return r.dispatcher.inFlight(did) }

// HostStanding returns the current state of the host with an id. Safe for concurrent use.
func (r *Runner) HostStanding(id uint32) hosts.Standing { return r.hosts.Standing(id) }

// HostChanged applies the changed settings of a host.
func (r *Runner) HostChanged(id uint32) {
	r.hosts.Changed(id)
	r.dispatcher.hostChanged(id)
}
