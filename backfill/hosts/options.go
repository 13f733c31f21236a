package hosts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// Options of New. Store is required.
type Options struct {
	Store *store.Store
	// Concurrency is the number of repositories fetched at a time from all hosts, PerHost from one.
	// Defaults 32 and 10.
	Concurrency, PerHost int
	// Transport makes the requests. Default: identity.NewTransport without options.
	Transport http.RoundTripper
	// UserAgent is sent with every query. Default "cistern".
	UserAgent string
	// Rules limit or ban hosts by patterns of their names. Settings in the row of a host take
	// precedence.
	Rules pace.Rules
	// Receive is called with the number of bytes after each read of a body, as transferred, by the
	// goroutine that reads, and the read lasts until it returns. An error ends the body. Default: no
	// call.
	Receive func(ctx context.Context, n int) error
	// Freed is called after a permit was given back, without a lock. It must not block. Default:
	// nothing.
	Freed func()

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	o.Concurrency = cmp.Or(o.Concurrency, 32)
	o.PerHost = cmp.Or(o.PerHost, 10)
	o.UserAgent = cmp.Or(o.UserAgent, "cistern")
	if o.Transport == nil {
		o.Transport = identity.NewTransport(identity.TransportOptions{})
	}
	if o.Freed == nil {
		o.Freed = func() {}
	}
	if o.Now == nil {
		o.Now = time.Now
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
	if o.Concurrency < 1 || o.PerHost < 1 {
		errs = append(errs, fmt.Errorf("concurrency %d, or %d per host, is not positive",
			o.Concurrency, o.PerHost))
	}
	return errors.Join(errs...)
}
