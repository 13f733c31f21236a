package api_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api"
	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

const (
	getProof  = "com.atproto.sync.getRecord"
	getBlocks = "com.atproto.sync.getBlocks"
)

// proves checks a proof, and that the record is in it if there is one.
func (w *world) proves(t testing.TB, did string, m storetest.Records, collection, rkey string) {
	t.Helper()
	row := w.row(t, did)
	var s repo.Slice
	if err := s.Read(w.car(t, getProof, url.Values{"did": {did}, "collection": {collection}, "rkey": {rkey}})); err != nil {
		t.Fatal(err)
	}
	path := collection + "/" + rkey
	id, err := s.Find(row.Data, []byte(path))
	body, ok := m[path]
	if err != nil || s.Root() != repo.HashCID(row.Commit) || id.Defined() != ok {
		t.Fatalf("%s is %s: %v", path, id, err)
	}
	if record, _ := s.Block(id); ok && !bytes.Equal(record, body) {
		t.Errorf("%s is %x", path, record)
	}
}

func TestGetProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	m := storetest.Random(rand.New(rand.NewPCG(2, 2)), 500)
	w.hold(t, alice, m)
	for _, p := range m.Paths()[:50] {
		if collection, rkey, _ := strings.Cut(p, "/"); repo.ValidPath([]byte(p)) {
			w.proves(t, alice, m, collection, rkey)
			w.proves(t, alice, m, collection, rkey+"x")
		}
	}
	// A later commit has another tree.
	path := "app.test.a/new"
	body := storetest.Text("new")
	w.commit(t, alice, m, store.Op{Path: []byte(path), CID: repo.HashCID(body), Record: body})
	w.proves(t, alice, m, "app.test.a", "new")
	w.commit(t, alice, m, store.Op{Path: []byte(path)})
	w.proves(t, alice, m, "app.test.a", "new")
}

func TestGetBlocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	m := storetest.Random(rand.New(rand.NewPCG(2, 2)), 500)
	w.hold(t, alice, m)
	row := w.row(t, alice)
	record := m[m.Paths()[77]]
	want := []string{repo.HashCID(record).String(), row.Data.String(), repo.HashCID(row.Commit).String()}
	car := w.car(t, getBlocks, url.Values{"did": {alice}, "cids": want})
	if !bytes.Contains(car, record) || !bytes.HasSuffix(car, row.Commit) {
		t.Error("the record or the commit is missing")
	}
	none := repo.HashCID([]byte("none")).String()
	w.refuses(t, getBlocks, url.Values{"did": {alice}, "cids": append(want, none)}, 400, "BlockNotFound", "Could not find cids: "+none)
}

func TestPartRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.hold(t, bob, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.update(t, bob, func(b *store.Batch, r *store.Repo) {
		b.Hide(r, store.StatusTakendown, store.OriginHost, store.Retry{})
	})
	cid := repo.HashCID([]byte("x")).String()
	for _, c := range []struct {
		method     string
		q          url.Values
		name, says string
	}{
		{getProof, url.Values{"did": {alice}, "collection": {"app.test.a"}}, "InvalidRequest", `"rkey" is missing`},
		{getProof, url.Values{"did": {alice}, "rkey": {"one"}}, "InvalidRequest", `"collection" is missing`},
		{getProof, url.Values{"did": {alice}, "collection": {"a"}, "rkey": {"one"}}, "InvalidRequest", `collection "a"`},
		{getProof, url.Values{"did": {alice}, "collection": {"app.test.a"}, "rkey": {"a/b"}}, "InvalidRequest", `rkey "a/b"`},
		{getProof, url.Values{"did": {bob}, "collection": {"app.test.a"}, "rkey": {"one"}}, "RepoTakendown", bob},
		{getProof, url.Values{"did": {carol}, "collection": {"app.test.a"}, "rkey": {"one"}}, "RepoNotFound", carol},
		{getBlocks, url.Values{"did": {alice}}, "InvalidRequest", `"cids" is missing`},
		{getBlocks, url.Values{"did": {alice}, "cids": slices.Repeat([]string{cid}, 1001)}, "InvalidRequest", "1001 cids"},
		{getBlocks, url.Values{"did": {alice}, "cids": {"bafy"}}, "InvalidRequest", `cid "bafy"`},
		{getBlocks, url.Values{"did": {alice, bob}, "cids": {cid}}, "InvalidRequest", `"did" is given 2 times`},
		{getBlocks, url.Values{"did": {bob}, "cids": {cid}}, "RepoTakendown", bob},
		{getBlocks, url.Values{"did": {carol}, "cids": {cid}}, "RepoNotFound", carol},
		{getRepo, url.Values{"did": {alice}, "prefix": {"app"}}, "InvalidRequest", `prefix "app"`},
		{getRepo, url.Values{"did": {alice}, "prefix": {"app.test.a/b/c"}}, "InvalidRequest", `beginning of a record key`},
		{getRepo, url.Values{"did": {alice}, "prefix": {"/"}}, "InvalidRequest", `prefix "/"`},
	} {
		w.refuses(t, c.method, c.q, 400, c.name, c.says)
	}
	var missing []string // of which 20 are named
	for i := range 30 {
		missing = append(missing, repo.HashCID([]byte{byte(i)}).String())
	}
	w.refuses(t, getBlocks, url.Values{"did": {alice}, "cids": missing}, 400, "BlockNotFound", "and 10 more")
}

// TestPartsFiltered: parts of which the filter hides nothing are sent, if the tree is whole.
func TestPartsFiltered(t *testing.T) {
	t.Parallel()
	m := storetest.Records{"app.test.a/one": storetest.Text("x"), "app.test.b/two": storetest.Text("y")}
	wanted := storetest.Records{"app.test.a/one": m["app.test.a/one"]}
	for _, all := range []bool{true, false} {
		w := newWorld(t, api.Options{})
		c := filter.Config{Collections: []string{"app.test.a"}}
		held := wanted
		if all {
			c.Store, held = filter.StoreAll, m
		}
		if _, err := w.store.SetFilter(c); err != nil {
			t.Fatal(err)
		}
		w.holdFiltered(t, alice, m, held)
		row := w.row(t, alice)
		refuses := func(method string, q url.Values) {
			t.Helper()
			q.Set("did", alice)
			w.refuses(t, method, q, 400, "RepoIncomplete", alice)
		}
		refuses(getRepo, url.Values{"prefix": {"app.test.b"}})
		refuses(getProof, url.Values{"collection": {"app.test.b"}, "rkey": {"two"}})
		refuses(getProof, url.Values{"collection": {"app.test.b"}, "rkey": {"none"}}) // or its absence would be told
		refuses(getBlocks, url.Values{"cids": {repo.HashCID(m["app.test.b/two"]).String()}})
		w.car(t, getBlocks, url.Values{"did": {alice}, "cids": {repo.HashCID(m["app.test.a/one"]).String(), repo.HashCID(row.Commit).String()}})
		if !all {
			refuses(getRepo, url.Values{"prefix": {"app.test.a"}})
			refuses(getProof, url.Values{"collection": {"app.test.a"}, "rkey": {"one"}})
			refuses(getBlocks, url.Values{"cids": {row.Data.String()}})
			continue
		}
		w.proves(t, alice, m, "app.test.a", "one")
		w.proves(t, alice, m, "app.test.a", "none")
		car := w.car(t, getRepo, url.Values{"did": {alice}, "prefix": {"app.test.a/o"}})
		if !bytes.Contains(car, m["app.test.a/one"]) || bytes.Contains(car, m["app.test.b/two"]) {
			t.Error("the part does not have exactly its record")
		}
		w.car(t, getBlocks, url.Values{"did": {alice}, "cids": {row.Data.String()}})
	}
}

// TestTurns: one client does not get all turns, a turn lasts until the CAR is sent, and a request
// that gets no turn in time is refused.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{store: storetest.Open(t, store.Options{})}
		var err error
		if w.server, err = api.New(api.Options{Store: w.store}); err != nil {
			t.Fatal(err)
		}
		w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
		blocked := make(chan struct{})
		var g errgroup.Group
		read := func(client string) *scriptedWriter {
			s := &scriptedWriter{ResponseRecorder: httptest.NewRecorder(), piece: func(int) error { <-blocked; return nil }}
			g.Go(func() error { w.serve(context.Background(), s, "/xrpc/"+getRepo+"?did="+alice, client); return nil })
			return s
		}
		for range 3 {
			read("192.0.2.1")
		}
		synctest.Wait()
		fourth := read("192.0.2.1")
		synctest.Wait()
		other := read("192.0.2.2")
		synctest.Wait()
		late := read("192.0.2.3")
		synctest.Wait()
		if n, m, k := fourth.n.Load(), other.n.Load(), late.n.Load(); n != 0 || m != 1 || k != 0 {
			t.Errorf("%d, %d, %d pieces are being written", n, m, k)
		}
		time.Sleep(time.Minute) // in the bubble
		close(blocked)
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if fourth.Code != http.StatusServiceUnavailable || other.Code != http.StatusOK || late.Code != http.StatusServiceUnavailable {
			t.Errorf("status %d, %d, %d", fourth.Code, other.Code, late.Code)
		}
	})
}

// FuzzParts: no parameters make a query of parts fail otherwise than by a refusal.
func FuzzParts(f *testing.F) {
	for _, s := range []string{
		"did=" + alice, "did=" + alice + "&since=3k22222222222", "did=" + alice + "&prefix=app.test.a/..",
		"did=" + alice + "&collection=app.test.a&rkey=one", "did=" + alice + "&cids=bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm",
		"prefix=%00&did=" + alice, "cids&did=" + alice, "did=" + alice + "&prefix=app.test.a%2F~",
	} {
		f.Add(s)
	}
	w := newWorld(f, api.Options{})
	m := storetest.Random(rand.New(rand.NewPCG(6, 6)), 100)
	m["app.test.a/one"] = storetest.Text("x")
	w.hold(f, alice, m)
	f.Fuzz(func(t *testing.T, query string) {
		for _, method := range []string{getRepo, getProof, getBlocks} {
			s := &scriptedWriter{ResponseRecorder: httptest.NewRecorder()}
			r := httptest.NewRequest("GET", "/xrpc/"+method, nil)
			r.URL.RawQuery = query
			w.server.Public().ServeHTTP(s, r)
			if s.Code != 200 && s.Code != 400 {
				t.Errorf("%s?%s: %d %s", method, query, s.Code, s.Body)
			}
			if s.Code == 200 {
				if _, err := repo.ReadCAR(s.Body, repo.CAROptions{Rootless: method == getBlocks}); err != nil {
					t.Errorf("%s?%s: %v", method, query, err)
				}
			}
		}
	})
}
