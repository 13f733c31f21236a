package firehose

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"cistern/gate"
	"cistern/store"
	"cistern/trace"

	"github.com/prometheus/client_golang/prometheus"
)

// Options configures Sources. Store is required.
type Options struct {
	Store *store.Store

	// Sources are followed in addition to the sources added while running. URLs are normalised by
	// ParseSource.
	Sources []store.Source
	// AllowPrivate permits addresses that are not public. For development only.
	AllowPrivate bool
	// Resolver looks up the names of sources. Default net.DefaultResolver.
	Resolver *net.Resolver
	// UserAgent is sent with every request. Default "cistern".
	UserAgent string
	// Wake is called when a comparison of a listing was requested. It must not block. Default:
	// nothing.
	Wake func()

	// Gate pauses the reading of sources: while it is shut all connections are closed, and what was
	// read is handled. Default: a gate that is always open.
	Gate *gate.Gate

	// QueueBytes bounds the messages read and not yet handled. Default 32 MiB.
	QueueBytes int64
	// SilentAfter is how long a source may send nothing while others send messages, before it is
	// connected anew. It doubles for a source that is silent on the new connection too. After ten
	// times as long a source is connected anew at its cursor whatever others do, even if it is the
	// only one, and that is no failure. Default 60s.
	SilentAfter time.Duration
	// ReadTimeout is how long nothing at all, not even a pong, may come from a socket. Default 45s;
	// a ping is sent after a third of it.
	ReadTimeout time.Duration
	// RetryBase is the delay before the first reconnection; it doubles up to RetryMax, with jitter.
	// Default 1s.
	RetryBase time.Duration
	// RetryMax is the longest delay. Default 1m.
	RetryMax time.Duration
	// ReconcileEvery is the minimum time between two comparisons of a source's listing because of
	// messages that may be missing. Default 10m.
	ReconcileEvery time.Duration

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Seed makes delays repeatable. Default 0, which is a seed too.
	Seed uint64
	// Tracer traces commits. Default: none is traced.
	Tracer *trace.Tracer
	// Logger takes state changes. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	o.UserAgent = cmp.Or(o.UserAgent, "cistern")
	o.QueueBytes = cmp.Or(o.QueueBytes, 32<<20)
	o.SilentAfter = cmp.Or(o.SilentAfter, time.Minute)
	o.ReadTimeout = cmp.Or(o.ReadTimeout, 45*time.Second)
	o.RetryBase = cmp.Or(o.RetryBase, time.Second)
	o.RetryMax = cmp.Or(o.RetryMax, time.Minute)
	o.ReconcileEvery = cmp.Or(o.ReconcileEvery, 10*time.Minute)
	if o.Wake == nil {
		o.Wake = func() {}
	}
	if o.Gate == nil {
		o.Gate = new(gate.Gate)
	}
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
	var errs []error
	if o.Store == nil {
		errs = append(errs, errors.New("no store"))
	}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"queue bytes", o.QueueBytes}, {"silence", int64(o.SilentAfter)},
		{"read timeout", int64(o.ReadTimeout)}, {"retry base", int64(o.RetryBase)},
		{"retry maximum", int64(o.RetryMax)}, {"reconciliation period", int64(o.ReconcileEvery)},
	} {
		if f.n < 1 {
			errs = append(errs, fmt.Errorf("%s %d is not positive", f.name, f.n))
		}
	}
	if o.RetryMax < o.RetryBase {
		errs = append(errs, fmt.Errorf("retry maximum %s is below the base %s", o.RetryMax, o.RetryBase))
	}
	if len(o.Sources) > sourcesMax {
		errs = append(errs, fmt.Errorf("%d sources are more than %d", len(o.Sources), sourcesMax))
	}
	pds := map[string]bool{}
	for _, src := range o.Sources {
		parsed, err := ParseSource(src.URL, src.PDS)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if was, twice := pds[parsed.URL]; twice && was != parsed.PDS {
			errs = append(errs, fmt.Errorf("source %s cannot be both a relay and a PDS", parsed.URL))
		}
		pds[parsed.URL] = parsed.PDS
	}
	return errors.Join(errs...)
}
