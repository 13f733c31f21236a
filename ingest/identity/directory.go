package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options configures a Directory.
type Options struct {
	// PLC lists base URLs of PLC directories in order of preference. Default https://plc.directory.
	PLC []string
	// AllowPrivate permits addresses that are not public, and did:web:localhost over http. For
	// development only.
	AllowPrivate bool
	// Resolver looks up the names of hosts. Default net.DefaultResolver.
	Resolver *net.Resolver
	// Timeout bounds one lookup, fallbacks included. Default 10s.
	Timeout time.Duration
	// CacheSize bounds the cached answers; about 0.8 KiB each. Default 50,000.
	CacheSize int
	// TTL is how long an identity is served from the cache. Default 24h.
	TTL time.Duration
	// ErrorTTL is how long ErrNotFound and ErrInvalid are served from the cache; other
	// failures are not cached. Default 2m.
	ErrorTTL time.Duration
	// ProbeEvery is how often Run asks a PLC directory that fails. Default 30s.
	ProbeEvery time.Duration
	// BodyMax bounds one document in bytes. Default 64 KiB; real ones are near 1 KiB.
	BodyMax int64
	// UserAgent is sent with every request. Default "cistern".
	UserAgent string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Registerer takes the metrics. Default a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	if len(o.PLC) == 0 {
		o.PLC = []string{"https://plc.directory"}
	}
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.CacheSize = cmp.Or(o.CacheSize, 50_000)
	o.TTL = cmp.Or(o.TTL, 24*time.Hour)
	o.ErrorTTL = cmp.Or(o.ErrorTTL, 2*time.Minute)
	o.ProbeEvery = cmp.Or(o.ProbeEvery, 30*time.Second)
	o.BodyMax = cmp.Or(o.BodyMax, 64<<10)
	o.UserAgent = cmp.Or(o.UserAgent, "cistern")
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
	for _, p := range o.PLC {
		errs = append(errs, o.validatePLC(p))
	}
	if o.Timeout < 0 || o.TTL < 0 || o.ErrorTTL < 0 || o.ProbeEvery < 0 {
		errs = append(errs, errors.New("negative duration"))
	}
	if o.CacheSize < 0 || o.BodyMax < 0 {
		errs = append(errs, errors.New("negative size"))
	}
	return errors.Join(errs...)
}

func (o Options) validatePLC(base string) error {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("PLC directory %q is not an http or https URL", base)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("PLC directory %q has a query or fragment", base)
	}
	if o.AllowPrivate {
		return nil
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() == "localhost" || (err == nil && CheckPublic(addr) != nil) {
		return fmt.Errorf("PLC directory %q is at a private address: add --allow-private, or it is "+
			"never connected to", base)
	}
	return nil
}

// cachedDIDMax bounds the memory of a cache entry: no DID that can be resolved is longer than
// did:web: and a host name. Other DIDs are refused without a request.
const cachedDIDMax = len("did:web:") + hostTextMax

// Directory resolves DIDs.
type Directory struct {
	opts    Options
	client  *http.Client
	plc     *plcPool
	metrics *metrics

	// mu guards:
	mu      sync.Mutex
	cache   *cache
	flights map[string]*flight
}

// flight is a lookup in progress; done is closed when its answer is there.
type flight struct {
	done chan struct{}
	answer
	abandoned bool // the leader gave up, so that the DID was not looked up
}

// New makes a Directory.
func New(opts Options) (*Directory, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("identity options: %w", err)
	}
	bases := make([]string, len(opts.PLC))
	for i, p := range opts.PLC {
		bases[i] = strings.TrimRight(p, "/")
	}
	d := &Directory{
		opts: opts,
		client: &http.Client{
			Transport: NewTransport(TransportOptions{
				AllowPrivate:    opts.AllowPrivate,
				Resolver:        opts.Resolver,
				ReadBufferBytes: 4 << 10,
			}),
			CheckRedirect: CheckRedirect,
		},
		plc:     newPLCPool(bases, opts.Now),
		cache:   newCache(opts.CacheSize),
		flights: make(map[string]*flight),
	}
	var err error
	if d.metrics, err = newMetrics(opts.Registerer, d.cacheLen); err != nil {
		return nil, fmt.Errorf("register identity metrics: %w", err)
	}
	return d, nil
}

// Resolve returns the identity of did, from the cache if it is fresh there. Errors: ErrNotFound,
// ErrInvalid (ErrNoPDS and ErrNoKey among them), ErrRateLimited; any other is transient.
func (d *Directory) Resolve(ctx context.Context, did string) (Identity, error) {
	for {
		a, f, lead := d.join(did)
		switch {
		case f == nil:
			d.metrics.hits.Inc()
			return a.ident, a.err
		case lead:
			d.metrics.misses.Inc()
			d.lookUp(ctx, did, f)
			return f.ident, f.err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return Identity{}, fmt.Errorf("resolve %s: %w", did, ctx.Err())
		}
		if f.abandoned {
			continue // lead the next one
		}
		d.metrics.coalesced.Inc()
		return f.ident, f.err
	}
}

// Cached returns the identity of did if the cache holds a fresh one. It makes no request and never
// waits for one.
func (d *Directory) Cached(did string) (Identity, bool) {
	d.mu.Lock()
	a, ok := d.cache.get(did, d.opts.Now())
	d.mu.Unlock()
	if !ok || a.err != nil {
		return Identity{}, false
	}
	d.metrics.hits.Inc()
	return a.ident, true
}

// Remember puts an identity, read from its document at a time, into the cache for Cached (invariant
// 7), unless the cache has an answer for the DID. Its PublicKey may be nil: it is parsed from Key.
// An identity that is older than the TTL, lacks a PDS, or has an invalid key is not cached.
func (d *Directory) Remember(ident Identity, at time.Time) {
	now := d.opts.Now()
	if at.After(now) {
		at = now
	}
	expires := at.Add(d.opts.TTL)
	if !now.Before(expires) || ident.DID == "" || len(ident.DID) > cachedDIDMax || ident.PDS == "" ||
		d.knows(ident.DID) {
		return
	}
	if ident.PublicKey == nil {
		key, err := ParseKey(ident.Key)
		if err != nil {
			return
		}
		ident.PublicKey = key
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.cache.get(ident.DID, now); !known { // a lookup may have ended meanwhile
		d.cache.put(ident.DID, answer{ident: ident, told: true}, expires)
	}
}

// knows reports whether the cache holds an answer for did, an identity or a failure.
func (d *Directory) knows(did string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.cache.get(did, d.opts.Now())
	return ok
}

// Purge drops the cached answer for did and detaches lookups under way (invariant 4).
func (d *Directory) Purge(did string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cache.remove(did)
	delete(d.flights, did)
}

// Close closes idle connections. Lookups under way go on.
func (d *Directory) Close() { d.client.CloseIdleConnections() }

// join returns the answer in the cache (f is nil), or the flight for did. If there is no flight it
// makes one, which the caller leads.
func (d *Directory) join(did string) (a answer, f *flight, lead bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if a, ok := d.cache.get(did, d.opts.Now()); ok && !a.told {
		return a, nil, false
	}
	if f, ok := d.flights[did]; ok {
		return answer{}, f, false
	}
	f = &flight{done: make(chan struct{})}
	d.flights[did] = f
	return answer{}, f, true
}

// lookUp does the lookup of a flight and ends it, even if the lookup panics.
func (d *Directory) lookUp(ctx context.Context, did string, f *flight) {
	f.err = fmt.Errorf("resolve %s: lookup panicked", did)
	defer d.endFlight(did, f)
	f.ident, f.err = d.fetch(ctx, did)
	f.abandoned = f.err != nil && ctx.Err() != nil
}

// endFlight publishes the answer of a flight, and caches it unless a Purge detached the flight.
func (d *Directory) endFlight(did string, f *flight) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(f.done)
	if d.flights[did] != f {
		return
	}
	delete(d.flights, did)
	switch {
	case len(did) > cachedDIDMax:
	case f.err == nil:
		d.cache.put(did, f.answer, d.opts.Now().Add(d.opts.TTL))
	case errors.Is(f.err, ErrNotFound) || errors.Is(f.err, ErrInvalid):
		d.cache.put(did, f.answer, d.opts.Now().Add(d.opts.ErrorTTL))
	}
}

func (d *Directory) cacheLen() float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return float64(d.cache.len())
}
