package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"cistern/api/deliver"
	"cistern/api/durable"
	"cistern/gate"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Subscriptions are the subscriptions whose webhooks are sent, Delivery reads their events, and
	// Epoch is that of their store. Required.
	Subscriptions *durable.Registry
	Delivery      *deliver.Delivery
	Epoch         string
	// AllowPrivate permits requests to addresses that are not public. For development only.
	AllowPrivate bool
	// Transport makes the requests. Default: identity.NewTransport, with AllowPrivate.
	Transport http.RoundTripper
	// Gate pauses requests: while it is shut no request begins, and the requests in flight, which it
	// counts, are finished. Default: a Gate that stays open.
	Gate *gate.Gate
	// UserAgent is sent with every request. Default "cistern".
	UserAgent string
	// DrainTimeout is how long requests in flight may go on when Run ends. Default 5 s.
	DrainTimeout time.Duration
	// Jitter returns numbers in [0,1), and may be called by any goroutine. Default: random.
	Jitter func() float64
	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

// Runner sends the events of all webhooks.
type Runner struct {
	opts    Options
	poster  *Poster
	metrics *metrics
	slots   *semaphore.Weighted // requestsMax
}

// New returns a Runner. It starts nothing: call Run.
func New(o Options) (*Runner, error) {
	o.UserAgent = cmp.Or(o.UserAgent, "cistern")
	o.Gate = cmp.Or(o.Gate, new(gate.Gate))
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 5*time.Second)
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Subscriptions == nil || o.Delivery == nil || o.Epoch == "" || o.DrainTimeout < 0 {
		return nil, fmt.Errorf("webhook needs subscriptions, their delivery and an epoch; drain "+
			"timeout %s must not be negative", o.DrainTimeout)
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	return &Runner{opts: o, poster: NewPoster(o.Transport, o.AllowPrivate, o.UserAgent), metrics: m,
		slots: semaphore.NewWeighted(requestsMax)}, nil
}

// Run sends events until ctx ends. Requests in flight are then finished within DrainTimeout, or
// cut; what they have not delivered is sent again by the next Run. An error is one of the store.
func (r *Runner) Run(ctx context.Context) error {
	defer r.poster.Close()
	g, ctx := errgroup.WithContext(ctx)
	running, ended := map[string]bool{}, make(chan string)
	for ctx.Err() == nil {
		hooks, changed := r.opts.Subscriptions.Webhooks()
		named := map[string]bool{}
		for _, h := range hooks {
			// A hook that takes the place of another begins when that has ended.
			if named[h.Name] = true; !running[h.Name] {
				running[h.Name] = true
				g.Go(func() error { return r.runOne(ctx, h, ended) })
			}
		}
		select {
		case name := <-ended:
			if delete(running, name); !named[name] {
				r.metrics.forget(name)
			}
		case <-changed:
		case <-ctx.Done():
		}
	}
	return g.Wait()
}

// runOne sends the events of a webhook until it is changed, and says so.
func (r *Runner) runOne(ctx context.Context, h *durable.Hook, ended chan<- string) error {
	r.metrics.begin(h.Name)
	if err := newDelivery(r, h).run(ctx); err != nil {
		return fmt.Errorf("webhook of subscription %s: %w", h.Name, err)
	}
	select {
	case ended <- h.Name:
	case <-ctx.Done():
	}
	return nil
}

// unlessEnded returns an error that is not about an end: of ctx, of the webhook, of its
// subscription.
func unlessEnded(err error) error {
	for _, end := range []error{context.Canceled, durable.ErrChanged, deliver.ErrDropped,
		deliver.ErrReplayed, errParked} {
		if errors.Is(err, end) {
			return nil
		}
	}
	return err
}
