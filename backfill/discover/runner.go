package discover

import (
	"context"
	"fmt"
	"sync/atomic"

	"cistern/backfill/discover/pages"
	"cistern/backfill/hosts"
	"cistern/loop"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// Runner reads the lists of hosts to find unknown repositories, and repositories that changed while
// their events were missed.
type Runner struct {
	opts    Options
	store   *store.Store
	hosts   *hosts.Table
	metrics *metrics

	kickLater       chan struct{} // wakes the loop of describeRetries
	kickPass        chan struct{} // wakes the loop that starts reconciliations
	crawls          *crawlers
	absences        *absences
	setbacks        setbacks
	gapSeen         atomic.Bool // rows of reconciliations may have been written
	describeRetries *describeRetries
	jitter          *loop.Jitter
}

// New makes a Runner. Nothing happens before Run.
func New(opts Options) (*Runner, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("discovery options: %w", err)
	}
	r := &Runner{
		opts: opts, store: opts.Store, hosts: opts.Hosts,
		kickPass: make(chan struct{}, 1), kickLater: make(chan struct{}, 1),
		describeRetries: newDescribeRetries(),
		jitter:          loop.NewJitter(opts.Seed),
	}
	r.absences = newAbsences(r)
	r.gapSeen.Store(true)
	var err error
	if r.crawls, err = newCrawlers(r); err != nil {
		return nil, fmt.Errorf("read crawl sources: %w", err)
	}
	if r.metrics, err = newMetrics(opts.Registerer, r); err != nil {
		return nil, fmt.Errorf("register metrics of discovery: %w", err)
	}
	return r, nil
}

// Run lists hosts until ctx ends, to find unknown repositories and to compare revs after a gap, and
// returns when everything it started has returned. An error means that the store failed. It may be
// called again after it returned.
func (r *Runner) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.crawls.run(ctx) })
	g.Go(func() error { return r.reconsider(ctx) })
	g.Go(func() error { return r.reconcile(ctx) })
	g.Go(func() error { return r.absences.run(ctx) })
	return g.Wait()
}

// Wake reports that comparisons may have been requested, or that the filter was changed. Without a
// call Run finds out later.
func (r *Runner) Wake() {
	r.gapSeen.Store(true)
	loop.Wake(r.kickPass)
	r.crawls.wake()
}

// HostChanged makes the list of a host due at once, because the settings of the host were changed.
func (r *Runner) HostChanged(id uint32) {
	for _, c := range r.crawls.all() {
		c.look(id)
	}
}

// noteAbandoned logs that a listing is read no further although its host names more pages.
func (r *Runner) noteAbandoned(name string, read int64, end pages.Ending) {
	r.opts.Logger.Warn("listing is read no further: accounts on later pages are not found by it",
		"source", name, "pages", read, "reason", string(end))
}
