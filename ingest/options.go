package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"cistern/gate"
	"cistern/ingest/identity"
	"cistern/store"
	"cistern/trace"

	"github.com/prometheus/client_golang/prometheus"
)

// Directory finds the host and the key of a DID. Safe for concurrent use; *identity.Directory is
// one.
type Directory interface {
	// Resolve may make requests. Errors are those of package identity; any other is transient.
	Resolve(ctx context.Context, did string) (identity.Identity, error)
	// Purge drops what is cached, so that the next Resolve makes a request.
	Purge(did string)
	// Cached makes no request.
	Cached(did string) (identity.Identity, bool)
	// Remember caches an identity that was read earlier.
	Remember(ident identity.Identity, at time.Time)
}

// Options configures a Runner. Store and Directory are required.
type Options struct {
	Store     *store.Store
	Directory Directory

	// Sources are followed in addition to the sources added while running. URLs are normalised by
	// ParseSource.
	Sources []store.Source
	// SkipSignatures leaves out the check of commit signatures, which rows record. Default: they
	// are checked.
	SkipSignatures bool
	// AllowPrivate permits addresses that are not public. For development only.
	AllowPrivate bool
	// Resolver looks up the names of sources. Default net.DefaultResolver.
	Resolver *net.Resolver
	// UserAgent is sent with every request. Default "cistern".
	UserAgent string
	// Wake is called when rows were enqueued for a fetch. It must not block. Default: nothing.
	Wake func()

	// Gate pauses the reading of sources: while it is shut all connections are closed, and what was
	// read is handled. Default: a gate that is always open.
	Gate *gate.Gate

	// Shards is the number of queues. Default 8.
	Shards int
	// QueueBytes bounds the messages read and not yet handled. Default 32 MiB.
	QueueBytes int64
	// Lookups is the number of identities looked up at a time. Default 32.
	Lookups int

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
	// RefetchBase is the delay after a second chain break of a repository; it doubles up to an
	// hour. It is also the time in which one more #identity event of a DID has its document read.
	// Default 1m.
	RefetchBase time.Duration

	// ReconcileEvery is the minimum time between two comparisons of a source's listing because of
	// messages that may be missing. Default 10m.
	ReconcileEvery time.Duration

	// RefuseFor is how long a PDS that is not the host of a DID counts as such without reading the
	// document again. Its events about an account that moves there meanwhile are dropped. Default
	// 10s.
	RefuseFor time.Duration

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
	o.Shards = cmp.Or(o.Shards, 8)
	o.QueueBytes = cmp.Or(o.QueueBytes, 32<<20)
	o.Lookups = cmp.Or(o.Lookups, 32)
	o.SilentAfter = cmp.Or(o.SilentAfter, time.Minute)
	o.ReadTimeout = cmp.Or(o.ReadTimeout, 45*time.Second)
	o.RetryBase = cmp.Or(o.RetryBase, time.Second)
	o.RetryMax = cmp.Or(o.RetryMax, time.Minute)
	o.RefetchBase = cmp.Or(o.RefetchBase, time.Minute)
	o.RefuseFor = cmp.Or(o.RefuseFor, 10*time.Second)
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
	if o.Directory == nil {
		errs = append(errs, errors.New("no directory"))
	}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"shards", int64(o.Shards)}, {"queue bytes", o.QueueBytes}, {"lookups", int64(o.Lookups)},
		{"silence", int64(o.SilentAfter)}, {"read timeout", int64(o.ReadTimeout)}, {"retry base", int64(o.RetryBase)},
		{"retry maximum", int64(o.RetryMax)}, {"refetch base", int64(o.RefetchBase)}, {"refusal time", int64(o.RefuseFor)},
		{"reconciliation period", int64(o.ReconcileEvery)},
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
