package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"cistern/api"
	"cistern/api/deliver/delivertest"
	"cistern/api/durable"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
)

// subscribed is a subscription in JSON.
type subscribed struct {
	Name, Error, Message string
	Filter               map[string]any
	Next, Lag            uint64
	Outstanding          int
	Oldest               *float64 `json:"oldest_outstanding_seconds"`
	Share                string
	Connections          []durable.Connection
}

func (w *world) subscribe(t *testing.T, method, path, body string, status int) (s subscribed) {
	t.Helper()
	res := call(t, method, w.admin.URL+path, body, map[string]string{"Content-Type": "application/json"}, &s)
	if res.StatusCode != status {
		t.Errorf("%s %s %s: %d %+v, want %d", method, path, body, res.StatusCode, s, status)
	}
	return s
}

// A durable subscription is made, followed, changed and deleted over HTTP.
func TestSubscriptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x"), "app.test.b/two": storetest.Text("y")})
	head := w.store.Head()
	w.subscribe(t, "GET", "/subscriptions/a", "", 404)
	s := w.subscribe(t, "PUT", "/subscriptions/a", `{"filter":{"collections":["app.test.a"],"kinds":["record"],"live":false},"start":"oldest"}`, 201)
	if s.Name != "a" || s.Next != 1 || s.Lag != head || s.Oldest != nil || fmt.Sprint(s.Filter) != "map[collections:[app.test.a] kinds:[record] live:false]" {
		t.Errorf("%+v", s)
	}
	if s := w.subscribe(t, "PUT", "/subscriptions/head", `{}`, 201); s.Next != head+1 || s.Lag != 0 || len(s.Filter) != 0 {
		t.Errorf("%+v", s)
	}
	if s := w.subscribe(t, "PUT", "/subscriptions/at", `{"start":2}`, 201); s.Next != 2 {
		t.Errorf("%+v", s)
	}
	if s := w.subscribe(t, "PUT", "/subscriptions/since", `{"start":"2006-01-02T15:04:05Z","share":"did"}`, 201); s.Next != 1 || s.Share != "did" {
		t.Errorf("%+v", s)
	}
	w.subscribe(t, "DELETE", "/subscriptions/since", "", 200)
	ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(w.admin.URL, "http")+"/subscriptions/a/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	m := delivertest.Next(t, ws)
	if m.Record == nil || m.Record.Rkey != "one" {
		t.Fatalf("%+v", m)
	}
	if s := w.subscribe(t, "GET", "/subscriptions/a", "", 200); s.Outstanding != 1 || len(s.Connections) != 1 || s.Connections[0] != (durable.Connection{Number: 1, Outstanding: 1}) || s.Oldest == nil {
		t.Errorf("%+v", s)
	}
	if s := w.subscribe(t, "GET", "/subscriptions/a/events", "", 409); !strings.Contains(s.Message, "open connection") {
		t.Errorf("%+v", s)
	}
	// The position stays with another filter.
	if s := w.subscribe(t, "PUT", "/subscriptions/a", `{"start":"oldest"}`, 200); s.Next != head+1 || len(s.Filter) != 0 {
		t.Errorf("%+v", s)
	}
	w.update(t, alice, func(b *store.Batch, r *store.Repo) { b.Identity(r) })
	if m := delivertest.Next(t, ws); m.ID != head+1 || m.Identity == nil {
		t.Errorf("%+v", m)
	}
	var metrics string
	call(t, "GET", w.admin.URL+"/metrics", "", nil, &metrics)
	for _, line := range []string{`lag_events{name="at"} ` + fmt.Sprint(head), `outstanding_events{name="a"} 2`, `redelivered_total{name="a"} 0`,
		`connections{name="a"} 1`, `connections{name="at"} 0`, `oldest_outstanding_seconds{name="at"} 0`} {
		if !strings.Contains(metrics, "cistern_api_subscription_"+line+"\n") {
			t.Errorf("no metric %s", line)
		}
	}
	replay := func(body string, status int) subscribed {
		t.Helper()
		return w.subscribe(t, "POST", "/subscriptions/a/replay", body, status)
	}
	for body, want := range map[string]string{`{}`: "start is missing", `{"start":"then"}`: `then`, `{"start":99}`: "99"} {
		if s := replay(body, 400); !strings.Contains(s.Message, want) {
			t.Errorf("%s: %+v", body, s)
		}
	}
	w.subscribe(t, "POST", "/subscriptions/none/replay", `{"start":"oldest"}`, 404)
	if s := replay(`{"start":2}`, 200); s.Next != 2 || s.Outstanding != 0 || len(s.Connections) != 0 {
		t.Errorf("%+v", s)
	}
	delivertest.Ends(t, ws, websocket.CloseServiceRestart)
	if s := replay(`{"start":"head"}`, 200); s.Next != head+2 || s.Lag != 0 {
		t.Errorf("%+v", s)
	}
	if s := replay(`{"start":"2006-01-02T15:04:05Z"}`, 200); s.Next != 1 {
		t.Errorf("%+v", s)
	}
	if ws, _, err = websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(w.admin.URL, "http")+"/subscriptions/a/events", nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	delivertest.WantIDs(t, ws, 1, head-1) // the last one is of kind repo
	delivertest.WantIDs(t, ws, head+1, head+1)
	w.subscribe(t, "DELETE", "/subscriptions/a", "", 200)
	if m := delivertest.Next(t, ws); m.Error != "NotFound" {
		t.Errorf("%+v", m)
	}
	w.subscribe(t, "DELETE", "/subscriptions/a", "", 404)
	var all []subscribed
	call(t, "GET", w.admin.URL+"/subscriptions", "", map[string]string{"Accept": "application/json"}, &all)
	if len(all) != 2 || all[0].Name != "at" || all[1].Name != "head" {
		t.Errorf("%+v", all)
	}
}

// What a subscription cannot be made of is refused, and there are at most a hundred.
func TestSubscriptionRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	for _, c := range []struct{ path, body, error, says string }{
		{"/subscriptions/A", `{}`, "InvalidRequest", `name "A"`},
		{"/subscriptions/a", `[]`, "InvalidRequest", "object"},
		{"/subscriptions/a", `{"more":1}`, "InvalidRequest", "more"},
		{"/subscriptions/a", `{"start":"middle"}`, "InvalidRequest", "middle"},
		{"/subscriptions/a", `{"start":-1}`, "InvalidRequest", "-1"},
		{"/subscriptions/a", `{"start":"2026-13-02T15:04:05Z"}`, "InvalidRequest", "2026-13-02"},
		{"/subscriptions/a", `{"share":"random"}`, "InvalidRequest", `share "random"`},
		{"/subscriptions/a", `{"share":1}`, "InvalidRequest", "share"},
		{"/subscriptions/a", `{"webhook":{"url":"http://a.test"}}`, "InvalidRequest", "is not https"},
		{"/subscriptions/a", `{"webhook":{"url":"https://127.0.0.1/"}}`, "InvalidRequest", "loopback"},
		{"/subscriptions/a", `{"webhook":{"url":"https://a.test","secret":"x"}}`, "InvalidRequest", "secret"},
		{"/subscriptions/a", `{"start":9}`, "FutureCursor", "9"},
		{"/subscriptions/a", `{"filter":{"collections":["nope"]}}`, "InvalidRequest", "nope"},
		{"/subscriptions/a", `{"filter":{"live":"true"}}`, "InvalidRequest", "live"},
		{"/subscriptions/a", `{"filter":{"kinds":["commit"]}}`, "InvalidRequest", "commit"},
	} {
		if s := w.subscribe(t, "PUT", c.path, c.body, 400); s.Error != c.error || !strings.Contains(s.Message, c.says) {
			t.Errorf("%s %s: %+v, want %s with %s", c.path, c.body, s, c.error, c.says)
		}
	}
	for i := range 100 {
		w.subscribe(t, "PUT", fmt.Sprintf("/subscriptions/s%d", i), `{}`, http.StatusCreated)
	}
	if s := w.subscribe(t, "PUT", "/subscriptions/more", `{}`, 400); !strings.Contains(s.Message, "100") {
		t.Errorf("%+v", s)
	}
	w.subscribe(t, "PUT", "/subscriptions/s7", `{}`, 200)
}

// A webhook is put, seen, resumed and removed over HTTP, and its subscription takes no connections.
func TestWebhook(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	type hooked struct{ Webhook *durable.WebhookStatus }
	ask := func(method, path, body string, status int) *durable.WebhookStatus {
		t.Helper()
		var h hooked
		res := call(t, method, w.admin.URL+path, body, map[string]string{"Content-Type": "application/json"}, &h)
		if res.StatusCode != status {
			t.Errorf("%s %s %s: %d, want %d", method, path, body, res.StatusCode, status)
		}
		return h.Webhook
	}
	h := ask("PUT", "/subscriptions/a", `{"webhook":{"url":"https://hook.test/in","events":20}}`, 201)
	if h == nil || h.NewSecret == "" || h.Events != 20 || h.Requests != 4 || h.Secrets != 1 || h.State != "idle" {
		t.Fatalf("%+v", h)
	}
	secret := h.NewSecret
	for _, h := range []*durable.WebhookStatus{
		ask("GET", "/subscriptions/a", "", 200), ask("POST", "/subscriptions/a/resume", "", 200),
		ask("PUT", "/subscriptions/a", `{"webhook":{"url":"https://hook.test/in","secrets":["`+secret+`"]}}`, 200),
	} {
		if h == nil || h.NewSecret != "" || h.URL != "https://hook.test/in" || h.Secrets != 1 {
			t.Errorf("%+v", h)
		}
	}
	if s := w.subscribe(t, "GET", "/subscriptions/a/events", "", 409); !strings.Contains(s.Message, "has a webhook") {
		t.Errorf("%+v", s)
	}
	var metrics, all string
	call(t, "GET", w.admin.URL+"/metrics", "", nil, &metrics)
	call(t, "GET", w.admin.URL+"/subscriptions", "", nil, &all)
	if line := "cistern_api_subscription_webhook_parked{name=\"a\"} 0\n"; !strings.Contains(metrics, line) {
		t.Errorf("no metric %s", line)
	}
	if strings.Contains(metrics+all, "whsec") || !strings.Contains(all, "hook.test") {
		t.Error(all)
	}
	if h := ask("PUT", "/subscriptions/a", `{}`, 200); h != nil {
		t.Errorf("%+v", h)
	}
	w.subscribe(t, "POST", "/subscriptions/a/resume", "", 400)
	w.subscribe(t, "POST", "/subscriptions/b/resume", "", 404)
}
