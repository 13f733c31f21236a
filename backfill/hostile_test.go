package backfill_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// sections returns the offsets at which the sections of a CAR begin, and its end.
func sections(car []byte) []int {
	var out []int
	for at := 0; at < len(car); {
		out = append(out, at)
		n, size := binary.Uvarint(car[at:])
		at += size + int(n)
	}
	return append(out, len(car))
}

// TestDamagedCARs: a CAR that is cut at any block boundary, has a bit flipped in any block or lacks
// a block is rejected whole, and the repository is copied once its CAR arrives undamaged.
func TestDamagedCARs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 25}})
	did := w.Net.DIDs()[0]
	at := sections(w.Net.Account(did).CAR())
	damages := map[string]func(i int, car []byte) []byte{
		"cut":  func(i int, car []byte) []byte { return car[:at[i]] },
		"flip": func(i int, car []byte) []byte { car[(at[i]+at[i+1])/2] ^= 1; return car },
		"drop": func(i int, car []byte) []byte { return append(car[:at[i]], car[at[i+1]:]...) },
	}
	for name, damage := range damages {
		for i := range at[:len(at)-1] {
			in := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Mutated, Mutate: func(car []byte) []byte { return damage(i, car) }})
			w.Add(did)
			w.Settle(did)
			if r := w.Row(did); r.State != store.StateResync || r.Ordinal != 0 || r.Retry.Kind != store.Generic && r.Retry.Kind != store.Transport {
				t.Fatalf("%s at section %d: %+v", name, i, r)
			}
			in.Clear()
			w.Clock.Advance(10 * time.Minute) // a body that ends early parks its host
		}
	}
	if n := w.Store.Counts()["records"]; n != 0 {
		t.Errorf("%d records stored", n)
	}
	w.Add(did)
	w.Settle(did)
	w.Equal(did)
}

// TestDirectoryOutage: while no DID can be resolved, repositories wait instead of failing one by
// one.
func TestDirectoryOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for _, f := range []simnet.Fault{{Kind: simnet.ServerError}, {Kind: simnet.RateLimited, RetryAfter: 30 * time.Second}} {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 200, RecordsMedian: 3}, runner: backfill.Options{Concurrency: 8}})
		w.Net.PLCHost().Inject(f)
		w.Add(w.Net.DIDs()...)
		w.Until("the first failures", func() bool { return w.Store.Counts()["resync"] > 0 })
		w.looked()
		if c := w.Store.Counts(); c["resync"] > 16 {
			t.Errorf("%v: %d repositories burnt an attempt", f.Kind, c["resync"])
		}
		w.Net.PLCHost().ClearFaults()
		w.Until("all to be synced", func() bool {
			w.Clock.Advance(time.Minute)
			w.Run.Wake()
			time.Sleep(10 * time.Millisecond)
			return w.Store.Counts()["synced"] == 200
		})
		w.Stop()
	}
}

// slowWeb is a directory whose did:web lookups hang.
type slowWeb struct{ backfill.Directory }

// Resolve waits for a did:web until ctx ends.
func (d slowWeb) Resolve(ctx context.Context, did string) (identity.Identity, error) {
	if !strings.HasPrefix(did, "did:web:") {
		return d.Directory.Resolve(ctx, did)
	}
	<-ctx.Done()
	return identity.Identity{}, ctx.Err()
}

// TestStrangers: names of hosts cost nothing. A hundred that hang, first in the queue, must not
// keep a host waiting that has answered before.
func TestStrangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 50, RecordsMedian: 3}})
	w.Stop()
	r, err := backfill.New(backfill.Options{Store: w.Store, Directory: slowWeb{w.Dir}, AllowPrivate: true, Now: w.Clock.Now, Concurrency: 8})
	if err != nil {
		t.Fatal(err)
	}
	w.Run = r
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	g.Go(func() error { return w.Store.Run(ctx) })
	defer func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	dids := w.Net.DIDs()
	w.Add(dids[0])
	w.Settle(dids[0])
	for i := range 100 {
		w.Add(fmt.Sprintf("did:web:h%d.evil.example", i))
	}
	w.Add(dids[1:]...)
	w.Settle(dids...)
	for _, did := range dids {
		w.Equal(did)
	}
}

// TestWeb copies a did:web whose document and repository are with different hosts.
func TestWeb(t *testing.T) {
	t.Parallel()
	net, err := simnet.New(simnet.Options{Seed: 1, Hosts: 1, Repos: 1})
	if err != nil {
		t.Fatal(err)
	}
	a := net.Accounts()[0]
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(a.CAR()) }))
	defer host.Close()
	s := storetest.Open(t, store.Options{GroupAge: time.Millisecond})
	const did = "did:web:somebody.example"
	r, err := backfill.New(backfill.Options{Store: s, AllowPrivate: true, Directory: backfilltest.Directory{did: {DID: did, PDS: host.URL}}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{&backfilltest.World{T: t, Store: s, Run: r}}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	w.Add(did)
	w.Settle(did)
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	// The rejected commit of another DID shows that the request reached the right host.
	row := w.Row(did)
	if h, known := s.HostByID(row.Pending.Host); !known || "http://"+h.Name != host.URL || !strings.Contains(row.Retry.Error, "the commit is of") {
		t.Errorf("%+v at %q", row.Retry, h.Name)
	}
}

// TestEncodings: compressed answers are decoded, both errors and repositories.
func TestEncodings(t *testing.T) {
	t.Parallel()
	net, err := simnet.New(simnet.Options{Seed: 1, Hosts: 1, Repos: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := net.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer net.Close()
	real, err := identity.New(identity.Options{PLC: []string{net.PLC()}, AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	here, gone := net.Accounts()[0], net.Accounts()[1]
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("did") == gone.DID() {
			w.Header().Set("Content-Encoding", "gzip")
			w.WriteHeader(http.StatusBadRequest)
			z := gzip.NewWriter(w)
			fmt.Fprint(z, `{"error":"RepoTakendown","message":"gone"}`)
			z.Close()
			return
		}
		w.Header().Set("Content-Encoding", "zstd")
		z, _ := zstd.NewWriter(w)
		z.Write(here.CAR())
		z.Close()
	}))
	defer host.Close()
	dir := backfilltest.Directory{}
	for _, a := range net.Accounts() {
		ident, err := real.Resolve(t.Context(), a.DID())
		if err != nil {
			t.Fatal(err)
		}
		ident.PDS = host.URL
		dir[a.DID()] = ident
	}
	s := storetest.Open(t, store.Options{})
	r, err := backfill.New(backfill.Options{Store: s, AllowPrivate: true, Directory: dir})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{&backfilltest.World{T: t, Store: s, Run: r}}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	w.Add(here.DID(), gone.DID())
	w.Settle(here.DID(), gone.DID())
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if r := w.Row(here.DID()); r.State != store.StateSynced {
		t.Errorf("zstd: %v %+v", r.State, r.Retry)
	}
	if r := w.Row(gone.DID()); r.State != store.StateGone || r.Status != store.StatusTakendown {
		t.Errorf("gzip: %v %v %+v", r.State, r.Status, r.Retry)
	}
}

// TestShared: one large block under many keys is small to send, but large to store and to read
// again and again. It is rejected, as a first copy and as a difference.
func TestShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 5}})
	dids := w.Net.DIDs()
	w.Add(dids[0])
	w.Settle(dids[0])
	w.Equal(dids[0])
	blocks := w.Store.Counts()["blocks"]
	for i, did := range dids {
		large := append([]byte{0x5a, 0, 8, 0, 0}, make([]byte, 512<<10)...)
		for n := range 100 {
			path := fmt.Sprintf("app.test.same/%d", n)
			if _, err := w.Net.Account(did).Commit(simnet.Write{Path: path, Record: large}); err != nil {
				t.Fatal(err)
			}
		}
		w.Add(did)
		w.Settle(did)
		if r := w.Row(did); r.State != store.StateResync || r.Retry.Kind != store.Generic || (r.Ordinal == 0) != (i == 1) {
			t.Errorf("%s: %+v", did, r)
		}
	}
	if n := w.Store.Counts()["blocks"]; n != blocks {
		t.Errorf("%d blocks stored, there were %d", n, blocks)
	}
}

// FuzzAskedWait: any pause that a host asks for is clamped.
func FuzzAskedWait(f *testing.F) {
	for _, v := range []string{"", "0", "30", "-1", "1800000060", "99999999999999999999", "Fri, 20 Nov 2026 22:45:52 GMT", "1e9"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		for _, name := range []string{"Retry-After", "Ratelimit-Reset"} {
			d := pace.AskedWait(http.Header{name: {v}}, time.Unix(1_800_000_000, 0))
			if d != 0 && (d < time.Second || d > time.Hour) {
				t.Errorf("%s %q: %s", name, v, d)
			}
		}
	})
}

// TestCollections: each collection costs a row in one batch, so they are limited.
func TestCollections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 5}})
	did := w.Net.DIDs()[0]
	writes := make([]simnet.Write, 10_001)
	for i := range writes {
		writes[i] = simnet.Write{Path: fmt.Sprintf("app.test.a%05d/1", i), Record: []byte{0xa0}}
	}
	for _, n := range []int{9000, len(writes)} {
		if _, err := w.Net.Account(did).Commit(writes[:n]...); err != nil {
			t.Fatal(err)
		}
		w.Add(did)
		w.Settle(did)
		r := w.Row(did)
		if (r.State == store.StateSynced) != (n == 9000) {
			t.Errorf("%d collections: %v %+v", n, r.State, r.Retry)
		}
		if all, err := w.Store.Collections(&r); err != nil || len(all) > 9100 {
			t.Errorf("%d collections stored of %d, %v", len(all), n, err)
		}
	}
}

// TestHiddenKeys: keys that name no record are kept, but their number is bounded, since lists skip
// them.
func TestHiddenKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 5}})
	did := w.Net.DIDs()[0]
	writes := make([]simnet.Write, 100_001)
	for i := range writes {
		writes[i] = simnet.Write{Path: fmt.Sprintf("app.test.a/%06d=", i), Record: []byte{0xa0}}
	}
	for _, n := range []int{1000, len(writes)} {
		if _, err := w.Net.Account(did).Commit(writes[:n]...); err != nil {
			t.Fatal(err)
		}
		w.Add(did)
		w.Settle(did)
		if r := w.Row(did); (r.State == store.StateSynced) != (n == 1000) {
			t.Errorf("%d hidden keys: %v %+v", n, r.State, r.Retry)
		}
	}
}
