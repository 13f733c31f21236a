package names

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"cistern/api/clients"
	"cistern/ingest/identity"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
)

var (
	// ErrNotFound: the handle leads to no DID.
	ErrNotFound = errors.New("handle not found")
	// ErrLimited: the client, the site of the name or all clients together have asked too often.
	ErrLimited = errors.New("too many lookups of names")
)

// Options configures a Resolver.
type Options struct {
	// Directory resolves DIDs. Required.
	Directory *identity.Directory
	// AllowPrivate permits addresses and top-level domains that are not public. For development
	// only.
	AllowPrivate bool
	// DNS looks up TXT records and addresses. Default: the resolver of Go, not that of the C
	// library.
	DNS *net.Resolver
	// UserAgent is sent with every request. Default "cistern".
	UserAgent string
	// Now is the clock of the cache and of rates. Default time.Now.
	Now func() time.Time
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	if o.DNS == nil {
		o.DNS = &net.Resolver{PreferGo: true}
	}
	o.UserAgent = cmp.Or(o.UserAgent, "cistern")
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	return o
}

// Resolver looks up handles and DIDs for clients.
type Resolver struct {
	directory    *identity.Directory
	allowPrivate bool
	now          func() time.Time
	metrics      *metrics

	lookup  *lookup
	flights singleflight.Group
	turns   *clients.Turns
	clients *rates[netip.Prefix]
	sites   *rates[string]
	all     *rate.Limiter

	mu    sync.Mutex
	cache *simplelru.LRU[string, answer] // mu guards; keys are handles
}

// answer is what is known of a handle.
type answer struct {
	did   string
	err   error
	until time.Time
}

// New makes a Resolver.
func New(o Options) (*Resolver, error) {
	if o.Directory == nil {
		return nil, errors.New("names needs a directory")
	}
	o = o.withDefaults()
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	r := &Resolver{directory: o.Directory, allowPrivate: o.AllowPrivate, now: o.Now, metrics: m,
		lookup: newLookup(o), turns: clients.NewTurns(lookupsMax),
		all: rate.NewLimiter(allRate, allBurst)}
	var errs [3]error
	r.clients, errs[0] = newRates[netip.Prefix](clientRate, clientBurst)
	r.sites, errs[1] = newRates[string](siteRate, siteBurst)
	r.cache, errs[2] = simplelru.NewLRU[string, answer](cacheMax, nil)
	return r, errors.Join(errs[:]...)
}

// Handle returns the DID that a handle, in lower case, leads to. The account may not claim the
// handle. Errors: ErrNotFound, ErrLimited; any other is transient.
func (r *Resolver) Handle(ctx context.Context, client netip.Prefix, handle string) (string, error) {
	if why := reserved(syntax.Handle(handle), r.allowPrivate); why != "" {
		return "", fmt.Errorf("%s: %w", why, ErrNotFound)
	}
	if a, ok := r.known(handle); ok {
		r.metrics.lookups.WithLabelValues("cached").Inc()
		return a.did, a.err
	}
	release, err := r.admit(ctx, client, handle)
	if err != nil {
		r.metrics.lookups.WithLabelValues("refused").Inc()
		return "", err
	}
	defer release()
	did, err, _ := r.flights.Do(handle, func() (any, error) {
		// Others may wait for the answer after this client has gone.
		did, err := r.lookup.ask(context.WithoutCancel(ctx), handle)
		r.metrics.lookups.WithLabelValues(result(err)).Inc()
		r.keep(handle, answer{did, brief(err), r.now().Add(keptFor(err))})
		return did, err
	})
	if err != nil {
		return "", err
	}
	return did.(string), nil
}

// Identity returns what the document of a DID says. Errors are those of identity.Directory, and
// ErrLimited.
func (r *Resolver) Identity(
	ctx context.Context, client netip.Prefix, did string,
) (identity.Identity, error) {
	if ident, ok := r.directory.Cached(did); ok {
		return ident, nil
	}
	if len(did) > didBytesMax { // no host has such a name, and rates remember names
		return identity.Identity{}, fmt.Errorf("DID of %d bytes: %w", len(did), identity.ErrInvalid)
	}
	site := "plc" // the directory
	if host, ok := strings.CutPrefix(did, "did:web:"); ok {
		if why := reservedHost(host); why != "" && !r.allowPrivate {
			return identity.Identity{}, fmt.Errorf("%s: %w", why, identity.ErrInvalid)
		}
		site = host
	}
	release, err := r.admit(ctx, client, site)
	if err != nil {
		return identity.Identity{}, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return r.directory.Resolve(ctx, did)
}

// admit waits until a client may look up a name (invariant 1). The error is ErrLimited.
func (r *Resolver) admit(
	ctx context.Context, client netip.Prefix, name string,
) (release func(), err error) {
	now := r.now()
	switch {
	case !r.clients.allow(client, now):
		return nil, fmt.Errorf("%w from this address: at most %d a second", ErrLimited, clientRate)
	case !r.sites.allow(siteOf(name), now):
		return nil, fmt.Errorf("%w below %s", ErrLimited, siteOf(name))
	case !r.all.AllowN(now, 1):
		return nil, ErrLimited
	}
	ctx, cancel := context.WithTimeout(ctx, turnWait)
	defer cancel()
	if err := r.turns.Acquire(ctx, client, 1); err != nil {
		return nil, fmt.Errorf("%w at a time", ErrLimited)
	}
	return func() { r.turns.Release(client, 1) }, nil
}

// known returns the answer in the cache.
func (r *Resolver) known(handle string) (answer, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.cache.Get(handle)
	return a, ok && r.now().Before(a.until)
}

func (r *Resolver) keep(handle string, a answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cache.Add(handle, a)
}

// errFailed is a failure in the cache.
var errFailed = errors.New("the lookup failed a moment ago")

// brief returns the kind of an error, for the cache: hosts choose texts in it, such as the URL of a
// redirect, which may have 64 KiB.
func brief(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotFound):
		return ErrNotFound
	}
	return errFailed
}

func result(err error) string {
	switch {
	case err == nil:
		return "found"
	case errors.Is(err, ErrNotFound):
		return "missing"
	}
	return "failed"
}
