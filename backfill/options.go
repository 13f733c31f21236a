package backfill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"cistern/backfill/fetch"
	"cistern/backfill/pace"
	"cistern/gate"
	"cistern/ingest/identity"
	"cistern/store"
	"cistern/trace"

	"github.com/prometheus/client_golang/prometheus"
)

// Directory finds the host and the keys of a DID. It is safe for concurrent use. Its errors are
// those of package identity; any other error is transient. After Purge, Resolve does not answer
// from its cache.
type Directory interface {
	Resolve(ctx context.Context, did string) (identity.Identity, error)
	Purge(did string)
	fetch.Keys
}

// Options configures a Runner. Store and Directory are required.
type Options struct {
	Store     *store.Store
	Directory Directory

	// Transport makes the requests. Default: identity.NewTransport with AllowPrivate.
	Transport http.RoundTripper
	// AllowPrivate permits addresses that are not public. For development only.
	AllowPrivate bool
	// UserAgent is sent with every request. Default "cistern".
	UserAgent string

	// Strategy is how a repository is fetched when the filter wants only some collections. Default
	// fetch.StrategyAuto.
	Strategy fetch.Strategy
	// SkipSignatures turns off the check of signatures, and rows record that
	// (store.VerifiedHashes). Default: signatures are checked. Hashes and trees always are.
	SkipSignatures bool
	// Drain is called when a copy is complete and durable, but live commits that were buffered
	// during its fetch must still be applied (store.StateDraining). It must not block. Default:
	// nothing.
	Drain func(did string)
	// Follows reports whether the firehose source with an id (store.SourceID) is followed. While a
	// relay is followed, accounts that it hides stay hidden, whatever their hosts report. It must
	// not block. Default: all sources are followed.
	Follows func(source uint32) bool

	// Receive is Receive of package hosts. Default: no call.
	Receive func(ctx context.Context, n int) error
	// Gate pauses Run: while it is shut no task starts, and tasks in flight are finished. Default:
	// a gate that is always open.
	Gate *gate.Gate

	// Concurrency is the number of repositories fetched at a time. Default 32.
	Concurrency int
	// PerHost is the number of repositories fetched from one host at a time. Default 10.
	PerHost int
	// HostRules limit or ban hosts by patterns of their names. Settings of one host (store.HostRow)
	// take precedence.
	HostRules pace.Rules
	// Limits of copies. fetch.Options documents their meaning and their defaults.
	MemoryBytes     int64
	RepoMemoryBytes int64
	SpoolDir        string
	SpoolBytes      int64
	CARBytesMax     int64
	CARBlocksMax    int
	FetchTimeout    time.Duration

	// IdleTimeout is the time in which 64 KiB, or the rest of the body, must arrive. Default 30s.
	IdleTimeout time.Duration

	// RetryBase is the delay after the first failure; it doubles up to RetryMax, ±10 %. Default 60s.
	RetryBase time.Duration
	// RetryMax is the longest delay. Default 1h.
	RetryMax time.Duration

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Seed makes delays repeatable. Default 0, which is a valid seed.
	Seed uint64
	// Tracer traces fetches. Default: none is traced.
	Tracer *trace.Tracer
	// Logger receives state changes. Default: discard.
	Logger *slog.Logger
	// Registerer receives the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	o.UserAgent = cmp.Or(o.UserAgent, "cistern")
	o.Concurrency = cmp.Or(o.Concurrency, 32)
	o.PerHost = cmp.Or(o.PerHost, 10)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 30*time.Second)
	o.RetryBase = cmp.Or(o.RetryBase, time.Minute)
	o.RetryMax = cmp.Or(o.RetryMax, time.Hour)
	if o.Transport == nil {
		o.Transport = identity.NewTransport(identity.TransportOptions{
			AllowPrivate:          o.AllowPrivate,
			ResponseHeaderTimeout: o.IdleTimeout,
			MaxIdleConnsPerHost:   o.PerHost,
			DisableCompression:    true,
		})
	}
	if o.Gate == nil {
		o.Gate = new(gate.Gate)
	}
	if o.Drain == nil {
		o.Drain = func(string) {}
	}
	if o.Follows == nil {
		o.Follows = func(uint32) bool { return true }
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
		{"concurrency", int64(o.Concurrency)}, {"concurrency per host", int64(o.PerHost)},
		{"idle timeout", int64(o.IdleTimeout)}, {"retry base", int64(o.RetryBase)},
		{"retry maximum", int64(o.RetryMax)},
	} {
		if f.n < 1 {
			errs = append(errs, fmt.Errorf("%s %d is not positive", f.name, f.n))
		}
	}
	if o.RetryMax < o.RetryBase {
		errs = append(errs, fmt.Errorf("retry maximum %s is below the base %s", o.RetryMax, o.RetryBase))
	}
	return errors.Join(errs...)
}
