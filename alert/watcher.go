package alert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Failures returns every subject that fails at the moment. An error means that some cannot be
	// known: the state of all subjects then stays as it is. Required.
	Failures func(now time.Time) ([]Failure, error)
	// Policies take the place of DefaultPolicies, by kind.
	Policies map[Kind]Policy
	// Send posts a message, and returns an error if it did not arrive. The id of a message is the
	// same with each attempt. Default: nothing is sent.
	Send func(ctx context.Context, id string, body []byte) error
	// Every is the time between looks. Default 10 s.
	Every time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

// Watcher looks at failures periodically, and logs and sends what turns.
type Watcher struct {
	opts    Options
	metrics *metrics
	queue   *queue

	mu    sync.Mutex
	board *Board // mu guards
}

// New returns a Watcher. It starts nothing: call Run.
func New(o Options) (*Watcher, error) {
	o.Every = cmp.Or(o.Every, lookEvery)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Failures == nil || o.Every < 0 {
		return nil, fmt.Errorf("alert needs failures; the time between looks must not be negative: "+
			"%s", o.Every)
	}
	policies := DefaultPolicies()
	maps.Copy(policies, o.Policies)
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	return &Watcher{opts: o, metrics: m, board: NewBoard(policies),
		queue: &queue{more: make(chan struct{}, 1)}}, nil
}

// Run looks and sends until ctx ends. Messages that are not sent by then are lost. It returns nil.
func (w *Watcher) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.look(ctx) })
	if w.opts.Send != nil {
		g.Go(func() error { return w.send(ctx) })
	}
	return g.Wait()
}

func (w *Watcher) look(ctx context.Context) error {
	tick := time.NewTicker(w.opts.Every)
	defer tick.Stop()
	for unread := false; ; {
		err := w.Look()
		if err != nil && !unread {
			w.opts.Logger.Warn("alerts stay as they are: failures cannot be read", "err", err)
		}
		unread = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Look reads the failures once, and logs and queues what turns.
func (w *Watcher) Look() error {
	now := w.opts.Now()
	failures, err := w.opts.Failures(now)
	if err != nil {
		return err
	}
	w.mu.Lock()
	turned := w.board.Look(now, failures)
	subjects, dropped := w.board.Subjects(), w.board.Dropped()
	w.mu.Unlock()
	w.metrics.set(subjects, dropped)
	var errs []error
	for _, s := range turned {
		w.report(s)
		if w.opts.Send == nil {
			continue
		}
		m, err := newMessage(s, now)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !w.queue.add(m) {
			w.metrics.sent.WithLabelValues(resultDropped).Inc()
		}
	}
	return errors.Join(errs...)
}

func (w *Watcher) report(s Subject) {
	log := w.opts.Logger.With("kind", s.Kind, "subject", s.Name, "err", s.Error)
	if s.Now == Alert {
		log.Error("alert: a subject has failed for too long", "since", s.Since,
			"attempts", s.Attempts, "runbook", Runbook(s.Kind))
		return
	}
	log.Info("alert ended: the subject works again")
}

// Subjects returns the subjects that fail, in order of kind and name.
func (w *Watcher) Subjects() []Subject {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.board.Subjects()
}
