package condition

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cistern/gate"

	"github.com/prometheus/client_golang/prometheus"
)

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Conditions are watched. Their names differ. Default: none.
	Conditions []Condition
	// Gates are shut while a condition waits. Default: none.
	Gates []*gate.Gate
	// Every is the time between looks. Default 2 s.
	Every time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

// Watcher looks at conditions, and holds gates shut while one of them waits.
type Watcher struct {
	opts    Options
	metrics *metrics

	mu  sync.Mutex
	all []*tracker // mu guards, but for the fields of Condition
}

// New returns a Watcher. It starts nothing, and looks at nothing: call Look, or Run.
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
	w := &Watcher{opts: o}
	names := map[string]bool{}
	for _, c := range o.Conditions {
		if c.Name == "" || c.Read == nil || names[c.Name] {
			return nil, fmt.Errorf("condition %q has no name of its own, or reads nothing", c.Name)
		}
		names[c.Name] = true
		w.all = append(w.all, &tracker{Condition: c})
	}
	if o.Every < 0 {
		return nil, fmt.Errorf("the time between looks at conditions is negative: %s", o.Every)
	}
	var err error
	w.metrics, err = newMetrics(o.Registerer)
	return w, err
}

// Run looks until ctx ends. An error is why the daemon must stop.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(w.opts.Every)
	defer tick.Stop()
	for {
		if err := w.Look(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Look reads all conditions, and shuts or opens the gates. An error is why the daemon must stop.
func (w *Watcher) Look() error {
	var stop []error
	for _, t := range w.all {
		now := w.opts.Now()
		r, err := t.Read(now)
		w.mu.Lock()
		was := t.status()
		t.settle(r, err, now)
		is, old, wanted := t.status(), t.cause, t.wanted()
		t.cause = wanted
		w.mu.Unlock()
		w.drive(old, wanted)
		w.report(was, is, t.Halts)
		if t.Told != nil {
			t.Told(told(is))
		}
		stop = append(stop, r.Stop)
	}
	return errors.Join(stop...)
}

// told returns the reason to wait, "" for none.
func told(s Status) string {
	if s.State != Waiting {
		return ""
	}
	return s.Reason
}

// drive brings the gates from one cause of a condition to another.
func (w *Watcher) drive(old, wanted gate.Cause) {
	for _, g := range w.opts.Gates {
		switch {
		case wanted == old:
		case wanted == gate.Cause{}:
			g.Open(old.Name)
		default:
			g.Shut(wanted)
		}
	}
}

// report logs what has changed, and counts it.
func (w *Watcher) report(was, is Status, grave bool) {
	w.metrics.set(is)
	log := w.opts.Logger.With("condition", is.Name, "reason", is.Reason)
	if is.Subject != "" {
		log = log.With("subject", is.Subject)
	}
	switch {
	case was.Error == "" && is.Error != "":
		log.Warn("a condition cannot be read: it stays as it was for a minute, and then pauses "+
			"nothing", "err", is.Error)
	case was.Error != "" && is.Error == "":
		log.Info("a condition can be read again")
	}
	switch {
	case is.State == was.State:
	case is.State == Waiting && grave:
		log.Warn("backfill and crawling pause, and what is under way is cut")
	case is.State == Waiting:
		log.Info("backfill and crawling pause")
	case was.State == Waiting:
		log.Info("a condition does not pause backfill and crawling any more")
	}
}

// Status returns all conditions, in the order of Options.Conditions. A condition that was not
// looked at yet is left out.
func (w *Watcher) Status() []Status {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]Status, 0, len(w.all))
	for _, t := range w.all {
		if t.state != "" {
			all = append(all, t.status())
		}
	}
	return all
}
