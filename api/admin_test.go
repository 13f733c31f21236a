package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"cistern/api"
	"cistern/api/deliver/delivertest"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

var jsonType = map[string]string{"Content-Type": "application/json"}

func TestAccess(t *testing.T) {
	t.Parallel()
	open, closed := newWorld(t, api.Options{}), newWorld(t, api.Options{AdminToken: "secret"})
	own := strings.TrimPrefix(open.admin.URL, "http://")
	type h = map[string]string
	for name, c := range map[string]struct {
		w      *world
		path   string
		header h
		want   int
	}{
		"loopback":              {open, "/repos", nil, 200},
		"localhost":             {open, "/repos", h{"Host": "localhost:2480"}, 200},
		"IPv6":                  {open, "/repos", h{"Host": "[::1]:2480"}, 200},
		"rebound name":          {open, "/repos", h{"Host": "evil.example"}, 403},
		"loopback as subdomain": {open, "/repos", h{"Host": "127.0.0.1.evil.example"}, 403},
		"other address":         {open, "/repos", h{"Host": "192.0.2.1"}, 403},
		"rebound stats":         {open, "/stats", h{"Host": "evil.example"}, 403},
		"rebound pprof":         {open, "/debug/pprof/", h{"Host": "evil.example"}, 403},
		"rebound metrics":       {open, "/metrics", h{"Host": "evil.example"}, 403},
		"probe by any name":     {open, "/readyz", h{"Host": "pod-1"}, 200},
		"alive":                 {open, "/healthz", nil, 200},
		"own origin":            {open, "/repos", h{"Origin": "http://" + own}, 200},
		"foreign origin":        {open, "/repos", h{"Origin": "http://evil.example"}, 403},
		"foreign port":          {open, "/repos", h{"Origin": "http://127.0.0.1:1"}, 403},
		"sandboxed page":        {open, "/repos", h{"Origin": "null"}, 403},
		"foreign image":         {open, "/debug/pprof/profile?seconds=1", h{"Sec-Fetch-Site": "cross-site"}, 403}, // no Origin
		"neighbour's image":     {open, "/stats", h{"Sec-Fetch-Site": "same-site"}, 403},                          // another port of localhost
		"address bar":           {open, "/stats", h{"Sec-Fetch-Site": "none"}, 200},
		"own page":              {open, "/stats", h{"Sec-Fetch-Site": "same-origin"}, 200},
		"pprof":                 {open, "/debug/pprof/cmdline", nil, 200},
		"metrics":               {open, "/metrics", nil, 200},
		"no token":              {closed, "/repos", nil, 401},
		"no token, stats":       {closed, "/stats", nil, 401},
		"no token, metrics":     {closed, "/metrics", nil, 401},
		"no token, pprof":       {closed, "/debug/pprof/heap", nil, 401},
		"no token, nothing":     {closed, "/nothing", nil, 401},
		"no token, probe":       {closed, "/readyz", nil, 200},
		"wrong token":           {closed, "/repos", h{"Authorization": "Bearer secreT"}, 401},
		"part of the token":     {closed, "/repos", h{"Authorization": "Bearer secre"}, 401},
		"empty token":           {closed, "/repos", h{"Authorization": "Bearer "}, 401},
		"bearer":                {closed, "/repos", h{"Authorization": "Bearer secret"}, 200},
		"bearer, any host":      {closed, "/repos", h{"Authorization": "bearer secret", "Host": "cistern.example"}, 200},
		"bearer, foreign page":  {closed, "/repos", h{"Authorization": "Bearer secret", "Origin": "http://evil.example"}, 403},
		"basic admin:secret":    {closed, "/repos", h{"Authorization": "Basic YWRtaW46c2VjcmV0"}, 200},
		"basic root:secret":     {closed, "/repos", h{"Authorization": "Basic cm9vdDpzZWNyZXQ="}, 401},
		"nothing":               {open, "/nothing", nil, 404},
	} {
		var text string
		res := call(t, "GET", c.w.admin.URL+c.path, "", c.header, &text)
		if res.StatusCode != c.want {
			t.Errorf("%s: %d %s, want %d", name, res.StatusCode, text, c.want)
		}
		if strings.Contains(text, "secret") {
			t.Errorf("%s: answer tells the token: %s", name, text)
		}
	}
	for _, c := range []struct {
		method, path, contentType, body string
		want                            int
	}{
		{"PUT", "/repos", "text/plain", "[]", 415}, // what a form of a web page may send
		{"PUT", "/repos", "", "[]", 415},
		{"PUT", "/repos", "application/json; charset=utf-8", "[]", 200},
		{"POST", "/repos", "application/json", "[]", 405},
		{"PATCH", "/repos/resync", "application/json", "[]", 405},
	} {
		var e json.RawMessage
		res := call(t, c.method, open.admin.URL+c.path, c.body, map[string]string{"Content-Type": c.contentType}, &e)
		if res.StatusCode != c.want {
			t.Errorf("%s %s %q: %d %s", c.method, c.path, c.contentType, res.StatusCode, e)
		}
	}
}

type result struct{ DID, Result, Error, Message string }

func (w *world) change(t testing.TB, method, path, body string) []result {
	t.Helper()
	var text string
	if res := call(t, method, w.admin.URL+path, body, jsonType, &text); res.StatusCode != 200 {
		t.Fatalf("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	var out []result
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

func (w *world) one(t testing.TB, method, path, did, want string) store.Repo {
	t.Helper()
	if diff := cmp.Diff([]result{{DID: did, Result: want}}, w.change(t, method, path, `[{"did":"`+did+`"}]`)); diff != "" {
		t.Errorf("%s %s: %s", method, path, diff)
	}
	row, err := w.store.Repo(did)
	if err != nil && want != "not found" {
		t.Fatal(err)
	}
	return row
}

func wantRow(t testing.TB, r store.Repo, state store.State, why store.Why, attempt uint64) {
	t.Helper()
	if r.State != state || r.Tracked != why || r.Attempt != attempt {
		t.Errorf("row is %s, tracked %s, attempt %d; want %s, %s, %d", r.State, r.Tracked, r.Attempt, state, why, attempt)
	}
	if r.State == store.StatePending && r.Pending.Priority != store.PriorityOperator {
		t.Errorf("pending at priority %d", r.Pending.Priority)
	}
}

// Every request that changes something must be JSON by its content type, whether it has a body or not: a form of a
// web page cannot be.
func TestChangesAreJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	for _, c := range []struct{ method, path string }{
		{"PUT", "/repos"}, {"DELETE", "/repos"}, {"POST", "/repos/resync"}, {"PATCH", "/filter"}, {"PATCH", "/ingestion"},
		{"POST", "/firehose/sources"}, {"DELETE", "/firehose/sources"}, {"DELETE", "/firehose/cursors"},
		{"POST", "/crawler/sources"}, {"DELETE", "/crawler/sources"}, {"DELETE", "/crawler/cursors"},
		{"PUT", "/hosts/pds.test/limits"}, {"DELETE", "/hosts/pds.test/limits"},
		{"PUT", "/hosts/pds.test/ban"}, {"DELETE", "/hosts/pds.test/ban"},
		{"PUT", "/subscriptions/a"}, {"DELETE", "/subscriptions/a"},
	} {
		for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded"} {
			var e refused
			res := call(t, c.method, w.admin.URL+c.path, "", map[string]string{"Content-Type": contentType}, &e)
			if res.StatusCode != 415 || e.Error != "UnsupportedMediaType" {
				t.Errorf("%s %s with content type %q: %d %+v", c.method, c.path, contentType, res.StatusCode, e)
			}
		}
	}
	if _, err := w.store.HostNamed("pds.test"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a refused request made a host: %v", err)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.one(t, "DELETE", "/repos", alice, "not found")
	w.one(t, "DELETE", "/repos?purge=true", alice, "not found")
	w.one(t, "POST", "/repos/resync", alice, "not found")
	wantRow(t, w.one(t, "PUT", "/repos", alice, "added"), store.StatePending, store.ByOperator, 0)
	wantRow(t, w.one(t, "PUT", "/repos", alice, "known"), store.StatePending, store.ByOperator, 0)
	wantRow(t, w.one(t, "POST", "/repos/resync", alice, "queued"), store.StatePending, store.ByOperator, 0)
	wantRow(t, w.one(t, "DELETE", "/repos", alice, "removed"), store.StateIdle, store.Untracked, 1)
	wantRow(t, w.one(t, "DELETE", "/repos", alice, "removed"), store.StateIdle, store.Untracked, 1)
	wantRow(t, w.one(t, "POST", "/repos/resync", alice, "not tracked"), store.StateIdle, store.Untracked, 1)
	wantRow(t, w.one(t, "PUT", "/repos", alice, "added"), store.StatePending, store.ByOperator, 2)

	w.hold(t, bob, storetest.Records{"app.test.a/one": storetest.Text("x")}) // by discovery
	wantRow(t, w.one(t, "PUT", "/repos", bob, "known"), store.StateSynced, store.ByOperator, 0)
	before := w.one(t, "POST", "/repos/resync", bob, "queued")
	wantRow(t, before, store.StatePending, store.ByOperator, 1)
	// Of one that is pending already a fetch may be under way, which does not answer this request.
	if r := w.one(t, "POST", "/repos/resync", bob, "queued"); r.Asked != before.Asked+1 || r.Attempt != before.Attempt {
		t.Errorf("asked %d times of %d, attempt %d of %d", r.Asked, before.Asked, r.Attempt, before.Attempt)
	}
	if r := w.one(t, "DELETE", "/repos", bob, "removed"); r.Records != 1 || r.Rev == "" {
		t.Errorf("removed without purge, and holds %d records", r.Records)
	}
	r := w.one(t, "DELETE", "/repos?purge=true", bob, "purged")
	if wantRow(t, r, store.StateIdle, store.Untracked, 4); r.Records != 0 || r.Rev != "" || r.Status != store.StatusActive {
		t.Errorf("purged, and holds %d records of %q as %s", r.Records, r.Rev, r.Status)
	}
	head := w.store.Head()
	if m := delivertest.Next(t, delivertest.Follow(t, w.public.URL, fmt.Sprintf("?cursor=%d", head))); m.Account == nil || m.Account.DID != bob || m.Account.Status != "deleted" {
		t.Errorf("a purge leaves %+v in the log", m)
	}
	w.one(t, "DELETE", "/repos?purge=true", bob, "purged") // nothing to tell a second time
	if w.store.Head() != head {
		t.Error("the second purge tells of the same again")
	}
	wantRow(t, w.one(t, "PUT", "/repos", bob, "added"), store.StatePending, store.ByOperator, 7)
	if w.woken.Load() == 0 {
		t.Error("Wake was not called")
	}

	w.add(t, carol) // gone, with a failure that is waited out
	w.update(t, carol, func(_ *store.Batch, r *store.Repo) {
		r.State, r.Status, r.Retry = store.StateGone, store.StatusDeactivated, store.Retry{Next: 2_000_000_000, Count: 3, Kind: store.Generic}
	})
	wantRow(t, w.one(t, "PUT", "/repos", carol, "known"), store.StateGone, store.ByOperator, 0)
	r = w.one(t, "POST", "/repos/resync", carol, "queued")
	if wantRow(t, r, store.StatePending, store.ByOperator, 1); r.Retry.Count != 3 {
		t.Error("a resync forgets the failures")
	}
	w.update(t, carol, func(_ *store.Batch, r *store.Repo) { r.State = store.StateGone })
	r = w.one(t, "DELETE", "/repos", carol, "removed")
	if wantRow(t, r, store.StateGone, store.Untracked, 2); r.Retry.Next != 0 {
		t.Error("a repository that is not followed has a queue row")
	}
	head = w.store.Head()
	if w.one(t, "PUT", "/repos", carol, "added"); w.store.Head() != head+1 { // its repository is gone
		t.Error("an account that stays hidden is told of when it is followed again")
	}
}

// TestChangesOfDraining: no buffered commit is left of a repository that no longer drains.
func TestChangesOfDraining(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	rev := storetest.Rev(1000)
	for i, c := range []struct {
		method, path, result string
		state                store.State
		why                  store.Why
		seen                 string
	}{
		{"POST", "/repos/resync", "queued", store.StatePending, store.ByNetwork, rev},
		{"DELETE", "/repos", "removed", store.StateIdle, store.Untracked, rev},
		{"DELETE", "/repos?purge=true", "purged", store.StateIdle, store.Untracked, ""},
		{"PUT", "/repos", "known", store.StateDraining, store.ByOperator, ""}, // goes on
	} {
		did := storetest.DID(i)
		w.hold(t, did, storetest.Records{"app.test.a/one": storetest.Text("x")})
		w.update(t, did, func(b *store.Batch, r *store.Repo) {
			w.store.BeginFetch(did)
			b.Enqueue(r, store.PriorityRetry)
			if !b.Buffer(r, rev, []byte("message")) {
				t.Error("not buffered")
			}
			b.Complete(r)
			r.Attempt--
			w.store.EndFetch(did)
		})
		var it struct {
			State    string
			Buffered int
		}
		if call(t, "GET", w.admin.URL+"/repos/"+did, "", nil, &it); it.State != "draining" || it.Buffered != 1 {
			t.Errorf("before: %+v", it)
		}
		r := w.one(t, c.method, c.path, did, c.result)
		buffered := 0
		if c.state == store.StateDraining {
			buffered = 1
		}
		if r.State != c.state || r.Tracked != c.why || w.store.Buffered(did) != buffered || c.seen != "" && r.SeenRev != c.seen {
			t.Errorf("%s %s: %s, %s, %d buffered, seen %s", c.method, c.path, r.State, r.Tracked, w.store.Buffered(did), r.SeenRev)
		}
	}
}

func TestChangeBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	added := func(did string) result { return result{DID: did, Result: "added"} }
	bad := result{DID: "did:x:y", Error: "InvalidDID"}
	for name, c := range map[string]struct {
		body string
		want []result
	}{
		"array":          {`[{"did":"` + storetest.DID(10) + `"},"` + storetest.DID(11) + `"]`, []result{added(storetest.DID(10)), added(storetest.DID(11))}},
		"lines":          {"\n{\"did\":\"" + storetest.DID(12) + "\"}\n\"" + storetest.DID(13) + "\"\n\n", []result{added(storetest.DID(12)), added(storetest.DID(13))}},
		"one bad":        {`["` + storetest.DID(14) + `","did:x:y","` + storetest.DID(15) + `"]`, []result{added(storetest.DID(14)), bad, added(storetest.DID(15))}},
		"twice":          {`["` + storetest.DID(16) + `","` + storetest.DID(16) + `"]`, []result{added(storetest.DID(16)), added(storetest.DID(16))}},
		"nothing":        {"", []result{}},
		"empty array":    {" [ ] ", []result{}},
		"other shapes":   {`[7,null,{"repo":"x"}]`, []result{{Error: "InvalidDID"}, {Error: "InvalidDID"}, {Error: "InvalidDID"}}},
		"fields unknown": {`{"did":"` + storetest.DID(17) + `","handle":"x"}`, []result{added(storetest.DID(17))}},
	} {
		got := w.change(t, "PUT", "/repos", c.body)
		for i := range got {
			if (got[i].Message != "") != (got[i].Error != "") {
				t.Errorf("%s: %+v", name, got[i])
			}
			got[i].Message = ""
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for name, c := range map[string]struct {
		body   string
		status int
		says   string
	}{
		"cut array":   {`["` + storetest.DID(20) + `"`, 400, "item 2"},
		"cut item":    {`["did:`, 400, "item 1"},
		"no JSON":     {"did:plc:x", 400, "item 1"},
		"after array": {`[] x`, 400, "after the end"},
		"many":        {"[" + strings.Repeat("1,", 100_000) + "1]", 413, "100000"},
		"long":        {`["` + strings.Repeat("x", 9<<20) + `"]`, 413, "8388608"},
		"deep":        {strings.Repeat("[", 100_000), 400, "item"},
	} {
		var e refused
		if res := call(t, "PUT", w.admin.URL+"/repos", c.body, jsonType, &e); res.StatusCode != c.status || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %d %.200s", name, res.StatusCode, e.Message)
		}
	}
	if _, err := w.store.Repo(storetest.DID(20)); err == nil {
		t.Error("a list that cannot be read was half done")
	}
}

// More items than one batch takes, against a reader and other writers of the same rows.
func TestChangeMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	dids := make([]string, 950)
	for i := range dids {
		dids[i] = storetest.DID(i*7919%950 + 1)
	}
	body, err := json.Marshal(dids)
	if err != nil {
		t.Fatal(err)
	}
	results := make([][]result, 4)
	var g errgroup.Group
	for i := range results {
		g.Go(func() error {
			req, err := http.NewRequestWithContext(t.Context(), "PUT", w.admin.URL+"/repos", bytes.NewReader(body))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			return errors.Join(json.NewDecoder(res.Body).Decode(&results[i]), res.Body.Close())
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	added := 0
	for _, list := range results {
		for i, r := range list {
			if r.DID != dids[i] {
				t.Fatalf("answer %d is of %s, want %s", i, r.DID, dids[i])
			}
			if r.Result == "added" {
				added++
			}
		}
	}
	if n := w.store.Counts()["pending"]; n != 950 || added != 950 {
		t.Errorf("%d pending, %d times added, want 950", n, added)
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.add(t, bob)
	w.update(t, bob, func(_ *store.Batch, r *store.Repo) {
		r.PDS, r.State = "http://127.0.0.1:2583", store.StateResync
		r.Retry = store.Retry{Kind: store.Transport, Count: 2, Next: 2_000_000_000, Since: 1_900_000_000, Error: "refused"}
	})
	type item struct {
		DID, Status, State, Why, Rev, Data, Head, Handle, PDS, Verified string
		Key                                                             string `json:"signing_key"`
		Tracked                                                         bool
		Records                                                         int
		Error                                                           *struct {
			Kind, Since, Message string
			Count                int
			Next                 string `json:"next_retry"`
		}
		Updated string `json:"updated_at"`
	}
	var a item
	call(t, "GET", w.admin.URL+"/repos/"+alice, "", nil, &a)
	if a.State != "synced" || a.Status != "active" || !a.Tracked || a.Why != "network" || a.Rev == "" || a.Data == "" || a.Head == "" || a.Handle != "alice.test" ||
		a.PDS != "https://pds.test" || a.Verified != "full" || a.Key != "zKey" || a.Records != 1 || a.Error != nil || a.Updated == "" {
		t.Errorf("%+v", a)
	}
	var b item
	call(t, "GET", w.admin.URL+"/repos/"+bob, "", nil, &b)
	if b.State != "resync" || b.Error == nil || b.Error.Kind != "transport" || b.Error.Count != 2 || b.Error.Next != "2033-05-18T03:33:20Z" || b.Error.Message != "refused" || b.Rev != "" {
		t.Errorf("%+v %+v", b, b.Error)
	}
	w.update(t, alice, func(_ *store.Batch, r *store.Repo) { r.FutureDue = 2_000_000_000 })
	call(t, "GET", w.admin.URL+"/repos/"+alice, "", nil, &a)
	if a.State != "synced" || a.Error == nil || a.Error.Kind != "future" || a.Error.Next != "2033-05-18T03:33:20Z" || a.Error.Message == "" {
		t.Errorf("%+v %+v", a, a.Error)
	}
	for query, want := range map[string]string{
		"": alice + " " + bob, "?state=synced": alice, "?state=resync": bob, "?state=gone": "", "?host=PDS.test": alice, "?host=127.0.0.1:2583": bob, "?host=127.0.0.1": "",
		"?error=transport": bob, "?error=generic": "", "?state=synced&error=transport": "", "?cursor=" + alice: bob, "?cursor=" + bob: "",
		"?state=draining": "", "?verified=full": alice, "?verified=formerkey": "",
	} {
		var text string
		res := call(t, "GET", w.admin.URL+"/repos"+query, "", nil, &text)
		var got []string
		for line := range strings.Lines(text) {
			var it item
			if err := json.Unmarshal([]byte(line), &it); err != nil {
				t.Fatal(err)
			}
			got = append(got, it.DID)
		}
		if strings.Join(got, " ") != want || res.Header.Get("Content-Type") != "application/x-ndjson" || res.Header.Get("Cistern-Next-Cursor") != "" {
			t.Errorf("%s: got %s", query, got)
		}
	}
	for query, says := range map[string]string{
		"?limit=1001": "1001", "?limit=x": `"x"`, "?state=x": `"x"`, "?verified=all": `"all"`, "?error=bad": `"bad"`, "?host=https://x/y": `"https://x/y"`, "?cursor=x": `"x"`,
	} {
		var e refused
		if res := call(t, "GET", w.admin.URL+"/repos"+query, "", nil, &e); res.StatusCode != 400 || !strings.Contains(e.Message, says) {
			t.Errorf("%s: %d %+v", query, res.StatusCode, e)
		}
	}
	var e refused
	if res := call(t, "GET", w.admin.URL+"/repos/did:x:y", "", nil, &e); res.StatusCode != 400 || !strings.Contains(e.Message, "did:x:y") {
		t.Errorf("%d %+v", res.StatusCode, e)
	}
	if res := call(t, "GET", w.admin.URL+"/repos/"+carol, "", nil, &e); res.StatusCode != 404 || e.Error != "NotFound" {
		t.Errorf("%d %+v", res.StatusCode, e)
	}
}

func TestRowPaging(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	dids := make([]string, 25)
	for i := range dids {
		dids[i] = storetest.DID(i + 1)
	}
	body, err := json.Marshal(dids)
	if err != nil {
		t.Fatal(err)
	}
	w.change(t, "PUT", "/repos", string(body))
	var got []string
	for path := "/repos?limit=10&state=pending"; path != ""; {
		var page []struct{ DID string }
		res := call(t, "GET", w.admin.URL+path, "", map[string]string{"Accept": "application/json"}, &page)
		for _, it := range page {
			got = append(got, it.DID)
		}
		cursor := res.Header.Get("Cistern-Next-Cursor")
		path, _, _ = strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
		if (cursor == "") != (path == "") {
			t.Fatalf("cursor %q, link %q", cursor, path)
		}
	}
	if diff := cmp.Diff(dids, got); diff != "" {
		t.Error(diff)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{Syncing: func() int { return 3 }, Verify: "backfill"})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x"), "app.test.b/two": storetest.Text("y")})
	w.add(t, bob)
	for _, base := range []string{w.public.URL, w.admin.URL} {
		var got struct {
			Counts, Sizes map[string]int64
			Verify        string
			Log           struct {
				Epoch      string
				Head, Tail uint64
			}
		}
		call(t, "GET", base+"/stats", "", nil, &got)
		want := map[string]int64{
			"repos": 2, "records": 2, "blocks": 2, "events": 3, "collections": 2, "pending": 1, "syncing": 3, "synced": 1,
			"gone": 0, "resync": 0, "idle": 0, "draining": 0, "buffered": 0, "behind": 0, "lacking": 0, "returning": 0, "collection_names": 2, "error_ratelimited": 0, "error_transport": 0, "error_generic": 0,
		}
		if diff := cmp.Diff(want, got.Counts); diff != "" {
			t.Error(diff)
		}
		if len(got.Sizes) == 0 || got.Verify != "backfill" || got.Log.Head != 3 || got.Log.Tail != 1 || got.Log.Epoch != w.store.Epoch() {
			t.Errorf("%+v", got)
		}
	}
}

func TestNotReady(t *testing.T) {
	t.Parallel()
	fs := &brokenFS{FS: vfs.NewMem()}
	db, err := store.Open(store.Options{Dir: "store", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // it has failed
	var stopping atomic.Bool
	server, err := api.New(api.Options{Store: db, Stopping: stopping.Load})
	if err != nil {
		t.Fatal(err)
	}
	admin := httptest.NewServer(server.Admin())
	t.Cleanup(admin.Close)
	ask := func(status int, message string) {
		t.Helper()
		var e refused
		if res := call(t, "GET", admin.URL+"/readyz", "", nil, &e); res.StatusCode != status || e.Message != message {
			t.Errorf("%d %+v, want %d %q", res.StatusCode, e, status, message)
		}
		if res := call(t, "GET", admin.URL+"/healthz", "", nil, nil); res.StatusCode != 200 {
			t.Errorf("not alive: %d", res.StatusCode)
		}
	}
	ask(200, "")
	stopping.Store(true)
	ask(503, "not ready: the daemon is stopping")
	stopping.Store(false)
	ask(200, "")

	fs.broken.Store(true)
	b := db.NewBatch()
	b.Account(&store.Repo{DID: "did:web:alice.test"})
	if err := b.CommitSync(); err == nil || !strings.Contains(err.Error(), "/secret/path") {
		t.Fatalf("the store did not fail: %v", err)
	}
	ask(503, "not ready: the store has failed; see the daemon's log")
}

// brokenFS is a file system on which no write succeeds any more.
type brokenFS struct {
	vfs.FS
	broken atomic.Bool
}

func (f *brokenFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return brokenFile{file, f}, err
}

type brokenFile struct {
	vfs.File
	fs *brokenFS
}

func (f brokenFile) Write(b []byte) (int, error) {
	if f.fs.broken.Load() {
		return 0, errors.New("disk on /secret/path")
	}
	return f.File.Write(b)
}

func TestOptions(t *testing.T) {
	t.Parallel()
	if _, err := api.New(api.Options{DrainTimeout: -1}); err == nil ||
		!strings.Contains(err.Error(), "store") || !strings.Contains(err.Error(), "drain timeout") {
		t.Errorf("got %v", err)
	}
}

// TestPublicChangesNothing: the public listener has no route that changes something (invariant 1).
func TestPublicChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	for _, route := range []string{
		"PUT /repos", "DELETE /repos", "POST /repos/resync", "PATCH /filter", "PATCH /ingestion",
		"POST /firehose/sources", "DELETE /firehose/sources", "DELETE /firehose/cursors",
		"POST /crawler/sources", "DELETE /crawler/sources", "DELETE /crawler/cursors",
		"PUT /hosts/pds.test/limits", "DELETE /hosts/pds.test/limits",
		"PUT /hosts/pds.test/ban", "DELETE /hosts/pds.test/ban",
		"GET /subscriptions", "PUT /subscriptions/a", "DELETE /subscriptions/a", "GET /subscriptions/a/events",
	} {
		method, path, _ := strings.Cut(route, " ")
		res := call(t, method, w.public.URL+path, "", map[string]string{"Content-Type": "application/json"}, nil)
		if res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", route, res.StatusCode)
		}
	}
}
