package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cistern/backfill/hosts"
	"cistern/gate"
	"cistern/ingest/identity"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// Directory finds the host of a DID. It is safe for concurrent use. Its errors are those of package
// identity; any other error is transient.
type Directory interface {
	Resolve(ctx context.Context, did string) (identity.Identity, error)
}

// Options configures a Runner. Store, Hosts, Directory and Enqueued are required.
type Options struct {
	Store *store.Store
	// Hosts sends queries, within the limits of the hosts.
	Hosts     *hosts.Table
	Directory Directory
	// Enqueued is called after repositories were put into queues of hosts. It must not block.
	Enqueued func()

	// AllowPrivate uses the scheme of a relay for the hosts that it names. For development only.
	AllowPrivate bool
	// Unheard is called when a host's own listing shows commits of stored repositories that no
	// firehose has brought. It may be called often for one host, and an error ends Run. Default:
	// nothing.
	Unheard func(origin string) error
	// Crawl names sources of repositories, in addition to those that AddCrawl stored. Default:
	// none.
	Crawl []Source
	// CrawlPendingMax pauses crawling while more repositories are pending. Default 20,000,000: a
	// queued repository takes some 200 bytes of disk, and a host is kept busy only if its queue is
	// known. One host may take an eighth of the remainder, so that invented accounts do not block
	// other hosts.
	CrawlPendingMax int64
	// CrawlEvery is how long after its end a list is read from the beginning again. Default 24h:
	// events bring most changes at once, and the whole network is some 40,000 pages, which count
	// against the limits of its hosts.
	CrawlEvery time.Duration
	// Gate pauses the discovery of repositories: a page that was requested is finished. Listings
	// that are compared because events were missed are still read, because that is repair, not
	// discovery. Default: a gate that is always open.
	Gate *gate.Gate
	// IdleTimeout is the time in which an answer must begin. Default 30s.
	IdleTimeout time.Duration

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Seed makes delays repeatable. Default 0, which is a seed too.
	Seed uint64
	// Logger takes state changes. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	o.CrawlPendingMax = cmp.Or(o.CrawlPendingMax, 20_000_000)
	o.CrawlEvery = cmp.Or(o.CrawlEvery, 24*time.Hour)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 30*time.Second)
	o.Gate = cmp.Or(o.Gate, new(gate.Gate))
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Unheard == nil {
		o.Unheard = func(string) error { return nil }
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
	if o.Store == nil || o.Hosts == nil || o.Directory == nil || o.Enqueued == nil {
		errs = append(errs, errors.New("a required field is missing"))
	}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"crawl pending limit", o.CrawlPendingMax}, {"crawl period", int64(o.CrawlEvery)},
		{"idle timeout", int64(o.IdleTimeout)},
	} {
		if f.n < 1 {
			errs = append(errs, fmt.Errorf("%s %d is not positive", f.name, f.n))
		}
	}
	for _, s := range o.Crawl {
		errs = append(errs, s.validate())
	}
	return errors.Join(errs...)
}
