package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/names"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// registry is a name server and a PLC directory.
type registry struct {
	mu      sync.Mutex
	handles map[string]string // TXT: handle → DID
	fails   map[string]bool   // names that the name server cannot answer
	docs    map[string]string // DID → handle that its document claims; "gone": tombstoned
	asked   int
	stands  bool // the clock of the resolver
}

func (g *registry) name(name string) *simnet.Name {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	if g.fails[name] {
		return &simnet.Name{Fails: true}
	}
	if did, ok := g.handles[strings.TrimPrefix(name, "_atproto.")]; ok && strings.HasPrefix(name, "_atproto.") {
		return &simnet.Name{Texts: []string{"did=" + did}}
	}
	return nil
}

func (g *registry) set(fn func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fn()
}

// ServeHTTP is the PLC directory.
func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	did := strings.TrimPrefix(r.URL.Path, "/")
	g.mu.Lock()
	handle, ok := g.docs[did]
	g.mu.Unlock()
	switch {
	case !ok:
		http.NotFound(w, r)
	case handle == "gone":
		w.WriteHeader(http.StatusGone)
	default:
		_, _ = fmt.Fprintf(w, `{"id":%q,"alsoKnownAs":[%q],"verificationMethod":[{"id":"%s#atproto","type":"Multikey","controller":%q,"publicKeyMultibase":%q}],`+
			`"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":"https://pds.test"}]}`, did, "at://"+handle, did, did, testKey)
	}
}

var testKey = func() string {
	key, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		panic(err)
	}
	pub, err := key.PublicKey()
	if err != nil {
		panic(err)
	}
	return pub.Multibase()
}()

// resolver returns what looks names up in the registry, by a clock that passes a second with each
// look, so that no rate applies unless the test wants it.
func (g *registry) resolver(t testing.TB) *names.Resolver {
	t.Helper()
	plc := httptest.NewServer(g)
	t.Cleanup(plc.Close)
	d, err := identity.New(identity.Options{PLC: []string{plc.URL}, AllowPrivate: true, Resolver: simnet.NameServer(g.name)})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	now := time.Unix(1e9, 0)
	r, err := names.New(names.Options{Directory: d, AllowPrivate: true, DNS: simnet.NameServer(g.name), Now: func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		if !g.stands {
			now = now.Add(time.Second)
		}
		return now
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newRegistry() *registry {
	return &registry{handles: map[string]string{}, fails: map[string]bool{}, docs: map[string]string{}}
}

// resolved makes a row one whose document was read.
func (w *world) resolved(t testing.TB, did, handle string) {
	t.Helper()
	w.update(t, did, func(_ *store.Batch, r *store.Repo) { r.Handle, r.Resolved = handle, 1 })
}

// A handle stands for its account wherever an at-identifier is wanted, if DNS and the document agree.
func TestHandlesAsParameters(t *testing.T) {
	t.Parallel()
	g := newRegistry()
	w := newWorld(t, api.Options{Names: g.resolver(t)})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.resolved(t, alice, "alice.example.com")
	w.hold(t, bob, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.resolved(t, bob, "bob.example.com")
	g.handles["alice.example.com"], g.handles["mallory.example.com"] = alice, alice
	for method, more := range map[string]url.Values{
		"com.atproto.repo.getRecord":    {"collection": {"app.test.a"}, "rkey": {"one"}},
		"com.atproto.repo.listRecords":  {"collection": {"app.test.a"}},
		"com.atproto.repo.describeRepo": {},
	} {
		ask := func(repo string) url.Values {
			q := url.Values{"repo": {repo}}
			for k, v := range more {
				q[k] = v
			}
			return q
		}
		var byDID, byHandle json.RawMessage
		w.get(t, method, ask(alice), &byDID)
		for _, handle := range []string{"alice.example.com", "Alice.Example.COM"} {
			if w.get(t, method, ask(handle), &byHandle); string(byDID) != string(byHandle) {
				t.Errorf("%s of %s: %s, by DID %s", method, handle, byHandle, byDID)
			}
		}
		w.refuses(t, method, ask("mallory.example.com"), 400, "HandleNotFound", "does not claim it") // DNS alone
		w.refuses(t, method, ask("bob.example.com"), 400, "HandleNotFound", "leads to no account")   // the document alone
		w.refuses(t, method, ask("x.internal"), 400, "HandleNotFound", "x.internal")
		w.refuses(t, method, ask("not a handle"), 400, "InvalidRequest", "neither a DID nor a handle")
		g.set(func() { g.fails["_atproto.fails.example.com"] = true })
		w.refuses(t, method, ask("fails.example.com"), 502, "UpstreamFailure", "fails.example.com")
	}
	var got struct {
		Handle          string
		HandleIsCorrect bool
	}
	if w.get(t, "com.atproto.repo.describeRepo", url.Values{"repo": {alice}}, &got); !got.HandleIsCorrect || got.Handle != "alice.example.com" {
		t.Errorf("alice: %+v", got)
	}
	if w.get(t, "com.atproto.repo.describeRepo", url.Values{"repo": {bob}}, &got); got.HandleIsCorrect || got.Handle != "bob.example.com" {
		t.Errorf("bob: %+v", got)
	}
	w.resolved(t, bob, "alice.example.com") // the handle of another
	if w.get(t, "com.atproto.repo.describeRepo", url.Values{"repo": {bob}}, &got); got.HandleIsCorrect {
		t.Errorf("bob as alice: %+v", got)
	}
	w.update(t, alice, func(b *store.Batch, r *store.Repo) { r.Status = store.StatusTakendown; b.Account(r) })
	w.refuses(t, "com.atproto.repo.describeRepo", url.Values{"repo": {"alice.example.com"}}, 400, "RepoTakendown", alice)
}

// Without a resolver nothing is looked up, and the answers say so.
func TestHandlesOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.refuses(t, "com.atproto.repo.describeRepo", url.Values{"repo": {"alice.test"}}, 400, "InvalidRequest", "handles are not looked up here")
	w.refuses(t, "com.atproto.identity.resolveHandle", url.Values{"handle": {"alice.test"}}, 400, "InvalidRequest", "handles are not looked up here")
	w.refuses(t, "com.atproto.identity.resolveDid", url.Values{"did": {carol}}, 400, "DidNotFound", "nothing is looked up")
	w.resolved(t, alice, "alice.test")
	var got struct {
		DID, Handle string
		DIDDoc      struct{ ID string }
	}
	if w.get(t, "com.atproto.identity.resolveIdentity", url.Values{"identifier": {alice}}, &got); got.DID != alice || got.Handle != "handle.invalid" || got.DIDDoc.ID != alice {
		t.Errorf("resolveIdentity: %+v", got)
	}
}

func TestIdentityMethods(t *testing.T) {
	t.Parallel()
	g := newRegistry()
	w := newWorld(t, api.Options{Names: g.resolver(t)})
	const prefix = "com.atproto.identity."
	gone, missing := storetest.DID(50), storetest.DID(51)
	g.handles["alice.example.com"], g.handles["other.example.com"], g.handles["lost.example.com"] = alice, alice, missing
	g.docs[alice], g.docs[bob], g.docs[gone] = "alice.example.com", "bob.example.com", "gone"
	// carol is held, and has changed its handle since the row was read.
	w.hold(t, carol, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.resolved(t, carol, "carol.example.com")
	g.handles["carol.example.com"] = carol

	type info struct {
		DID, Handle string
		DIDDoc      struct {
			ID          string
			AlsoKnownAs []string
		}
	}
	for _, c := range []struct{ identifier, did, handle, claims string }{
		{alice, alice, "alice.example.com", "alice.example.com"},
		{"alice.example.com", alice, "alice.example.com", "alice.example.com"},
		{"ALICE.example.com", alice, "alice.example.com", "alice.example.com"},
		{"other.example.com", alice, "alice.example.com", "alice.example.com"}, // leads to it, and is not its handle
		{bob, bob, "handle.invalid", "bob.example.com"},                        // claims what leads nowhere
		{carol, carol, "carol.example.com", "carol.example.com"},               // from the row
	} {
		var got info
		w.get(t, prefix+"resolveIdentity", url.Values{"identifier": {c.identifier}}, &got)
		if got.DID != c.did || got.Handle != c.handle || got.DIDDoc.ID != c.did || fmt.Sprint(got.DIDDoc.AlsoKnownAs) != "[at://"+c.claims+"]" {
			t.Errorf("resolveIdentity %s: %+v, want %+v", c.identifier, got, c)
		}
	}
	var doc info
	if w.get(t, prefix+"resolveDid", url.Values{"did": {bob}}, &doc); doc.DIDDoc.ID != bob {
		t.Errorf("resolveDid: %+v", doc)
	}
	var is struct{ DID string }
	if w.get(t, prefix+"resolveHandle", url.Values{"handle": {"other.example.com"}}, &is); is.DID != alice {
		t.Errorf("resolveHandle: %+v", is)
	}
	g.fails["_atproto.fails.example.com"] = true
	for _, c := range []struct {
		method, name, value string
		status              int
		error               string
	}{
		{"resolveHandle", "handle", "nowhere.example.com", 400, "HandleNotFound"},
		{"resolveHandle", "handle", "fails.example.com", 502, "UpstreamFailure"},
		{"resolveHandle", "handle", alice, 400, "InvalidRequest"},
		{"resolveHandle", "handle", "-", 400, "InvalidRequest"},
		{"resolveHandle", "handle", "", 400, "InvalidRequest"},
		{"resolveDid", "did", missing, 400, "DidNotFound"},
		{"resolveDid", "did", gone, 400, "DidDeactivated"},
		{"resolveDid", "did", "alice.example.com", 400, "InvalidRequest"},
		{"resolveIdentity", "identifier", missing, 400, "DidNotFound"},
		{"resolveIdentity", "identifier", gone, 400, "DidDeactivated"},
		{"resolveIdentity", "identifier", "lost.example.com", 400, "DidNotFound"},
		{"resolveIdentity", "identifier", "nowhere.example.com", 400, "HandleNotFound"},
		{"resolveIdentity", "identifier", "did:key:z", 400, "InvalidRequest"},
	} {
		w.refuses(t, prefix+c.method, url.Values{c.name: {c.value}}, c.status, c.error, "")
	}
}

// A client beyond its rate is refused, and not told that a handle is wrong which was not looked up.
func TestHandlesBeyondTheRate(t *testing.T) {
	t.Parallel()
	g := newRegistry()
	g.stands = true
	w := newWorld(t, api.Options{Names: g.resolver(t)})
	refused := 0
	for i := range 30 {
		did, handle := storetest.DID(100+i), fmt.Sprintf("a.site%d.com", i)
		g.set(func() { g.docs[did], g.handles[handle] = handle, did })
		var got struct{ Handle, Error string }
		q := url.Values{"identifier": {did}}
		res := call(t, "GET", w.public.URL+"/xrpc/com.atproto.identity.resolveIdentity?"+q.Encode(), "", nil, &got)
		switch {
		case res.StatusCode == http.StatusTooManyRequests && got.Error == "RateLimitExceeded":
			refused++
		case res.StatusCode != http.StatusOK || got.Handle != handle:
			t.Errorf("%s: %d %+v", handle, res.StatusCode, got)
		}
	}
	if refused == 0 {
		t.Error("no lookup was refused")
	}
}

// A name server that does not answer keeps no query from its turn.
func TestSlowLookupsHoldNoTurn(t *testing.T) {
	t.Parallel()
	g := newRegistry()
	var once sync.Once
	begun, end := make(chan struct{}), make(chan struct{})
	resolver := simnet.NameServer(func(name string) *simnet.Name {
		if strings.Contains(name, "slow") {
			once.Do(func() { close(begun) })
			<-end
		}
		return g.name(name)
	})
	d, err := identity.New(identity.Options{AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	r, err := names.New(names.Options{Directory: d, DNS: resolver})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, api.Options{Names: r})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.resolved(t, alice, "alice.slow.com")
	var wait sync.WaitGroup
	for range 12 { // each would take 4 of the 24 turns of one client
		wait.Go(func() {
			var got json.RawMessage
			w.get(t, "com.atproto.repo.describeRepo", url.Values{"repo": {alice}}, &got)
		})
	}
	<-begun
	var page listed
	w.get(t, "com.atproto.repo.listRecords", url.Values{"repo": {alice}, "collection": {"app.test.a"}}, &page)
	close(end)
	wait.Wait()
}
