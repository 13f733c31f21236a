package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/deliver/delivertest"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// world is a store with a server on it.
type world struct {
	store  *store.Store
	server *api.Server
	public *httptest.Server
	admin  *httptest.Server
	woken  atomic.Int64
	revs   int
	// examples are the records of newExamples.
	examples storetest.Records
}

func newWorld(t testing.TB, o api.Options) *world {
	t.Helper()
	return newWorldOn(t, storetest.Open(t, store.Options{}), o)
}

func newWorldOn(t testing.TB, s *store.Store, o api.Options) *world {
	t.Helper()
	w := &world{store: s}
	o.Store, o.Wake = w.store, func() { w.woken.Add(1) }
	var err error
	if w.server, err = api.New(o); err != nil {
		t.Fatal(err)
	}
	// A test server waits for requests when it closes, but not for streams, which read the store.
	t.Cleanup(func() { _ = w.server.WaitStreams() })
	w.public, w.admin = httptest.NewServer(w.server.Public()), httptest.NewServer(w.server.Admin())
	t.Cleanup(w.public.Close)
	t.Cleanup(w.admin.Close)
	return w
}

// update changes a row under its lock.
func (w *world) update(t testing.TB, did string, fn func(b *store.Batch, r *store.Repo)) {
	t.Helper()
	defer w.store.Lock(did)()
	r, err := w.store.RepoOrNew(did)
	if err != nil {
		t.Fatal(err)
	}
	b := w.store.NewBatch()
	fn(b, &r)
	b.PutRepo(&r)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
}

// add makes did pending, as discovery does.
func (w *world) add(t testing.TB, did string) {
	t.Helper()
	w.update(t, did, func(_ *store.Batch, r *store.Repo) {
		r.State, r.Tracked, r.Pending.Priority = store.StatePending, store.ByNetwork, store.PriorityDiscovery
		r.PDS, r.Handle, r.Key = "https://pds.test", "alice.test", "did:key:zKey"
	})
}

// hold gives did a first copy.
func (w *world) hold(t testing.TB, did string, m storetest.Records) {
	t.Helper()
	w.add(t, did)
	r, err := w.store.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	w.revs++
	im := m.Import(r, storetest.Rev(w.revs))
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Errorf("import: %v", err)
		}
	}
	if err := w.store.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	if err := w.store.FlushImports(); err != nil {
		t.Fatal(err)
	}
}

// call sends a request and decodes the answer into out.
func call(t testing.TB, method, url, body string, header map[string]string, out any) *http.Response {
	t.Helper()
	return callWith(t, http.DefaultClient, method, url, body, header, out)
}

func callWith(t testing.TB, client *http.Client, method, url, body string, header map[string]string, out any) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
		if k == "Host" {
			req.Host = v
		}
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := out.(*string); ok {
		*s = string(text)
	} else if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			t.Fatalf("%s %s: %d %.300s: %v", method, url, res.StatusCode, text, err)
		}
	}
	return res
}

type refused struct{ Error, Message string }

func (w *world) get(t testing.TB, method string, q url.Values, out any) {
	t.Helper()
	var text string
	res := call(t, "GET", w.public.URL+"/xrpc/"+method+"?"+q.Encode(), "", nil, &text)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s %v: %d %s", method, q, res.StatusCode, text)
	}
	if err := json.Unmarshal([]byte(text), out); err != nil {
		t.Fatalf("%s: %v: %.300s", method, err, text)
	}
	if res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%s is closed to web pages", method)
	}
}

func (w *world) refuses(t testing.TB, method string, q url.Values, status int, name, says string) {
	t.Helper()
	var e refused
	res := call(t, "GET", w.public.URL+"/xrpc/"+method+"?"+q.Encode(), "", nil, &e)
	if res.StatusCode != status || e.Error != name || !strings.Contains(e.Message, says) {
		t.Errorf("%s %v: %d %+v, want %d %s … %s", method, q, res.StatusCode, e, status, name, says)
	}
}

var alice, bob, carol = storetest.DID(1), storetest.DID(2), storetest.DID(3)

func TestQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	body := storetest.Text("hello <&>")
	w.hold(t, alice, storetest.Records{"app.test.a/one": body, "app.test.b/two": storetest.Text("x"), "no path": storetest.Text("y")})
	w.add(t, bob)
	row, err := w.store.Repo(alice)
	if err != nil {
		t.Fatal(err)
	}
	cid, head := repo.HashCID(body).String(), repo.HashCID(row.Commit).String()

	for _, c := range []struct {
		method string
		q      url.Values
		want   string
	}{
		{"com.atproto.repo.getRecord", url.Values{"repo": {alice}, "collection": {"app.test.a"}, "rkey": {"one"}},
			`{"uri":"at://` + alice + `/app.test.a/one","cid":"` + cid + `","value":{"text":"hello <&>"}}`},
		{"com.atproto.repo.getRecord", url.Values{"repo": {alice}, "collection": {"app.test.a"}, "rkey": {"one"}, "cid": {cid}, "other": {"?"}},
			`{"uri":"at://` + alice + `/app.test.a/one","cid":"` + cid + `","value":{"text":"hello <&>"}}`},
		{"com.atproto.repo.listRecords", url.Values{"repo": {alice}, "collection": {"app.test.none"}}, `{"records":[]}`},
		{"com.atproto.repo.describeRepo", url.Values{"repo": {alice}},
			`{"handle":"alice.test","did":"` + alice + `","didDoc":{"@context":["https://www.w3.org/ns/did/v1","https://w3id.org/security/multikey/v1"],"id":"` + alice +
				`","alsoKnownAs":["at://alice.test"],"verificationMethod":[{"id":"` + alice + `#atproto","type":"Multikey","controller":"` + alice +
				`","publicKeyMultibase":"zKey"}],"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":"https://pds.test"}]},` +
				`"collections":["app.test.a","app.test.b"],"handleIsCorrect":false}`},
		{"com.atproto.sync.getLatestCommit", url.Values{"did": {alice}}, `{"cid":"` + head + `","rev":"` + row.Rev + `"}`},
		{"com.atproto.sync.getRepoStatus", url.Values{"did": {alice}}, `{"did":"` + alice + `","active":true,"rev":"` + row.Rev + `"}`},
		{"com.atproto.sync.listRepos", url.Values{"cursor": {""}}, `{"cursor":"1","repos":[{"did":"` + alice + `","head":"` + head + `","rev":"` + row.Rev + `","active":true}]}`},
		{"_health", nil, `{"version":"dev"}`},
	} {
		var got json.RawMessage
		w.get(t, c.method, c.q, &got)
		if diff := cmp.Diff(c.want, string(got)); diff != "" {
			t.Errorf("%s: %s", c.method, diff)
		}
	}
}

func TestQueryRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.add(t, bob)
	const get, list, describe = "com.atproto.repo.getRecord", "com.atproto.repo.listRecords", "com.atproto.repo.describeRepo"
	key := url.Values{"repo": {alice}, "collection": {"app.test.a"}, "rkey": {"one"}}
	with := func(k, v string) url.Values {
		q := url.Values{}
		for name := range key {
			q.Set(name, key.Get(name))
		}
		q.Set(k, v)
		return q
	}
	for _, c := range []struct {
		method     string
		q          url.Values
		status     int
		name, says string
	}{
		{get, with("repo", ""), 400, "InvalidRequest", `"repo" is missing`},
		{get, with("repo", "alice.test"), 400, "InvalidRequest", `"alice.test" is a handle`},
		{get, with("repo", "did:key:z"), 400, "InvalidRequest", `"did:key:z" is not a DID`},
		{get, with("collection", "a"), 400, "InvalidRequest", `collection "a"`},
		{get, with("rkey", "a/b"), 400, "InvalidRequest", `rkey "a/b"`},
		{get, with("rkey", ""), 400, "InvalidRequest", `"rkey" is missing`},
		{get, with("cid", "bafy"), 400, "InvalidRequest", `cid "bafy"`},
		{get, with("rkey", "none"), 400, "RecordNotFound", "at://" + alice + "/app.test.a/none"},
		{get, with("cid", repo.HashCID([]byte("other")).String()), 400, "RecordNotFound", ""},      // the record has changed since
		{get, with("repo", carol), 400, "InvalidRequest", "could not find repo for DID: " + carol}, // no error of its lexicon
		{get, with("repo", bob), 400, "InvalidRequest", bob},                                       // known, but there is no copy
		{list, with("repo", carol), 400, "InvalidRequest", carol},
		{describe, with("repo", carol), 400, "RepoNotFound", carol},
		{get, url.Values{"repo": {alice, alice}, "collection": {"app.test.a"}, "rkey": {"one"}}, 400, "InvalidRequest", `"repo" is given 2 times`},
		{list, with("limit", "0"), 400, "InvalidRequest", `limit "0"`},
		{list, with("limit", "101"), 400, "InvalidRequest", `limit "101"`},
		{list, with("limit", "ten"), 400, "InvalidRequest", `limit "ten"`},
		{list, with("reverse", "yes"), 400, "InvalidRequest", `reverse "yes"`},
		{list, with("limit", "+5"), 400, "InvalidRequest", `limit "+5"`},
		{list, with("limit", " 5"), 400, "InvalidRequest", `limit " 5"`}, // a + that was not escaped
		{list, with("limit", "5_0"), 400, "InvalidRequest", `limit "5_0"`},
		{list, with("limit", "4294967297"), 400, "InvalidRequest", `limit "4294967297"`},
		{list, with("collection", strings.Repeat("x", 500)), 400, "InvalidRequest", strings.Repeat("x", 80) + `"…`},
		{"com.atproto.sync.listRepos", url.Values{"limit": {"1001"}}, 400, "InvalidRequest", `limit "1001"`},
		{"com.atproto.sync.listRepos", url.Values{"cursor": {alice}}, 400, "InvalidRequest", `cursor "did:plc`},
		{"com.atproto.sync.listRepos", url.Values{"cursor": {"1099511627776"}}, 400, "InvalidRequest", `1099511627776`}, // 2^40
		{"com.atproto.sync.getLatestCommit", url.Values{"did": {bob}}, 400, "RepoNotFound", ""},
		{"com.atproto.sync.getRepoStatus", url.Values{"did": {carol}}, 400, "RepoNotFound", ""},
		{"com.atproto.sync.getRepoStatus", url.Values{"did": {bob}}, 400, "RepoNotFound", ""}, // its DID may not even exist
		{"com.atproto.sync.listBlobs", url.Values{"did": {alice}}, 501, "MethodNotImplemented", "listBlobs"},
		{"nothing", nil, 400, "InvalidRequest", "NSID"},
	} {
		w.refuses(t, c.method, c.q, c.status, c.name, c.says)
	}
	var e refused
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		if res := call(t, method, w.public.URL+"/xrpc/"+get, "", nil, &e); res.StatusCode != 400 || e.Error != "InvalidRequest" || !strings.Contains(e.Message, "want GET") {
			t.Errorf("%s of a query: %d %+v", method, res.StatusCode, e)
		}
	}
	if res := call(t, "GET", w.public.URL+"/xrpc/"+get+"?repo=%zz", "", nil, &e); res.StatusCode != 400 {
		t.Errorf("broken query string: %d %+v", res.StatusCode, e)
	}
	for _, path := range []string{"/repos", "/metrics", "/debug/pprof/", "/readyz"} { // nothing of the operator's
		if res := call(t, "GET", w.public.URL+path, "", nil, &e); res.StatusCode != 404 {
			t.Errorf("public listener answers %s: %d", path, res.StatusCode)
		}
	}
}

// TestUnrepresentable: a record that has no JSON form is answered and listed with the reason, so that a listing has as many
// records as are counted.
func TestUnrepresentable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	large := append([]byte{0xa1, 0x61, 'x', 0x5a, 0, 0x10, 0, 0}, make([]byte, 1<<20)...)
	w.hold(t, alice, storetest.Records{
		"app.test.f/float": {0xa1, 0x61, 'x', 0xfb, 0, 0, 0, 0, 0, 0, 0, 0}, "app.test.f/good": storetest.Text("x"),
		"app.test.f/int": {0xa1, 0x61, 'x', 0x1b, 0xff, 0, 0, 0, 0, 0, 0, 0}, "app.test.f/large": large,
	})
	type item struct {
		URI, CID, Unrepresentable string
		Value                     any
	}
	var page struct{ Records []item }
	w.get(t, "com.atproto.repo.listRecords", url.Values{"repo": {alice}, "collection": {"app.test.f"}, "reverse": {"true"}}, &page)
	if len(page.Records) != 4 {
		t.Fatalf("%d records listed", len(page.Records))
	}
	for i, c := range []struct{ rkey, reason string }{
		{"float", "byte 3: float"}, {"good", ""}, {"int", "integer exceeds 64 bits"}, {"large", fmt.Sprintf("record of %d bytes exceeds 1048576", len(large))},
	} {
		got := page.Records[i]
		if !strings.HasSuffix(got.URI, "/"+c.rkey) || got.CID == "" || (got.Value == nil) == (c.reason == "") ||
			(got.Unrepresentable == "") != (c.reason == "") || !strings.Contains(got.Unrepresentable, c.reason) {
			t.Errorf("%s: %+v", c.rkey, got)
		}
		var one item
		w.get(t, "com.atproto.repo.getRecord", url.Values{"repo": {alice}, "collection": {"app.test.f"}, "rkey": {c.rkey}}, &one)
		if diff := cmp.Diff(got, one); diff != "" {
			t.Errorf("%s: listed and answered differ: %s", c.rkey, diff)
		}
	}
}

// A purged repository is unknown.
func TestPurgedIsNotFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.one(t, "DELETE", "/repos?purge=true", alice, "purged")
	for _, method := range []string{"getRepoStatus", "getLatestCommit"} {
		w.refuses(t, "com.atproto.sync."+method, url.Values{"did": {alice}}, 400, "RepoNotFound", alice)
	}
}

// Documents have the contexts that the PLC directory gives them, which depend on the curve of the key.
func TestDocumentContext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	const did, multikey = "https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"
	for key, want := range map[string][]string{
		"": {did, multikey},
		"did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme": {did, multikey, "https://w3id.org/security/suites/secp256k1-2019/v1"},
		"did:key:zDnaerx9CtbPJ1q36T5Ln5wYt3MQYeGRG5ehnPAmxcf5mDZpv": {did, multikey, "https://w3id.org/security/suites/ecdsa-2019/v1"},
	} {
		w.update(t, alice, func(_ *store.Batch, r *store.Repo) { r.Key = key })
		var got struct {
			DIDDoc struct {
				Context []string `json:"@context"`
			}
		}
		w.get(t, "com.atproto.repo.describeRepo", url.Values{"repo": {alice}}, &got)
		if diff := cmp.Diff(want, got.DIDDoc.Context); diff != "" {
			t.Errorf("%s: %s", key, diff)
		}
	}
}

func TestHidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.beginsWith(t, "record")
	for status, name := range map[store.Status]string{
		store.StatusTakendown: "RepoTakendown", store.StatusSuspended: "RepoSuspended", store.StatusDeactivated: "RepoDeactivated",
		store.StatusDeleted: "RepoNotFound", store.StatusNotFound: "RepoNotFound",
		store.StatusInactive: "RepoDeactivated",
	} {
		w.update(t, alice, func(b *store.Batch, r *store.Repo) { r.Status = status; b.Account(r) })
		repoIs, didIs := url.Values{"repo": {alice}, "collection": {"app.test.a"}, "rkey": {"one"}}, url.Values{"did": {alice}}
		w.refuses(t, "com.atproto.repo.getRecord", repoIs, 400, "InvalidRequest", alice)
		w.refuses(t, "com.atproto.repo.listRecords", repoIs, 400, "InvalidRequest", alice)
		w.refuses(t, "com.atproto.repo.describeRepo", repoIs, 400, name, alice)
		w.refuses(t, "com.atproto.sync.getLatestCommit", didIs, 400, name, alice)
		if status != store.StatusNotFound {
			var got json.RawMessage
			w.get(t, "com.atproto.sync.getRepoStatus", didIs, &got)
			says := `,"status":"` + status.String() + `"`
			if status == store.StatusInactive {
				says = "" // the protocol has no word for it
			}
			if want := `{"did":"` + alice + `","active":false` + says + `}`; string(got) != want {
				t.Errorf("getRepoStatus: %s", got)
			}
			var list struct{ Repos []json.RawMessage }
			w.get(t, "com.atproto.sync.listRepos", nil, &list)
			if len(list.Repos) != 1 || !strings.HasSuffix(string(list.Repos[0]), `,"active":false`+says+`}`) {
				t.Errorf("listRepos: %s", list.Repos)
			}
		}
		w.beginsWith(t, "account") // the import's event is skipped
	}
	w.update(t, alice, func(_ *store.Batch, r *store.Repo) { r.Status = store.StatusActive })
	w.beginsWith(t, "record")
}

// beginsWith waits until the log's first event has that type: pages are shared for a while.
func (w *world) beginsWith(t testing.TB, kind string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		ws := delivertest.Follow(t, w.public.URL, "?cursor=0")
		m := delivertest.Next(t, ws)
		if _ = ws.Close(); m.Type == kind {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the stream begins with %+v, want %s", m, kind)
		}
		<-time.After(50 * time.Millisecond)
	}
}

type listed struct {
	Cursor  string
	Records []struct {
		URI, CID string
		Value    json.RawMessage
	}
}

func TestStoreStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{PageBytes: 2000})
	m := storetest.Records{}
	for i := range 300 {
		m[fmt.Sprintf("app.test.a/%04d", i)] = storetest.Text(fmt.Sprint("record ", i))
	}
	ws := delivertest.Follow(t, w.public.URL, "")
	w.hold(t, alice, m)
	w.update(t, alice, func(b *store.Batch, r *store.Repo) {
		ops := []store.Op{{Path: []byte("app.test.a/0001")}, {Path: []byte("app.test.a/new"), CID: repo.HashCID(storetest.Text("n")), Record: storetest.Text("n")}}
		if err := b.Apply(r, true, storetest.Rev(9), ops); err != nil {
			t.Error(err)
		}
		b.Identity(r)
	})
	for _, ws := range []*websocket.Conn{ws, delivertest.Follow(t, w.public.URL, "?cursor=0&epoch="+w.store.Epoch())} {
		for id := uint64(1); id <= 304; id++ {
			if id == 301 {
				continue // that the repository is synced, for which the consumer did not ask
			}
			got := delivertest.Next(t, ws)
			if got.ID != id {
				t.Fatalf("event %d, want %d", got.ID, id)
			}
			switch {
			case id == 304:
				if got.Identity == nil || got.Identity.PDS != "https://pds.test" {
					t.Errorf("%+v", got)
				}
			case id == 302:
				if got.Record.Action != "delete" || got.Record.CID != "" || !got.Record.Live {
					t.Errorf("%+v", got.Record)
				}
			case id <= 300:
				want := fmt.Sprintf(`{"text":"record %d"}`, id-1)
				// An update's superseded body is still there, a deletion's too.
				if string(got.Record.Record) != want || got.Record.Action != "create" || got.Record.Live {
					t.Fatalf("event %d: %+v", id, got.Record)
				}
			}
		}
	}
}

// TestStoreSnapshot: the records of the store, as listRecords has them, come before the log, on both
// listeners.
func TestStoreSnapshot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/1": storetest.Text("one"), "app.test.b/2": storetest.Text("two")})
	for _, url := range []string{w.public.URL, w.admin.URL} {
		ws := delivertest.Follow(t, url, "?snapshot=true")
		for _, want := range []string{`{"text":"one"}`, `{"text":"two"}`} {
			if m := delivertest.Next(t, ws); !m.Snapshot || m.Record == nil || string(m.Record.Record) != want {
				t.Errorf("%+v, want %s", m, want)
			}
		}
		if m := delivertest.Next(t, ws); m.Type != "snapshot_end" || m.ID != w.store.Head() {
			t.Errorf("%+v, want the end", m)
		}
	}
}

func listenAny(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Serve drains: streams are told, and it returns.
func TestServe(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{DrainTimeout: 5 * time.Second})
	public, admin := listenAny(t), listenAny(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var served errgroup.Group
	served.Go(func() error { return w.server.Serve(ctx, public, admin) })
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	reading, silent := delivertest.Follow(t, "http://"+public.Addr().String(), "?cursor=1"), delivertest.Follow(t, "http://"+public.Addr().String(), "")
	delivertest.WantIDs(t, reading, 1, 1)
	var stats map[string]json.RawMessage
	if res := call(t, "GET", "http://"+admin.Addr().String()+"/stats", "", nil, &stats); res.StatusCode != 200 {
		t.Errorf("stats: %d", res.StatusCode)
	}
	start := time.Now()
	cancel()
	delivertest.Ends(t, reading, websocket.CloseGoingAway)
	if err := served.Wait(); err != nil || time.Since(start) > 8*time.Second {
		t.Errorf("served until %s after: %v", time.Since(start), err)
	}
	delivertest.Ends(t, silent, websocket.CloseGoingAway)
}

// A stream that outlasts the drain is reported, since it may still read the store.
func TestServeReportsWhatIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{DrainTimeout: time.Millisecond})
	public, admin := listenAny(t), listenAny(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var served errgroup.Group
	served.Go(func() error { return w.server.Serve(ctx, public, admin) })
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	silent := delivertest.Follow(t, "http://"+public.Addr().String(), "?cursor=1")
	delivertest.WantIDs(t, silent, 1, 1)
	cancel()
	// The peer does not answer the close frame, for which the stream waits.
	if err := served.Wait(); !errors.Is(err, api.ErrDraining) {
		t.Errorf("got %v", err)
	}
}

func TestServeEndsWithItsListener(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	public, admin := listenAny(t), listenAny(t)
	if err := admin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.server.Serve(t.Context(), public, admin); err == nil || !strings.Contains(err.Error(), "admin listener") {
		t.Errorf("got %v", err)
	}
}

// Corruption stops the daemon, whichever part finds it.
func TestServeEndsOnCorruption(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	rec := httptest.NewRecorder()
	w.server.Answer(rec, httptest.NewRequest("GET", "/", nil), fmt.Errorf("row: %w", store.ErrCorrupt))
	if rec.Code != http.StatusInternalServerError {
		t.Errorf("status %d", rec.Code)
	}
	public, admin := listenAny(t), listenAny(t)
	if err := w.server.Serve(t.Context(), public, admin); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}
