package identity_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"cistern/ingest/identity"
	"cistern/ingest/simnet"
)

func startNetwork(t testing.TB, opts simnet.Options) *simnet.Network {
	t.Helper()
	opts.RecordsMedian = 1
	n, err := simnet.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func newDirectory(t testing.TB, opts identity.Options) *identity.Directory {
	t.Helper()
	opts.AllowPrivate = true
	d, err := identity.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// clock is a clock that tests move.
type clock struct{ nanos atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1_700_000_000, c.nanos.Load()) }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

func TestResolveAgreesWithTheNetwork(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 8, P256Every: 2, LegacyEvery: 3})
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC() + "/"}})
	for _, a := range n.Accounts() {
		got, err := d.Resolve(t.Context(), a.DID())
		if err != nil {
			t.Fatal(err)
		}
		truth := a.Truth()
		if got.PublicKey.DIDKey() != got.Key {
			t.Errorf("%s: parsed key and text differ", a.DID())
		}
		got.PublicKey = nil
		want := identity.Identity{DID: truth.DID, Handle: truth.Handle, PDS: truth.Host, Key: truth.Key}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestCacheExpiresAndPurges(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 4})
	var c clock
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}, TTL: time.Hour, ErrorTTL: time.Minute, CacheSize: 2, Now: c.now})
	dids := n.DIDs()
	missing := "did:plc:" + strings.Repeat("a", 24)
	var asked int
	for i, step := range []struct {
		did   string
		after time.Duration
		purge bool
		asks  int // how many requests the PLC directory sees for it
		why   string
	}{
		{dids[0], 0, false, 1, "cold"},
		{dids[0], 59 * time.Minute, false, 0, "fresh"},
		{dids[0], time.Minute, false, 1, "expired"},
		{dids[0], 0, true, 1, "purged"},
		{missing, 0, false, 1, "cold, not found"},
		{missing, 59 * time.Second, false, 0, "not found is remembered"},
		{missing, time.Second, false, 1, "and forgotten"},
		{dids[0], 0, false, 0, "still there"},
		{dids[1], 0, false, 1, "pushes out the least recently used"},
		{dids[0], 0, false, 0, "which this is not"},
		{missing, 0, false, 1, "but this is"},
	} {
		c.advance(step.after)
		if step.purge {
			d.Purge(step.did)
		}
		_, err := d.Resolve(t.Context(), step.did)
		if (step.did == missing) != errors.Is(err, identity.ErrNotFound) {
			t.Errorf("step %d: %v", i, err)
		}
		now := n.PLCHost().Log().Requests["did"]
		if now-asked != step.asks {
			t.Errorf("step %d (%s): %d requests, want %d", i, step.why, now-asked, step.asks)
		}
		asked = now
	}
}

func TestRotatedKeyIsSeenAfterPurge(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1, Hosts: 2})
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}})
	a := n.Accounts()[0]
	before, err := d.Resolve(t.Context(), a.DID())
	if err != nil {
		t.Fatal(err)
	}
	a.RotateKey()
	a.Migrate(n.Host(1))
	d.Purge(a.DID())
	after, err := d.Resolve(t.Context(), a.DID())
	if err != nil || after.Key == before.Key || after.PDS != n.Host(1).URL() {
		t.Errorf("after purge: %+v, %v", after, err)
	}
}

func TestPurgeDetachesLookupsUnderWay(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1})
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}})
	a := n.Accounts()[0]
	slow := n.PLCHost().Inject(simnet.Fault{Kind: simnet.Latency, Delay: 50 * time.Millisecond, Count: 1})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := d.Resolve(t.Context(), a.DID()); err != nil {
			t.Error(err)
		}
	})
	waitFor(t, func() bool { return slow.Fired() == 1 })
	d.Purge(a.DID())
	if _, err := d.Resolve(t.Context(), a.DID()); err != nil { // asks anew rather than joining
		t.Error(err)
	}
	wg.Wait()
	if asked := n.PLCHost().Log().Requests["did"]; asked != 2 {
		t.Errorf("%d requests, want 2", asked)
	}
}

// TestPurgedLookupIsNotKept: what a lookup brings that was under way at a Purge goes to its caller,
// and not into the cache (invariant 4).
func TestPurgedLookupIsNotKept(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1})
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}})
	did := n.DIDs()[0]
	slow := n.PLCHost().Inject(simnet.Fault{Kind: simnet.Latency, Delay: 50 * time.Millisecond, Count: 1})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := d.Resolve(t.Context(), did); err != nil {
			t.Error(err)
		}
	})
	waitFor(t, func() bool { return slow.Fired() == 1 })
	d.Purge(did)
	wg.Wait()
	if ident, ok := d.Cached(did); ok {
		t.Errorf("the cache holds %+v", ident)
	}
}

func TestLookupsOfOneDIDShareARequest(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1})
	reg := prometheus.NewRegistry()
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}, Registerer: reg})
	did := n.DIDs()[0]
	slow := n.PLCHost().Inject(simnet.Fault{Kind: simnet.Latency, Delay: 100 * time.Millisecond})
	leading, giveUp := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := d.Resolve(leading, did); !errors.Is(err, context.Canceled) {
			t.Errorf("leader: %v", err)
		}
	})
	waitFor(t, func() bool { return slow.Fired() == 1 })
	for range 5 {
		wg.Go(func() {
			if _, err := d.Resolve(t.Context(), did); err != nil {
				t.Errorf("follower: %v", err)
			}
		})
	}
	time.Sleep(10 * time.Millisecond) // let them join; if they are late, they take over all the same
	giveUp()
	wg.Wait()
	if asked := n.PLCHost().Log().Requests["did"]; asked != 2 {
		t.Errorf("%d requests, want the leader's and that of the one that took over", asked)
	}
	if ok, failed := fetches(t, reg, "plc", "ok"), fetches(t, reg, "plc", "error"); ok != 1 || failed != 1 {
		t.Errorf("metrics count %v fetches and %v failures", ok, failed)
	}
}

// fetches reads cistern_identity_fetches_total of a method.
func fetches(t testing.TB, reg prometheus.Gatherer, method, outcome string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "cistern_identity_fetches_total" && m.GetLabel()[0].GetValue() == method && m.GetLabel()[1].GetValue() == outcome {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestFallbackBetweenDirectories(t *testing.T) {
	t.Parallel()
	one, two := startNetwork(t, simnet.Options{Repos: 1}), startNetwork(t, simnet.Options{Repos: 1})
	did := one.DIDs()[0] // the same account in both
	unknown := "did:plc:" + strings.Repeat("b", 24)
	for _, row := range []struct {
		why          string
		did          string
		first        simnet.Fault
		second       simnet.Fault
		want         error
		asks1, asks2 int
	}{
		{"429 goes on to the next", did, simnet.Fault{Kind: simnet.RateLimited}, simnet.Fault{}, nil, 1, 1},
		{"5xx goes on", did, simnet.Fault{Kind: simnet.ServerError}, simnet.Fault{}, nil, 1, 1},
		{"a directory that hangs leaves time for the next", did, simnet.Fault{Kind: simnet.Hang}, simnet.Fault{}, nil, 1, 1},
		{"redirects end", did, simnet.Fault{Kind: simnet.RedirectLoop}, simnet.Fault{}, nil, 4, 1},
		{"a bomb is cut off", did, simnet.Fault{Kind: simnet.GzipBomb, Bytes: 1 << 40}, simnet.Fault{}, nil, 1, 1},
		{"not found by all", unknown, simnet.Fault{}, simnet.Fault{}, identity.ErrNotFound, 1, 1},
		{"not found by one, unknown by the other", unknown, simnet.Fault{}, simnet.Fault{Kind: simnet.ServerError}, errTransient, 1, 1},
		{"all limited", did, simnet.Fault{Kind: simnet.RateLimited}, simnet.Fault{Kind: simnet.RateLimited}, identity.ErrRateLimited, 1, 1},
		{"one limited, one broken", did, simnet.Fault{Kind: simnet.RateLimited}, simnet.Fault{Kind: simnet.ServerError}, errTransient, 1, 1},
	} {
		d := newDirectory(t, identity.Options{PLC: []string{one.PLC(), two.PLC()}, Timeout: time.Second})
		for _, side := range []struct {
			host  *simnet.Host
			fault simnet.Fault
		}{{one.PLCHost(), row.first}, {two.PLCHost(), row.second}} {
			side.host.ResetLog()
			side.host.ClearFaults()
			if side.fault.Kind != 0 {
				side.host.Inject(side.fault)
			}
		}
		_, err := d.Resolve(t.Context(), row.did)
		if !isClass(err, row.want) {
			t.Errorf("%s: %v, want %v", row.why, err, row.want)
		}
		if a, b := one.PLCHost().Log().Requests["did"], two.PLCHost().Log().Requests["did"]; a != row.asks1 || b != row.asks2 {
			t.Errorf("%s: %d and %d requests", row.why, a, b)
		}
	}
}

// errTransient stands for any unclassified error.
var errTransient = errors.New("transient")

func isClass(err, want error) bool {
	if want != errTransient {
		return errors.Is(err, want)
	}
	for _, class := range []error{identity.ErrNotFound, identity.ErrInvalid, identity.ErrRateLimited} {
		if errors.Is(err, class) {
			return false
		}
	}
	return err != nil
}

func TestRateLimitedDirectoryIsLeftAlone(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1})
	var c clock
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}, Now: c.now})
	limit := n.PLCHost().Inject(simnet.Fault{Kind: simnet.RateLimited, RetryAfter: 30 * time.Second, Count: 1})
	for i, step := range []struct {
		after time.Duration
		wait  time.Duration // 0: resolved
	}{{0, 30 * time.Second}, {10 * time.Second, 20 * time.Second}, {20 * time.Second, 0}} {
		c.advance(step.after)
		_, err := d.Resolve(t.Context(), n.DIDs()[0])
		var limited *identity.RateLimitError
		if errors.As(err, &limited) != (step.wait > 0) {
			t.Fatalf("step %d: %v", i, err)
		}
		if limited != nil && limited.Until.Sub(c.now()) != step.wait {
			t.Errorf("step %d: until %s, want in %s", i, limited.Until, step.wait)
		}
	}
	if asked := n.PLCHost().Log().Requests["did"]; asked != 2 || limit.Fired() != 1 {
		t.Errorf("%d requests, %d limited", asked, limit.Fired())
	}
}

// A hostile header does not stop lookups for long.
func TestRateLimitIsClamped(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1})
	var c clock
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}, Now: c.now})
	n.PLCHost().Inject(simnet.Fault{Kind: simnet.RateLimited, RetryAfter: 1000 * time.Hour, Count: 1})
	var limited *identity.RateLimitError
	if _, err := d.Resolve(t.Context(), n.DIDs()[0]); !errors.As(err, &limited) || limited.Until.Sub(c.now()) != 5*time.Minute {
		t.Errorf("%v, want five minutes", err)
	}
	c.advance(5 * time.Minute)
	if _, err := d.Resolve(t.Context(), n.DIDs()[0]); err != nil {
		t.Error(err)
	}
}

// A redirect may lead anywhere that a connection may go to, but not from https to plain text, at no step, and not for long.
func TestRedirects(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		hops    string // by scheme
		refused bool
	}{
		{"https https", false},
		{"http http", false},
		{"http https", false},
		{"https http", true},
		{"http https http", true}, // what became secret stays so
		{"https https http", true},
		{"https ftp", true},
		{"http file", true},
		{"https https https https", false},
		{"https https https https https", true}, // redirectsMax
	} {
		var hops []*http.Request
		for scheme := range strings.FieldsSeq(row.hops) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://plc.example/did", nil)
			if err != nil {
				t.Fatal(err)
			}
			hops = append(hops, req)
		}
		last := len(hops) - 1
		if err := identity.CheckRedirect(hops[last], hops[:last]); (err != nil) != row.refused {
			t.Errorf("%s: %v", row.hops, err)
		}
	}
}

// serveDocument is a PLC directory that answers everything with one body.
func serveDocument(t testing.TB, body string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, body) }))
	t.Cleanup(server.Close)
	return server.URL
}

func TestUnusableDocuments(t *testing.T) {
	t.Parallel()
	const did = "did:plc:cccccccccccccccccccccccc"
	const key = `"verificationMethod":[{"id":"` + did + `#atproto","type":"Multikey","controller":"` + did +
		`","publicKeyMultibase":"zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF"}]`
	pds := func(url string) string {
		return `"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":"` + url + `"}]`
	}
	doc := func(parts ...string) string { return `{"id":"` + did + `",` + strings.Join(parts, ",") + "}" }
	for _, row := range []struct {
		body string
		want error  // nil: usable
		pds  string // if usable
	}{
		{doc(key, pds("https://Host.Example:443/")), nil, "https://host.example"}, // one spelling per host
		{doc(key, pds("http://[::ABCD]:81")), nil, "http://[::abcd]:81"},
		{doc(key, pds("http://a.example:80"), `"alsoKnownAs":["at://!!","https://x","at://Ok.Example"]`), nil, "http://a.example"},
		{doc(key, pds("https://host.example.:0444")), nil, "https://host.example:444"},
		{doc(key), identity.ErrNoPDS, ""},
		{doc(key, pds("https://[fe80::1%25eth0]")), identity.ErrNoPDS, ""},
		{doc(key, pds("https://höst.example")), identity.ErrNoPDS, ""}, // names are sent as punycode
		{doc(key, pds("https://host.example:99999")), identity.ErrNoPDS, ""},
		{doc(key, pds("https://host.example:")), identity.ErrNoPDS, ""},
		{doc(key, pds("https://host.example:0")), identity.ErrNoPDS, ""},
		{doc(key, pds("ftp://host.example")), identity.ErrNoPDS, ""},
		{doc(key, pds("https://user@host.example")), identity.ErrNoPDS, ""},
		{doc(key, pds("https://host.example/path")), identity.ErrNoPDS, ""},
		{doc(key, pds("https://host.example?q")), identity.ErrNoPDS, ""},
		{doc(key, pds("https://")), identity.ErrNoPDS, ""},
		{doc(key, pds("host.example")), identity.ErrNoPDS, ""},
		{doc(pds("https://host.example")), identity.ErrNoKey, ""},
		{doc(strings.Replace(key, "Multikey", "Ed25519VerificationKey2020", 1), pds("https://host.example")), identity.ErrNoKey, ""},
		{doc(strings.Replace(key, "zQ3sh", "zzzzz", 1), pds("https://host.example")), identity.ErrNoKey, ""},
		{strings.Replace(doc(key, pds("https://host.example")), did, "did:plc:dddddddddddddddddddddddd", 1), identity.ErrInvalid, ""}, // someone else's
		{strings.ReplaceAll(doc(key, pds("https://host.example")), did, "did:plc:dddddddddddddddddddddddd"), identity.ErrInvalid, ""}, // and usable to him
		{strings.Replace(doc(key, pds("https://host.example")), did, "", 1), identity.ErrInvalid, ""},
		{"[]", identity.ErrInvalid, ""},
		{"null", identity.ErrInvalid, ""},
		{strings.Repeat(" ", 64<<10) + doc(key, pds("https://host.example")), identity.ErrInvalid, ""}, // over BodyMax
	} {
		d := newDirectory(t, identity.Options{PLC: []string{serveDocument(t, row.body)}})
		got, err := d.Resolve(t.Context(), did)
		if !errors.Is(err, row.want) || (err != nil && !errors.Is(err, identity.ErrInvalid)) {
			t.Errorf("%.300s: %v, want %v", strings.TrimSpace(row.body), err, row.want)
		}
		if err == nil && got.PDS != row.pds {
			t.Errorf("PDS %q, want %q", got.PDS, row.pds)
		}
		if err == nil && strings.Contains(row.body, "alsoKnownAs") && got.Handle != "ok.example" {
			t.Errorf("handle %q", got.Handle)
		}
	}
}

// DIDs too long to be resolved are refused, not kept: 50,000 of 2 KiB each would be 100 MB and more.
func TestLongDIDsAreNotCached(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	d := newDirectory(t, identity.Options{PLC: []string{"http://127.0.0.1:1"}, Registerer: reg})
	for _, did := range []string{"did:web:" + strings.Repeat("a", 2000) + ".example", "did:plc:" + strings.Repeat("a", 300), strings.Repeat("x", 5000), "did:web:10.0.0.1"} {
		if _, err := d.Resolve(t.Context(), did); !errors.Is(err, identity.ErrInvalid) {
			t.Errorf("%.40s: %v", did, err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "cistern_identity_cache_entries" {
			if n := f.GetMetric()[0].GetGauge().GetValue(); n != 1 { // the last
				t.Errorf("%v answers are kept, want 1", n)
			}
			return
		}
	}
	t.Error("there is no gauge of the cache")
}

func TestUnusableDIDsAskNobody(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1})
	d, err := identity.New(identity.Options{}) // https only, public only
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	local := newDirectory(t, identity.Options{PLC: []string{n.PLC()}})
	for _, did := range []string{
		"", "did:plc", "did:plc:short", "did:plc:" + strings.Repeat("A", 24), "did:plc:" + strings.Repeat("a", 25),
		"did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF", "did:web:host.example%3A8080", "did:web:host.example:user",
		"did:web:10.0.0.1", "did:web:" + strings.Repeat("a", 3000), "at://x", "did:plc:" + strings.Repeat("/", 24),
	} {
		if _, err := local.Resolve(t.Context(), did); !errors.Is(err, identity.ErrInvalid) {
			t.Errorf("%.60q: %v", did, err)
		}
	}
	if asked := len(n.PLCHost().Log().Requests); asked != 0 {
		t.Errorf("%d requests", asked)
	}
	for _, did := range []string{"did:web:localhost", "did:web:localhost%3A80", "did:web:router.local", "did:web:x.internal"} {
		if _, err := d.Resolve(t.Context(), did); !errors.Is(err, identity.ErrInvalid) {
			t.Errorf("%s without AllowPrivate: %v", did, err)
		}
	}
}

func TestResolveWebOnLocalhost(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1})
	truth := n.Accounts()[0].Truth()
	var did string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/did.json" {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		fmt.Fprintf(w, `{"id":%q,"verificationMethod":[{"id":"%s#atproto","type":"Multikey","controller":%q,"publicKeyMultibase":%q}],
			"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":%q}]}`, did, did, did, strings.TrimPrefix(truth.Key, "did:key:"), truth.Host)
	}))
	defer server.Close()
	did = "did:web:localhost%3A" + server.URL[strings.LastIndex(server.URL, ":")+1:]
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}})
	got, err := d.Resolve(t.Context(), did)
	if err != nil || got.DID != did || got.Key != truth.Key || got.PDS != truth.Host || got.Handle != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for _, opts := range []identity.Options{
		{PLC: []string{"plc.directory"}},
		{PLC: []string{"ftp://plc.directory"}},
		{PLC: []string{"https://plc.directory?x"}},
		{PLC: []string{"http://127.0.0.1:2582"}}, // private, and not allowed
		{PLC: []string{"http://localhost:2582"}},
		{Timeout: -1},
		{CacheSize: -1},
	} {
		if _, err := identity.New(opts); err == nil {
			t.Errorf("%+v was accepted", opts)
		}
	}
}

func waitFor(t testing.TB, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !met(); {
		if time.Now().After(deadline) {
			t.Fatal("condition never met")
		}
		time.Sleep(time.Millisecond)
	}
}

func BenchmarkResolveCold(b *testing.B) {
	n := startNetwork(b, simnet.Options{Repos: 1})
	did := n.DIDs()[0]
	d := newDirectory(b, identity.Options{PLC: []string{n.PLC()}})
	b.ReportAllocs()
	for b.Loop() {
		d.Purge(did)
		if _, err := d.Resolve(b.Context(), did); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResolveCached(b *testing.B) {
	n := startNetwork(b, simnet.Options{Repos: 1})
	did := n.DIDs()[0]
	d := newDirectory(b, identity.Options{PLC: []string{n.PLC()}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Resolve(b.Context(), did); err != nil {
			b.Fatal(err)
		}
	}
}
