package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/identity"
	"cistern/store"

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

// Options configures a Runner. Store, Directory and Firehose are required.
type Options struct {
	Store     *store.Store
	Directory Directory
	// Firehose has the events.
	Firehose *firehose.Sources

	// SkipSignatures leaves out the check of commit signatures, which rows record. Default: they
	// are checked.
	SkipSignatures bool
	// Wake is called when rows were enqueued for a fetch. It must not block. Default: nothing.
	Wake func()

	// Shards is the number of queues. Default 8.
	Shards int
	// Lookups is the number of identities looked up at a time. Default 32.
	Lookups int

	// RefetchBase is the delay after a second chain break of a repository; it doubles up to an
	// hour. It is also the time in which one more #identity event of a DID has its document read.
	// Default 1m.
	RefetchBase time.Duration

	// RefuseFor is how long a PDS that is not the host of a DID counts as such without reading the
	// document again. Its events about an account that moves there meanwhile are dropped. Default
	// 10s.
	RefuseFor time.Duration

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger takes state changes. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	o.Shards = cmp.Or(o.Shards, 8)
	o.Lookups = cmp.Or(o.Lookups, 32)
	o.RefetchBase = cmp.Or(o.RefetchBase, time.Minute)
	o.RefuseFor = cmp.Or(o.RefuseFor, 10*time.Second)
	if o.Wake == nil {
		o.Wake = func() {}
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
	if o.Firehose == nil {
		errs = append(errs, errors.New("no firehose"))
	}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"shards", int64(o.Shards)}, {"lookups", int64(o.Lookups)},
		{"refetch base", int64(o.RefetchBase)}, {"refusal time", int64(o.RefuseFor)},
	} {
		if f.n < 1 {
			errs = append(errs, fmt.Errorf("%s %d is not positive", f.name, f.n))
		}
	}
	return errors.Join(errs...)
}
