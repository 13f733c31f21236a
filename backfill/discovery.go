package backfill

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"cistern/backfill/hosts"
	"cistern/gate"
	"cistern/ingest/identity"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// discovery finds repositories by the lists of hosts, and by the same lists those that moved on
// while their events were missed.
type discovery struct {
	opts    discoveryOptions
	store   *store.Store
	hosts   *hosts.Table
	metrics *crawlMetrics

	kickLater       chan struct{} // wakes the loop of describeRetries
	kickPass        chan struct{} // wakes the loop that starts reconciliations
	crawls          *crawlers
	absences        *absences
	gapSeen         atomic.Bool // rows of reconciliations may have been written
	describeRetries *describeRetries

	mu   sync.Mutex
	rand *rand.Rand // mu guards
}

// discoveryOptions is what discovery needs from outside.
type discoveryOptions struct {
	Store *store.Store
	// Hosts answers queries of hosts, within their limits.
	Hosts *hosts.Table
	// Directory finds the host of an account.
	Directory interface {
		Resolve(ctx context.Context, did string) (identity.Identity, error)
	}
	// Enqueued is called after repositories were put into queues of hosts.
	Enqueued func()

	AllowPrivate bool
	Unheard      func(origin string) error
	Sources      []Source
	PendingMax   int64
	Every        time.Duration
	Gate         *gate.Gate
	IdleTimeout  time.Duration
	Now          func() time.Time
	Seed         uint64
	Logger       *slog.Logger
	Registerer   prometheus.Registerer
}

func newDiscovery(opts discoveryOptions) (*discovery, error) {
	d := &discovery{
		opts: opts, store: opts.Store, hosts: opts.Hosts,
		kickPass: make(chan struct{}, 1), kickLater: make(chan struct{}, 1),
		describeRetries: newDescribeRetries(),
		rand:            rand.New(rand.NewPCG(opts.Seed, 0)),
	}
	d.absences = newAbsences(d)
	d.gapSeen.Store(true)
	var err error
	if d.crawls, err = newCrawlers(d); err != nil {
		return nil, fmt.Errorf("read crawl sources: %w", err)
	}
	if d.metrics, err = newCrawlMetrics(opts.Registerer, d); err != nil {
		return nil, fmt.Errorf("register metrics of discovery: %w", err)
	}
	return d, nil
}

// run lists hosts until ctx ends, for repositories not known yet and to compare revs after a gap, and
// returns when everything it started has returned. An error means that the store failed. It may be
// called again after it returned.
func (d *discovery) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.crawls.run(ctx) })
	g.Go(func() error { return d.reconsider(ctx) })
	g.Go(func() error { return d.reconcile(ctx) })
	g.Go(func() error { return d.absences.run(ctx) })
	return g.Wait()
}

// wake reports that lists may have to be compared, or that the filter was changed. Without it that
// is found some time later.
func (d *discovery) wake() {
	d.gapSeen.Store(true)
	signal(d.kickPass)
	d.crawls.wake()
}

// hostChanged looks at the list of a host whose settings were changed.
func (d *discovery) hostChanged(id uint32) {
	for _, c := range d.crawls.all() {
		c.look(id)
	}
}
