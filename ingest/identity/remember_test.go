package identity_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/ingest/identity"
	"cistern/ingest/simnet"
)

func TestCachedAsksNobody(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 2})
	var c clock
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}, TTL: time.Hour, Now: c.now})
	did, missing := n.DIDs()[0], "did:plc:"+strings.Repeat("a", 24)
	if _, ok := d.Cached(did); ok {
		t.Error("cached before the first lookup")
	}
	want, err := d.Resolve(t.Context(), did)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := d.Cached(did); !ok || got != want {
		t.Errorf("%+v, %v after %+v was resolved", got, ok, want)
	}
	if _, err := d.Resolve(t.Context(), missing); !errors.Is(err, identity.ErrNotFound) {
		t.Fatal(err)
	}
	if got, ok := d.Cached(missing); ok {
		t.Errorf("%+v of a DID that does not exist", got)
	}
	c.advance(time.Hour)
	if _, ok := d.Cached(did); ok {
		t.Error("cached beyond the TTL")
	}
	if asked := n.PLCHost().Log().Requests["did"]; asked != 2 {
		t.Errorf("%d requests, want those of the two Resolves", asked)
	}
}

// hang serves documents that never come; asked is closed when the first was asked for.
func hang(t *testing.T) (url string, asked chan struct{}) {
	asked = make(chan struct{})
	var once sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		once.Do(func() { close(asked) })
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

// Cached, Remember and Purge do not wait for a lookup of the same DID that hangs.
func TestNothingWaitsForALookup(t *testing.T) {
	t.Parallel()
	url, asked := hang(t)
	d := newDirectory(t, identity.Options{PLC: []string{url}, Timeout: time.Second})
	row := identity.Identity{DID: auditDID, PDS: "https://pds.example", Key: newKeys(t, 1)[0]}
	var wg sync.WaitGroup
	returned := make(chan struct{})
	wg.Go(func() {
		defer close(returned)
		if _, err := d.Resolve(t.Context(), auditDID); err == nil {
			t.Error("resolved without an answer")
		}
	})
	<-asked
	if _, ok := d.Cached(auditDID); ok {
		t.Error("cached before the answer")
	}
	d.Remember(row, time.Now())
	if got, ok := d.Cached(auditDID); !ok || got.Key != row.Key {
		t.Errorf("%+v, %v of what was remembered during a lookup", got, ok)
	}
	d.Purge(auditDID)
	if _, ok := d.Cached(auditDID); ok {
		t.Error("cached after a purge")
	}
	select {
	case <-returned:
		t.Error("they waited for the lookup, which has ended")
	default:
	}
	wg.Wait()
}

func TestRemember(t *testing.T) {
	t.Parallel()
	var c clock
	keys := newKeys(t, 2)
	good := identity.Identity{DID: auditDID, Handle: "a.example", PDS: "https://pds.example", Key: keys[0]}
	change := func(f func(*identity.Identity)) identity.Identity {
		row := good
		f(&row)
		return row
	}
	parsed, err := identity.ParseKey(keys[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		why  string
		told identity.Identity
		age  time.Duration
		kept bool
		left time.Duration // how long it is kept
	}{
		{"read just now", good, 0, true, time.Hour},
		{"of the other curve", change(func(i *identity.Identity) { i.Key = keys[1] }), 0, true, time.Hour},
		{"with a parsed key", change(func(i *identity.Identity) { i.Key, i.PublicKey = keys[1], parsed }), 0, true, time.Hour},
		{"read a while ago", good, 59 * time.Minute, true, time.Minute},
		{"read as long ago as the TTL", good, time.Hour, false, 0},
		{"read in the future, by another clock", good, -time.Hour, true, time.Hour},
		{"no key", change(func(i *identity.Identity) { i.Key = "" }), 0, false, 0},
		{"no did:key", change(func(i *identity.Identity) { i.Key = strings.TrimPrefix(keys[0], "did:key:") }), 0, false, 0},
		{"a key without end", change(func(i *identity.Identity) { i.Key += strings.Repeat("z", 1000) }), 0, false, 0},
		{"no DID", change(func(i *identity.Identity) { i.DID = "" }), 0, false, 0},
		{"a DID too long for the cache", change(func(i *identity.Identity) { i.DID = "did:web:" + strings.Repeat("a", 300) }), 0, false, 0},
		{"no PDS", change(func(i *identity.Identity) { i.PDS = "" }), 0, false, 0},
	} {
		var c clock
		d := newDirectory(t, identity.Options{TTL: time.Hour, Now: c.now})
		d.Remember(row.told, c.now().Add(-row.age))
		got, ok := d.Cached(row.told.DID)
		if ok != row.kept {
			t.Errorf("%s: kept %v", row.why, ok)
		}
		if !row.kept {
			continue
		}
		if got.PublicKey == nil || got.PublicKey.DIDKey() != row.told.Key {
			t.Errorf("%s: parsed as %+v", row.why, got.PublicKey)
		}
		c.advance(row.left - 1)
		if _, ok := d.Cached(row.told.DID); !ok {
			t.Errorf("%s: gone before %s", row.why, row.left)
		}
		c.advance(1)
		if _, ok := d.Cached(row.told.DID); ok {
			t.Errorf("%s: still there after %s", row.why, row.left)
		}
	}
	d := newDirectory(t, identity.Options{Now: c.now, CacheSize: 1})
	d.Remember(good, c.now())
	d.Remember(change(func(i *identity.Identity) { i.Key = keys[1] }), c.now())
	if got, _ := d.Cached(good.DID); got.Key != keys[0] {
		t.Error("what was remembered first was replaced")
	}
	d.Remember(change(func(i *identity.Identity) { i.DID = "did:web:b.example" }), c.now())
	if _, ok := d.Cached(good.DID); ok {
		t.Error("the cache grew beyond its size")
	}
}

// A Resolve makes a request although an identity was remembered, also if that was after a Purge.
// Its answer replaces the remembered identity and is not replaced by it (invariants 4 and 7).
func TestResolveDoesNotTrustWhatWasRemembered(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1})
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}})
	a := n.Accounts()[0]
	old := identity.Identity{DID: a.DID(), Handle: "old.example", PDS: "https://old.example", Key: newKeys(t, 1)[0]}
	d.Purge(a.DID())
	d.Remember(old, time.Now()) // too late
	if got, ok := d.Cached(a.DID()); !ok || got.Key != old.Key {
		t.Fatalf("%+v, %v", got, ok)
	}
	if got, err := d.Resolve(t.Context(), a.DID()); err != nil || got.Key != a.Truth().Key {
		t.Errorf("%+v, %v", got, err)
	}
	d.Remember(old, time.Now())
	if got, ok := d.Cached(a.DID()); !ok || got.Key != a.Truth().Key {
		t.Errorf("%+v, %v", got, ok)
	}
	a.Tombstone()
	d.Purge(a.DID())
	if _, err := d.Resolve(t.Context(), a.DID()); !errors.Is(err, identity.ErrNotFound) {
		t.Fatal(err)
	}
	d.Remember(old, time.Now())
	if got, ok := d.Cached(a.DID()); ok {
		t.Errorf("%+v, though the cache holds a failure", got)
	}
}

// After concurrent calls of all methods, Resolve returns the current document.
func TestRememberAndPurgeRace(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 2})
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}, CacheSize: 1})
	key := newKeys(t, 1)[0]
	var wg sync.WaitGroup
	for _, a := range n.Accounts() {
		truth := a.Truth()
		for range 4 {
			wg.Go(func() {
				for range 50 {
					d.Remember(identity.Identity{DID: truth.DID, PDS: "https://old.example", Key: key}, time.Now())
					if got, ok := d.Cached(truth.DID); ok && (got.DID != truth.DID || got.PublicKey.DIDKey() != got.Key) {
						t.Errorf("cached %+v", got)
					}
					d.Purge(truth.DID)
					if got, err := d.Resolve(t.Context(), truth.DID); err != nil || got.Key != truth.Key {
						t.Errorf("%+v, %v", got, err)
					}
				}
			})
		}
	}
	wg.Wait()
}

func TestDialer(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{listener.Addr().String(), "localhost:" + port, "[::ffff:127.0.0.1]:" + port} {
		if conn, err := identity.Dialer(identity.TransportOptions{})(t.Context(), "tcp", address); !errors.Is(err, identity.ErrPrivateAddress) {
			t.Errorf("%s: %v, %v", address, conn, err)
		}
	}
	conn, err := identity.Dialer(identity.TransportOptions{AllowPrivate: true})(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkCached(b *testing.B) {
	d := newDirectory(b, identity.Options{})
	d.Remember(identity.Identity{DID: auditDID, PDS: "https://pds.example", Key: newKeys(b, 1)[0]}, time.Now())
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := d.Cached(auditDID); !ok {
			b.Fatal("not cached")
		}
	}
}
