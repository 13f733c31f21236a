package refilter

import (
	"errors"
	"log/slog"
	"time"

	"cistern/gate"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// Options of New. All functions are required.
type Options struct {
	Store *store.Store
	// Gate pauses the pass.
	Gate *gate.Gate
	// WorksBefore reports whether a fetch is running that chooses records by a filter older than a
	// version.
	WorksBefore func(version uint32) bool
	// Queued is called after a repository was put into the queue of a host, Due after one was
	// deferred to a unix second.
	Queued func(host uint32)
	Due    func(at int64)
	// DeadDelay returns how long a repository waits whose host has completed nothing for long.
	DeadDelay func() time.Duration

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger gets the beginning and end of a pass. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	return o
}

func (o Options) validate() error {
	if o.Store == nil || o.Gate == nil || o.WorksBefore == nil || o.Queued == nil || o.Due == nil ||
		o.DeadDelay == nil {
		return errors.New("a required field is missing")
	}
	return nil
}
