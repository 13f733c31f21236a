package api_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/admin"
	"cistern/ingest/identity"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// tapAuth is the header of tap's client.
func tapAuth(user, password string) map[string]string {
	text := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return map[string]string{"Authorization": "Basic " + text, "Content-Type": "application/json"}
}

// tapRoutes are the routes that clients of tap use, with a body for those that change something.
var tapRoutes = []struct{ method, path, body string }{
	{"GET", "/health", ""}, {"GET", "/resolve/" + alice, ""}, {"GET", "/info/" + alice, ""},
	{"POST", "/repos/add", `{"dids":[]}`}, {"POST", "/repos/remove", `{"dids":[]}`},
	{"GET", "/stats/repo-count", ""}, {"GET", "/stats/record-count", ""},
	{"GET", "/stats/outbox-buffer", ""}, {"GET", "/stats/resync-buffer", ""},
	{"GET", "/stats/cursors", ""},
}

// All of tap's routes take the admin token as tap's client sends it, and nothing else.
func TestTapAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{AdminToken: "secret"})
	w.add(t, alice)
	first := w
	for _, c := range []struct {
		header map[string]string
		status int
	}{
		{tapAuth("admin", "secret"), 200}, {tapAuth("admin", "other"), 401},
		{tapAuth("root", "secret"), 401}, {nil, 401},
	} {
		for i, r := range tapRoutes {
			if c.status != http.StatusOK && i%5 == 0 { // before its wrong tokens are braked
				w = newWorld(t, api.Options{AdminToken: "secret"})
			}
			var text string
			res := call(t, r.method, w.admin.URL+r.path, r.body, c.header, &text)
			if res.StatusCode != c.status {
				t.Errorf("%s %s with %v: %d %s, want %d", r.method, r.path, c.header, res.StatusCode, text, c.status)
			}
		}
		want := c.status
		if want == http.StatusOK {
			want = http.StatusUpgradeRequired // admitted, but it does not ask for a WebSocket
		}
		if res := call(t, "GET", w.admin.URL+"/channel", "", c.header, nil); res.StatusCode != want {
			t.Errorf("/channel with %v: %d, want %d", c.header, res.StatusCode, want)
		}
	}
	if _, err := first.store.SubscriptionPosition("tap"); err == nil {
		t.Error("requests that open no stream made the subscription")
	}
	for _, r := range tapRoutes {
		if res := call(t, r.method, w.public.URL+r.path, r.body, tapAuth("admin", "secret"), nil); res.StatusCode != 404 {
			t.Errorf("%s is on the public listener: %d", r.path, res.StatusCode)
		}
	}
}

// tap calls one of tap's routes.
func (w *world) tap(t *testing.T, method, path, body string, status int, out any) {
	t.Helper()
	var text any
	if out == nil {
		out = &text
	}
	res := call(t, method, w.admin.URL+path, body, jsonType, out)
	if res.StatusCode != status {
		t.Errorf("%s %s %s: %d %v, want %d", method, path, body, res.StatusCode, out, status)
	}
}

// tapChange adds or removes repositories. The answer has no body.
func (w *world) tapChange(t *testing.T, what string, dids ...string) {
	t.Helper()
	body := `{"dids":["` + strings.Join(dids, `","`) + `"]}`
	text := ""
	if w.tap(t, "POST", "/repos/"+what, body, 200, &text); text != "" {
		t.Errorf("%s: the body is %q", what, text)
	}
}

type tapRow struct {
	DID, Handle, State, Rev string
	Records                 int64
	Error                   string
	Retries                 int
}

// Repositories are added, which does nothing to known ones, and removed, which keeps the data. A
// repository that is added again is listed again.
func TestTapRepos(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.tap(t, "GET", "/info/"+alice, "", 404, &struct{}{})
	w.tapChange(t, "add", alice, alice, bob)
	var all map[string]any
	w.tap(t, "GET", "/info/"+alice, "", 200, &all)
	if want := map[string]any{"did": alice, "handle": "", "state": "pending", "rev": "", "records": 0.0}; !cmp.Equal(all, want) {
		t.Errorf("the answer is %v, want %v", all, want)
	}
	if w.woken.Load() == 0 {
		t.Error("adding did not wake backfill")
	}
	w.tapChange(t, "remove", alice, bob, storetest.DID(9))
	w.tap(t, "GET", "/info/"+alice, "", 404, &struct{}{})

	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x"), "app.test.a/two": storetest.Text("y")})
	before, err := w.store.Repo(alice)
	if err != nil {
		t.Fatal(err)
	}
	w.tapChange(t, "add", alice)
	after, err := w.store.Repo(alice)
	if err != nil || after.State != store.StateSynced || after.Attempt != before.Attempt || w.events(t) != 2 {
		t.Errorf("adding a known repository changed it: %s, attempt %d, %d events, %v", after.State, after.Attempt, w.events(t), err)
	}
	w.tapChange(t, "remove", alice)
	if row, err := w.store.Repo(alice); err != nil || row.Records != 2 || row.State != store.StateIdle {
		t.Errorf("removed: %s with %d records, %v", row.State, row.Records, err)
	}
	w.tapChange(t, "add", alice)
	var info tapRow
	if w.tap(t, "GET", "/info/"+alice, "", 200, &info); info.State != "desynchronized" || info.Records != 2 || info.Rev != before.Rev {
		t.Errorf("added again: %+v", info)
	}
	if n := w.events(t); n != 4 {
		t.Errorf("added again, %d events: want its records once more", n)
	}
}

// events returns how many events of records the log shows.
func (w *world) events(t *testing.T) (n int) {
	t.Helper()
	_, err := w.store.ReadLog(t.Context(), 0, 1000, func(ev *store.Event) error {
		if ev.Kind == store.KindRecord {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A list that is refused changes nothing, and the message names the bad value.
func TestTapRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	var filter struct{ Version uint64 }
	w.tap(t, "PATCH", "/filter", `{"excludes":["`+bob+`"]}`, 200, &filter)
	for _, c := range []struct {
		method, path, body, says string
		status                   int
	}{
		{"POST", "/repos/add", `{"dids":["` + alice + `","did:plc:short"]}`, "did:plc:short", 400},
		{"POST", "/repos/add", `{"dids":["` + alice + `","` + bob + `"]}`, bob, 400},
		{"POST", "/repos/remove", `{"dids":["alice.test"]}`, "alice.test", 400},
		{"POST", "/repos/add", `{"dids":"` + alice + `"}`, "dids", 400},
		{"POST", "/repos/add", `["` + alice + `"]`, "object", 400},
		{"POST", "/repos/add", `{"repos":[]}`, "repos", 400},
		{"POST", "/repos/add", `{"dids":[` + strings.Repeat(`"",`, 100_000) + `""]}`, "100001", 413},
		{"POST", "/repos/add", `{"dids":[` + strings.Repeat(" ", 8<<20) + `]}`, "8388608", 413},
		{"GET", "/info/alice.test", "", "alice.test", 400},
		{"GET", "/resolve/did:key:z", "", "did:key:z", 400},
		{"GET", "/info/" + alice, "", "repo not found", 404},
		{"GET", "/resolve/" + alice, "", alice, 404},
		{"GET", "/stats/none", "", "/stats/none", 404},
		{"GET", "/repos/add", "", "add", 400}, // GET /repos/{did}
	} {
		var r refused
		if w.tap(t, c.method, c.path, c.body, c.status, &r); !strings.Contains(r.Message, c.says) {
			t.Errorf("%s %.60s: %q does not name %s", c.path, c.body, r.Message, c.says)
		}
	}
	if n := w.store.Counts()["repos"]; n != 0 {
		t.Errorf("%d repositories were added", n)
	}
	if res := call(t, "POST", w.admin.URL+"/repos/add", `{"dids":[]}`, nil, nil); res.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("without a content type: %d", res.StatusCode)
	}
}

// A repository's state is told in tap's words.
func TestTapStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	type change = func(b *store.Batch, r *store.Repo)
	failed := func(kind store.ErrorKind) change {
		return func(b *store.Batch, r *store.Repo) {
			b.Defer(r, store.Retry{Next: 9, Count: 3, Kind: kind, Error: "it failed"})
		}
	}
	hidden := func(s store.Status) change {
		return func(b *store.Batch, r *store.Repo) { b.Hide(r, s, store.OriginHost, store.Retry{}) }
	}
	for _, c := range []struct {
		change change
		want   tapRow
	}{
		{func(*store.Batch, *store.Repo) {}, tapRow{State: "active"}},
		{failed(store.Generic), tapRow{State: "error", Error: "it failed", Retries: 3}},
		{failed(store.RateLimited), tapRow{State: "desynchronized", Error: "it failed", Retries: 3}},
		{hidden(store.StatusTakendown), tapRow{State: "takendown"}},
		{hidden(store.StatusSuspended), tapRow{State: "suspended"}},
		{hidden(store.StatusDeactivated), tapRow{State: "deactivated"}},
		{hidden(store.StatusDeleted), tapRow{State: "deleted"}},
		{hidden(store.StatusNotFound), tapRow{State: "error"}},
		{hidden(store.StatusInactive), tapRow{State: "error"}},
	} {
		did := storetest.DID(100 + w.revs)
		w.hold(t, did, storetest.Records{"app.test.a/one": storetest.Text("x")})
		w.update(t, did, c.change)
		c.want.DID, c.want.Handle, c.want.Rev, c.want.Records = did, "alice.test", storetest.Rev(w.revs), 1
		var got tapRow
		if w.tap(t, "GET", "/info/"+did, "", 200, &got); got != c.want {
			t.Errorf("%+v, want %+v", got, c.want)
		}
	}
}

// The numbers are those of the store, and the cursor that of the only source.
func TestTapStats(t *testing.T) {
	t.Parallel()
	sources := []admin.Source{{URL: "wss://relay.test", Cursor: 42}, {URL: "wss://pds.test", Direct: true, Cursor: 7}}
	w := newWorld(t, api.Options{Firehose: admin.Firehose{Sources: func() []admin.Source { return slices.Clone(sources) }}})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x"), "app.test.a/two": storetest.Text("y")})
	w.add(t, bob)
	w.tapChange(t, "add", storetest.DID(9))
	w.tapChange(t, "remove", storetest.DID(9))
	for path, want := range map[string]string{
		"/health":              `{"status":"ok"}`,
		"/stats/repo-count":    `{"repo_count":2}`,
		"/stats/record-count":  `{"record_count":2}`,
		"/stats/outbox-buffer": fmt.Sprintf(`{"outbox_buffer":%d}`, w.store.Head()),
		"/stats/resync-buffer": `{"resync_buffer":0}`,
		"/stats/cursors":       `{"firehose":42}`,
	} {
		var text string
		if w.tap(t, "GET", path, "", 200, &text); text != want {
			t.Errorf("%s: %s, want %s", path, text, want)
		}
	}
	w.subscribe(t, "PUT", "/subscriptions/tap", `{"start":2}`, 201)
	var text string
	if w.tap(t, "GET", "/stats/outbox-buffer", "", 200, &text); text != fmt.Sprintf(`{"outbox_buffer":%d}`, w.store.Head()-1) {
		t.Errorf("with a subscription that is behind: %s", text)
	}
	sources[1].Direct = false
	if w.tap(t, "GET", "/stats/cursors", "", 200, &text); text != `{}` {
		t.Errorf("with two sources: %s", text)
	}
}

// A document is that of the row, or is read for an account that the store does not know.
func TestTapResolve(t *testing.T) {
	t.Parallel()
	var err error
	w := newWorld(t, api.Options{Resolve: func(_ context.Context, did string) (identity.Identity, error) {
		return identity.Identity{DID: did, Handle: "bob.test", PDS: "https://far.test", Key: "did:key:zOther"}, err
	}})
	w.add(t, alice)
	w.update(t, alice, func(_ *store.Batch, r *store.Repo) { r.Resolved = 1 })
	type document struct {
		ID           string
		AlsoKnownAs  []string
		Service      []struct{ ID, ServiceEndpoint string }
		Verification []struct{ PublicKeyMultibase string } `json:"verificationMethod"`
	}
	for did, host := range map[string]string{alice: "https://pds.test", bob: "https://far.test"} {
		var d document
		w.tap(t, "GET", "/resolve/"+did, "", 200, &d)
		if d.ID != did || len(d.AlsoKnownAs) != 1 || len(d.Verification) != 1 || len(d.Service) != 1 ||
			d.Service[0].ServiceEndpoint != host || !strings.HasPrefix(d.Verification[0].PublicKeyMultibase, "z") {
			t.Errorf("%s: %+v", did, d)
		}
	}
	for _, c := range []struct {
		err    error
		status int
	}{{identity.ErrNotFound, 404}, {identity.ErrNoPDS, 404}, {errors.New("timeout"), 503}} {
		err = c.err
		w.tap(t, "GET", "/resolve/"+bob, "", c.status, nil)
	}
}

// When the daemon stops, the connection of a client of tap ends without a close frame.
func TestTapShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{DrainTimeout: 10 * time.Second, AdminToken: "secret"})
	public, admin := listenAny(t), listenAny(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var served errgroup.Group
	served.Go(func() error { return w.server.Serve(ctx, public, admin) })
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x"), "app.test.a/two": storetest.Text("y")})
	conn, err := net.Dial("tcp", admin.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "GET /channel HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: %s\r\n\r\n", tapAuth("admin", "secret")["Authorization"])
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	var frames []string
	for {
		var head [4]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			break // also a reset: what was not read is dropped
		}
		if head[0] != 0x81 || head[1] != 126 {
			t.Fatalf("a frame begins with %x", head)
		}
		body := make([]byte, int(head[2])<<8|int(head[3]))
		if _, err := io.ReadFull(in, body); err != nil {
			t.Fatal(err)
		}
		if frames = append(frames, string(body)); len(frames) == 2 {
			cancel()
		}
	}
	if len(frames) != 2 || !strings.Contains(frames[1], `"rkey":"two"`) {
		t.Errorf("got %q", frames)
	}
	if err := served.Wait(); err != nil {
		t.Errorf("the server did not drain: %v", err)
	}
}
