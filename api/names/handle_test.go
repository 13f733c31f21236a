package names_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api/names"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"

	"golang.org/x/sync/errgroup"
)

const (
	alice = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	bob   = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
)

var client, other = netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32")

// world is a name server and a web server on loopback, which has all handles.
type world struct {
	*names.Resolver
	dns   map[string]*simnet.Name // by name; a name without an entry has the address of the web server
	web   map[string]http.HandlerFunc
	asked sync.Map // name → *atomic.Int64
	now   atomic.Int64
	port  string
}

func (w *world) count(what string) int64 {
	n, _ := w.asked.LoadOrStore(what, new(atomic.Int64))
	return n.(*atomic.Int64).Load()
}

func (w *world) note(what string) {
	n, _ := w.asked.LoadOrStore(what, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

func newWorld(t testing.TB, allowPrivate bool) *world {
	t.Helper()
	w := &world{dns: map[string]*simnet.Name{}, web: map[string]http.HandlerFunc{}}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.Host)
		w.note("web " + host)
		if h := w.web[host]; h != nil && r.URL.Path == "/.well-known/atproto-did" {
			h(rw, r)
			return
		}
		http.NotFound(rw, r)
	}))
	t.Cleanup(srv.Close)
	_, w.port, _ = net.SplitHostPort(srv.Listener.Addr().String())
	resolver := simnet.NameServer(func(name string) *simnet.Name {
		w.note("dns " + name)
		if n, ok := w.dns[name]; ok {
			return n
		}
		if strings.HasPrefix(name, "_atproto.") {
			return nil
		}
		return &simnet.Name{Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	})
	w.Resolver = newResolver(t, names.Options{AllowPrivate: allowPrivate, DNS: resolver,
		Now: func() time.Time { return time.Unix(1e9, w.now.Load()) }})
	w.At(func(handle string) string { return "http://" + handle + ":" + w.port })
	return w
}

func newResolver(t testing.TB, o names.Options) *names.Resolver {
	t.Helper()
	d, err := identity.New(identity.Options{PLC: []string{"http://127.0.0.1:1"}, AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	o.Directory = d
	r, err := names.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *world) pass(d time.Duration) { w.now.Add(int64(d)) }

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
}

// Each row is a handle of a world of its own, and what it leads to.
func TestHandle(t *testing.T) {
	t.Parallel()
	txt := func(texts ...string) *simnet.Name { return &simnet.Name{Texts: texts} }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	fails := &simnet.Name{Fails: true}
	long := "did:web:" + strings.Repeat("a.", 130) + "example"
	for name, row := range map[string]struct {
		dns  *simnet.Name // of _atproto.
		web  http.HandlerFunc
		want string // "": not found; "?": cannot be looked up now
	}{
		"by DNS":                   {dns: txt("did=" + alice), want: alice},
		"among other texts":        {dns: txt("v=spf1", "did="+alice, "x"), want: alice},
		"the same text twice":      {dns: txt("did="+alice, "did="+alice), want: alice},
		"two DIDs":                 {dns: txt("did="+alice, "did="+bob), web: says(alice)},
		"no DID in the text":       {dns: txt("did=alice"), web: says(alice)},
		"a DID too long":           {dns: txt("did=" + long)},
		"DNS comes first":          {dns: txt("did=" + alice), web: says(bob), want: alice},
		"by HTTP":                  {web: says(alice), want: alice},
		"a line end":               {web: says(alice + "\r\n"), want: alice},
		"the first line":           {web: says(alice + "\n" + bob), want: alice},
		"texts without did":        {dns: txt("v=spf1"), web: says(alice), want: alice},
		"nowhere":                  {},
		"a web page":               {web: says("<!doctype html>")},
		"a method without support": {web: says("did:key:zQ3sh")},
		"gone":                     {web: status(410)},
		"forbidden":                {web: status(403)},
		"host fails":               {web: status(503), want: "?"},
		"host is busy":             {web: status(429), want: "?"},
		"DNS fails, HTTP has it":   {dns: fails, web: says(alice), want: alice},
		"DNS fails, HTTP has not":  {dns: fails, want: "?"},
		"a body without end":       {web: says(alice + strings.Repeat(" ", names.BytesMax))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, true)
			if row.dns != nil {
				w.dns["_atproto.alice.example.com"] = row.dns
			}
			if row.web != nil {
				w.web["alice.example.com"] = row.web
			}
			did, err := w.Handle(t.Context(), client, "alice.example.com")
			switch {
			case row.want == "?" && (err == nil || errors.Is(err, names.ErrNotFound)):
				t.Errorf("got %q, %v, want a transient error", did, err)
			case row.want == "" && !errors.Is(err, names.ErrNotFound):
				t.Errorf("got %q, %v, want ErrNotFound", did, err)
			case row.want != "?" && did != row.want:
				t.Errorf("got %q, %v, want %q", did, err, row.want)
			}
		})
	}
}

// Names that cannot be public are looked up neither by DNS nor by HTTP (invariant 2).
func TestReservedNamesAreNotLookedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for _, handle := range []string{"a.local", "a.internal", "a.invalid", "a.onion", "a.localhost", "a.example", "a.alt", "1.arpa",
		"handle.invalid", "a.test", "printer.lan", "a.home", "a.corp", "a.b.intranet", "x.home.arpa"} {
		if did, err := w.Handle(t.Context(), client, handle); !errors.Is(err, names.ErrNotFound) {
			t.Errorf("%s: %q, %v", handle, did, err)
		}
	}
	w.asked.Range(func(what, _ any) bool { t.Errorf("asked: %v", what); return true })
}

// Search domains of the machine are not tried: every name is looked up with its final dot.
func TestNamesAreRooted(t *testing.T) {
	t.Parallel()
	var got []string
	dial := names.Rooted(func(_ context.Context, _, address string) (net.Conn, error) {
		got = append(got, address)
		return nil, errors.New("no")
	})
	for _, address := range []string{"alice.example.com:443", "alice.example.com.:443", "192.0.2.1:443", "[2001:db8::1]:443"} {
		_, _ = dial(t.Context(), "tcp", address)
	}
	want := []string{"alice.example.com.:443", "alice.example.com.:443", "192.0.2.1:443", "[2001:db8::1]:443"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v", got)
	}
}

// A host at an address that is not public is not connected to, directly or by a redirect, and what
// is at another port is not either (invariant 3).
func TestPrivateAddressesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	w.web["alice.example.com"] = says(alice)
	if did, err := w.Handle(t.Context(), client, "alice.example.com"); !errors.Is(err, names.ErrNotFound) || !errors.Is(err, identity.ErrPrivateAddress) {
		t.Errorf("got %q, %v", did, err)
	}
	for _, addr := range simnet.Private() {
		w.dns["away.example.org"] = &simnet.Name{Addrs: []netip.Addr{addr}}
		for _, to := range []string{"http://away.example.org/", "http://away.example.org:" + w.port + "/", "http://" + netip.AddrPortFrom(addr, 80).String() + "/"} {
			// The first host is public: its answer comes from a pipe.
			r := newWorld(t, false)
			r.dns["away.example.org"] = w.dns["away.example.org"]
			r.At(func(handle string) string { return "http://" + handle })
			dial := identity.Dialer(identity.TransportOptions{Resolver: simnet.NameServer(func(string) *simnet.Name { return r.dns["away.example.org"] })})
			r.Dial(func(ctx context.Context, network, address string) (net.Conn, error) {
				if strings.HasPrefix(address, "bob.example.com.") {
					return answers("HTTP/1.1 302 Found\r\nLocation: " + to + "\r\nContent-Length: 0\r\n\r\n"), nil
				}
				return dial(ctx, network, address)
			})
			did, err := r.Handle(t.Context(), client, "bob.example.com")
			if !errors.Is(err, names.ErrNotFound) && (err == nil || !strings.Contains(err.Error(), "cannot assign") && !strings.Contains(err.Error(), "unreachable") && !strings.Contains(err.Error(), "no suitable address")) {
				t.Errorf("%s: %q, %v", to, did, err)
			}
		}
	}
	if n := w.count("web alice.example.com") + w.count("web away.example.org"); n != 0 {
		t.Errorf("the host was asked %d times", n)
	}
}

// answers returns a connection to a server that answers one request with a text.
func answers(text string) net.Conn {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		buf := make([]byte, 4096)
		if _, err := far.Read(buf); err == nil {
			_, _ = far.Write([]byte(text))
		}
	}()
	return near
}

// Redirects are followed where they may be, and end.
func TestRedirects(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	to := func(host string) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "http://"+host+":"+w.port+"/.well-known/atproto-did", http.StatusFound)
		}
	}
	w.web["a.example.com"], w.web["b.example.com"] = to("b.example.com"), says(bob)
	if did, err := w.Handle(t.Context(), client, "a.example.com"); err != nil || did != bob {
		t.Errorf("one redirect: %q, %v", did, err)
	}
	w.web["loop.example.com"] = to("loop.example.com")
	if did, err := w.Handle(t.Context(), client, "loop.example.com"); !errors.Is(err, names.ErrNotFound) {
		t.Errorf("a loop: %q, %v", did, err)
	}
	if n := w.count("web loop.example.com"); n > 5 {
		t.Errorf("%d requests in a loop", n)
	}
	w.web["file.example.com"] = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Location", "ftp://x/")
		rw.WriteHeader(302)
	}
	if did, err := w.Handle(t.Context(), client, "file.example.com"); !errors.Is(err, names.ErrNotFound) {
		t.Errorf("another scheme: %q, %v", did, err)
	}
}

// Names that cannot be public are not looked up because a host redirects to them or a did:web has
// them (invariant 2).
func TestReservedHostsAreNotLookedUp(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"vault.internal", "VAULT.Internal.", "printer.lan", "intranet", "a.b.corp", "localhost"} {
		w := newWorld(t, false)
		w.At(func(handle string) string { return "https://" + handle })
		var dialed []string
		w.Dial(func(_ context.Context, _, address string) (net.Conn, error) {
			dialed = append(dialed, address)
			return nil, errors.New("no")
		})
		w.Answer("https://a.example.com/.well-known/atproto-did", "https://"+host+"/")
		if did, err := w.Handle(t.Context(), client, "a.example.com"); !errors.Is(err, names.ErrNotFound) {
			t.Errorf("redirect to %s: %q, %v", host, did, err)
		}
		if _, err := w.Identity(t.Context(), client, "did:web:"+host); !errors.Is(err, identity.ErrInvalid) {
			t.Errorf("did:web:%s: %v", host, err)
		}
		if len(dialed) > 0 {
			t.Errorf("%s: connects to %s", host, dialed)
		}
	}
}

// Answers are cached, each for its time.
func TestCache(t *testing.T) {
	t.Parallel()
	for kind, row := range map[string]struct {
		kept time.Duration
		web  http.HandlerFunc
	}{
		"found":   {names.FoundFor, says(alice)},
		"missing": {names.MissingFor, says("nothing")},
		"failed":  {names.FailedFor, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
	} {
		w := newWorld(t, true)
		w.web["a.example.com"] = row.web
		ask := func(want int64) {
			t.Helper()
			did, err := w.Handle(t.Context(), client, "a.example.com")
			if (did == alice) != (kind == "found") || (err == nil) != (kind == "found") || errors.Is(err, names.ErrNotFound) != (kind == "missing") {
				t.Errorf("%s: %q, %v", kind, did, err)
			}
			if n := w.count("web a.example.com"); n != want {
				t.Errorf("%s: asked %d times, want %d", kind, n, want)
			}
		}
		ask(1)
		w.pass(row.kept - time.Second)
		ask(1)
		w.pass(time.Second)
		ask(2)
	}
}

// One client cannot look up more than its rate, whatever it names, and leaves others theirs; what is
// in the cache costs nothing.
func TestRates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	ask := func(client netip.Prefix, i int) error {
		_, err := w.Handle(t.Context(), client, fmt.Sprintf("a.site%d.com", i))
		return err
	}
	for i := range names.ClientBurst {
		if err := ask(client, i); !errors.Is(err, names.ErrNotFound) {
			t.Fatalf("lookup %d: %v", i, err)
		}
	}
	if err := ask(client, 1000); !errors.Is(err, names.ErrLimited) {
		t.Errorf("beyond the burst: %v", err)
	}
	if err := ask(client, 1); !errors.Is(err, names.ErrNotFound) {
		t.Errorf("in the cache: %v", err)
	}
	if err := ask(other, 1001); !errors.Is(err, names.ErrNotFound) {
		t.Errorf("another client: %v", err)
	}
	w.pass(time.Second)
	for i := range names.ClientRate {
		if err := ask(client, 2000+i); !errors.Is(err, names.ErrNotFound) {
			t.Errorf("a second later: %v", err)
		}
	}
	if err := ask(client, 3000); !errors.Is(err, names.ErrLimited) {
		t.Errorf("beyond the rate: %v", err)
	}
}

// A DID that no host can have takes nothing of the rates, which remember the names of sites.
func TestLongDIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for i := range 2 * names.ClientBurst {
		did := fmt.Sprintf("did:web:a%d%s.com", i, strings.Repeat("a", 1000))
		if _, err := w.Identity(t.Context(), client, did); !errors.Is(err, identity.ErrInvalid) {
			t.Fatalf("lookup %d: %v", i, err)
		}
	}
}

// Names below one site are looked up at the rate of the site, however many clients there are.
func TestSiteRate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	limited := 0
	for i := range 2 * names.SiteBurst {
		client := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32)
		if _, err := w.Handle(t.Context(), client, fmt.Sprintf("a%d.victim.com", i)); errors.Is(err, names.ErrLimited) {
			limited++
		}
	}
	if limited != names.SiteBurst {
		t.Errorf("%d were limited", limited)
	}
}

// A host that does not answer costs its timeout once, and concurrent lookups share it.
func TestTimeout(t *testing.T) {
	resolver := simnet.NameServer(func(string) *simnet.Name { return nil })
	_, _ = resolver.LookupTXT(t.Context(), "example.com") // package net makes its channels outside the bubble
	synctest.Test(t, func(t *testing.T) {
		r := newResolver(t, names.Options{DNS: resolver})
		r.At(func(handle string) string { return "http://" + handle })
		var dialed atomic.Int64
		r.Dial(func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialed.Add(1)
			select { // the dialer has a timeout of its own, and outlives the request
			case <-ctx.Done():
			case <-time.After(2 * names.LookupTimeout):
			}
			return nil, errors.New("timed out")
		})
		defer time.Sleep(2 * names.LookupTimeout)
		start := time.Now()
		var g errgroup.Group
		for range 10 {
			g.Go(func() error {
				if _, err := r.Handle(t.Context(), client, "slow.example.com"); err == nil || errors.Is(err, names.ErrNotFound) {
					return fmt.Errorf("got %v, want a transient error", err)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != names.LookupTimeout || dialed.Load() != 1 {
			t.Errorf("it took %s, with %d connections", took, dialed.Load())
		}
		if _, err := r.Handle(t.Context(), client, "slow.example.com"); err == nil || time.Since(start) != names.LookupTimeout {
			t.Errorf("asked again: %v after %s", err, time.Since(start))
		}
	})
}

// A did:web at a host that does not answer takes no longer than a handle.
func TestIdentityTimeout(t *testing.T) {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case <-ctx.Done():
		case <-time.After(4 * names.LookupTimeout):
		}
		return nil, errors.New("timed out")
	}}
	_, _ = simnet.NameServer(func(string) *simnet.Name { return nil }).LookupHost(t.Context(), "example.com") // as in TestTimeout
	synctest.Test(t, func(t *testing.T) {
		d, err := identity.New(identity.Options{Resolver: resolver})
		if err != nil {
			t.Fatal(err)
		}
		r, err := names.New(names.Options{Directory: d})
		if err != nil {
			t.Fatal(err)
		}
		defer time.Sleep(20 * names.LookupTimeout)
		start := time.Now()
		_, err = r.Identity(t.Context(), client, "did:web:slow.example.com")
		if took := time.Since(start); err == nil || errors.Is(err, identity.ErrInvalid) || took != names.LookupTimeout {
			t.Errorf("%v after %s", err, took)
		}
	})
}

// Clients that name hosts which do not answer, each as many as it may, leave the others their
// turn.
func TestSlowHostsLeaveTurns(t *testing.T) {
	resolver := simnet.NameServer(func(string) *simnet.Name { return nil })
	_, _ = resolver.LookupTXT(t.Context(), "example.com") // package net makes its channels outside the bubble
	synctest.Test(t, func(t *testing.T) {
		r := newResolver(t, names.Options{DNS: resolver})
		r.At(func(handle string) string { return "http://" + handle })
		r.Dial(func(ctx context.Context, _, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "quick.") {
				return answers("HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n" + alice), nil
			}
			select { // the dialer has a timeout of its own, and outlives the request
			case <-ctx.Done():
			case <-time.After(2 * names.LookupTimeout):
			}
			return nil, errors.New("timed out")
		})
		defer time.Sleep(2 * names.LookupTimeout)
		var g errgroup.Group
		for c := range 6 {
			client := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + c)}), 32)
			for i := range names.ClientBurst {
				g.Go(func() error {
					_, err := r.Handle(t.Context(), client, fmt.Sprintf("a.slow%d-%d.com", c, i))
					if errors.Is(err, names.ErrLimited) {
						return fmt.Errorf("client %d, lookup %d: %w", c, i, err)
					}
					return nil
				})
			}
		}
		synctest.Wait()
		if did, err := r.Handle(t.Context(), client, "quick.example.com"); err != nil || did != alice {
			t.Errorf("another client: %q, %v", did, err)
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// A client that goes away leaves the lookup to the clients that share it.
func TestLeaderGoesAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	begun, end := make(chan struct{}), make(chan struct{})
	w.web["a.example.com"] = func(rw http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-end
		says(alice)(rw, nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	ask := func(ctx context.Context) func() error {
		return func() error {
			did, err := w.Handle(ctx, client, "a.example.com")
			if did != alice {
				return fmt.Errorf("got %q, %w", did, err)
			}
			return nil
		}
	}
	g.Go(ask(ctx))
	<-begun
	cancel()
	g.Go(ask(t.Context()))
	close(end)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// What a host sends has no part in the cache but a DID.
func TestCacheIsBrief(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	long := strings.Repeat("x", 30_000)
	w.web["a.example.com"] = func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "http://b.example.com:1/"+long, http.StatusFound) // where nothing listens
	}
	_, first := w.Handle(t.Context(), client, "a.example.com")
	_, again := w.Handle(t.Context(), client, "a.example.com")
	if first == nil || !strings.Contains(first.Error(), long) || again == nil || len(again.Error()) > 100 {
		t.Errorf("got %.200v, then %.200v", first, again)
	}
}

// The cache stays within its size.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	for i := range 300 {
		w.pass(time.Second)
		_, _ = w.Handle(t.Context(), client, fmt.Sprintf("a.site%d.com", i))
	}
	if n := w.Cached(); n != 300 || n > names.CacheMax {
		t.Errorf("%d in the cache", n)
	}
}
