package api_test

import (
	"compress/gzip"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/alert"
	"cistern/api"
	"cistern/api/admin"
	"cistern/chart"
	"cistern/condition"
	"cistern/logbook"
	"cistern/store/storetest"
)

// TestStatusPage: with the option, any visitor gets the page, its parts and its figures, which load
// nothing from elsewhere and set no cookie; without it, there is no such page and no link to it.
func TestStatusPage(t *testing.T) {
	t.Parallel()
	off, on := newWorld(t, api.Options{}), newWorld(t, api.Options{StatusPage: true, AdminToken: "open&sesame!"})
	for _, path := range []string{"/status", "/status.json", "/status/status.js", "/status/style.css"} {
		if r := send(t, "GET", off.public.URL+path, "", nil, nil); r.code != 404 {
			t.Errorf("without the option %s answers %d", path, r.code)
		}
	}
	if page, _ := off.front(t); strings.Contains(page, `href="status"`) {
		t.Error("the page of the public listener links to a page that is not there")
	}
	if page, _ := on.front(t); !strings.Contains(page, `href="status"`) {
		t.Error("the page of the public listener does not link to the status page")
	}
	r := send(t, "GET", on.public.URL+"/status", "", browser, nil)
	if r.code != 200 || r.header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v", r.code, r.header)
	}
	wellFormed(t, r.text)
	targets := []string{"status/charts.js", "status/format.js", "status/states.js", "status/table.js"}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(r.text, -1) {
		targets = append(targets, html.UnescapeString(strings.TrimPrefix(m[1], "./")))
	}
	for _, target := range targets {
		r := send(t, "GET", on.public.URL+"/"+target, "", browser, nil)
		policy := r.header.Get("Content-Security-Policy")
		if r.code != 200 || r.cookie != nil || (target != "status.json" && (!strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe"))) {
			t.Errorf("%s: %d %v", target, r.code, r.header)
		}
	}
	for _, name := range []string{"app.js", "index.html", "login.html", "panels.js", "repos.js", "status.html", "nothing"} {
		if r := send(t, "GET", on.public.URL+"/status/"+name, "", nil, nil); r.code != 404 {
			t.Errorf("%s is served: %d", name, r.code)
		}
	}
	if r := send(t, "POST", on.public.URL+"/status.json", "", nil, nil); r.code != 405 {
		t.Errorf("a POST answers %d", r.code)
	}
}

// TestStatusPageIsPublic plants private texts in every part of the daemon that the dashboard shows,
// and looks for them in the status page and its figures.
func TestStatusPageIsPublic(t *testing.T) {
	t.Parallel()
	n := 0
	secret := func() string { n++; return fmt.Sprintf("private%d.test", n) }
	book := logbook.New()
	slog.New(book.Handler(slog.DiscardHandler)).Error(secret(), "err", secret())
	var subjects []alert.Subject
	for _, kind := range alert.Kinds {
		subjects = append(subjects, alert.Subject{Kind: kind, Name: secret(), Error: secret(), Now: alert.Alert, Since: time.Now()})
	}
	charts, err := chart.New(chart.Options{Series: []chart.Series{{Name: "live"}, {Name: "disk_used"}, {Name: admin.FreeSeries}, {Name: "received"}},
		Read: func() []float64 { return []float64{1.5, 987_654, 987_654, 987_654} }})
	if err != nil {
		t.Fatal(err)
	}
	charts.Look()
	w := newWorld(t, api.Options{StatusPage: true, Journal: book, Charts: charts,
		Alerts: func() []alert.Subject { return subjects },
		Conditions: func() []condition.Status {
			return []condition.Status{{Name: "disk", State: condition.Waiting, Reason: secret(), Subject: "/srv/" + secret(), Error: secret()}}
		},
		Disk: func() (admin.Disk, error) { return admin.Disk{Free: 987_654, Total: 987_654, Reserve: 987_654}, nil },
		Ingestion: admin.Ingestion{Backfill: admin.Switch{On: func() bool { return false }, Paused: func() []string { return []string{secret()} }},
			Crawler: admin.Switch{Paused: func() []string { return []string{secret()} }}},
		Firehose: admin.Firehose{Sources: func() []admin.Source {
			return []admin.Source{{URL: "wss://relay.example", Failures: 987_654, LastFailure: admin.SourceFailure{At: time.Now(), Kind: secret(), Detail: secret()},
				Cursor: 987_654, Seq: 987_654}}
		}},
	})
	w.hold(t, alice, storetest.Records{"app.test.note/private": storetest.Text("private")})
	w.add(t, bob)
	if _, err := w.store.HostID("private.host.test"); err != nil {
		t.Fatal(err)
	}
	subscription := `{"webhook":{"url":"https://private.hook.test/in"}}`
	if res := call(t, "PUT", w.admin.URL+"/subscriptions/private", subscription, jsonType, nil); res.StatusCode != 201 {
		t.Fatal(res.Status)
	}
	page := send(t, "GET", w.public.URL+"/status", "", browser, nil).text
	figures := send(t, "GET", w.public.URL+"/status.json", "", nil, nil).text
	for name, text := range map[string]string{"page": page, "JSON": figures} {
		for _, private := range []string{"private", "987654", "987_654", "/srv", "did:", alice, bob, "pds.test", "sizes"} {
			if strings.Contains(text, private) {
				t.Errorf("the %s has %q: %s", name, private, text)
			}
		}
	}
	for _, public := range []string{`"relay.example"`, "backfill and crawler paused", `"total":2`, `"live":[1.5]`, `"storage"`, "8 alerts"} {
		if !strings.Contains(figures, public) {
			t.Errorf("the JSON lacks %s: %s", public, figures)
		}
	}
}

// TestStatusPageCost: 1,000 visitors at a time cost one look at the daemon, until the answer is old.
func TestStatusPageCost(t *testing.T) {
	t.Parallel()
	var looks, sources atomic.Int64
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	w := newWorld(t, api.Options{StatusPage: true,
		Alerts:   func() []alert.Subject { looks.Add(1); return nil },
		Firehose: admin.Firehose{Sources: func() []admin.Source { sources.Add(1); return nil }}})
	w.server.SetStatusClock(func() time.Time { return time.Unix(0, now.Load()) })
	public := w.server.Public()
	bodies := map[string]bool{}
	visit := func(visitors int) {
		var all sync.WaitGroup
		var mu sync.Mutex
		for i := range visitors {
			all.Go(func() {
				r, res := httptest.NewRequest("GET", "/status.json", nil), httptest.NewRecorder()
				r.RemoteAddr = fmt.Sprintf("10.0.%d.%d:1", i/250, i%250)
				r.Header.Set("Accept-Encoding", []string{"", "gzip", "gzip, deflate, br", fmt.Sprintf("x%d", i), strings.Repeat("x", 1000)}[i%5])
				public.ServeHTTP(res, r)
				body := res.Body.String()
				if res.Header().Get("Content-Encoding") == "" {
					mu.Lock()
					bodies[body] = true
					mu.Unlock()
				}
				if res.Code != http.StatusOK || len(body) == 0 || res.Header().Get("Cache-Control") != "public, max-age=5" {
					t.Errorf("%d %v %s", res.Code, res.Header(), body)
				}
			})
		}
		all.Wait()
	}
	visit(1000)
	if looks.Load() != 1 || sources.Load() != 1 || len(bodies) != 1 {
		t.Errorf("1,000 visitors cost %d looks at the alerts, %d at the sources, and got %d answers", looks.Load(), sources.Load(), len(bodies))
	}
	now.Add(int64(5*time.Second - 1))
	visit(10)
	if looks.Load() != 1 {
		t.Error("the answer is made anew before it is old")
	}
	now.Add(1)
	visit(10)
	if looks.Load() != 2 {
		t.Errorf("an old answer was made anew %d times", looks.Load()-1)
	}
	now.Add(int64(-time.Hour)) // the clock was set back
	visit(1)
	if looks.Load() != 3 {
		t.Error("the answer stays as it is for an hour")
	}
}

// TestStatusPageIsCompressed: a client that accepts it gets a compressed answer with the same figures.
func TestStatusPageIsCompressed(t *testing.T) {
	t.Parallel()
	at := time.Now()
	charts, err := chart.New(chart.Options{Series: []chart.Series{{Name: "live"}}, Read: func() []float64 { return []float64{1} }, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	for range 400 {
		charts.Look()
		at = at.Add(10 * time.Second)
	}
	w := newWorld(t, api.Options{StatusPage: true, Charts: charts})
	plain := send(t, "GET", w.public.URL+"/status.json", "", map[string]string{"Accept-Encoding": "identity"}, nil)
	small := send(t, "GET", w.public.URL+"/status.json", "", map[string]string{"Accept-Encoding": "gzip"}, nil)
	if small.header.Get("Content-Encoding") != "gzip" || !strings.Contains(strings.Join(small.header.Values("Vary"), ","), "Accept-Encoding") || len(small.text) >= len(plain.text)/2 {
		t.Errorf("%d bytes of %d: %v", len(small.text), len(plain.text), small.header)
	}
	if r, err := gzip.NewReader(strings.NewReader(small.text)); err != nil {
		t.Error(err)
	} else if text, err := io.ReadAll(r); err != nil || string(text) != plain.text {
		t.Errorf("%s %v, want %s", text, err, plain.text)
	}
}
