package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/alert"
	"cistern/api"
	"cistern/api/admin"
	"cistern/backfill/pace"
	"cistern/chart"
	"cistern/condition"
	"cistern/filter"
	"cistern/logbook"
	"cistern/store"
	"cistern/store/storetest"
	"cistern/verdict"

	"github.com/google/go-cmp/cmp"
)

// overview has the fields of an overview that the tests look at.
type overview struct {
	Time, Started, Version string
	Login                  bool
	Verdict                verdict.Verdict
	Stats                  json.RawMessage
	Disk                   *struct {
		Free, Total, Reserve uint64
		PerDay               *float64 `json:"per_day"`
		Short                string
	}
	Sources struct {
		Total int
		Items []struct{ URL string }
	}
	Hosts struct {
		States map[string]int
		Total  int
		Items  []struct {
			Host, State string
			Queued      int64
		}
	}
	Subscriptions []struct {
		Name string
		Lag  int
	}
	Alerts struct {
		Total int
		Items []struct{ Subject, State string }
	}
	Alerting int
	Charts   map[string]struct {
		Step, Start float64
		Series      map[string][]*float64
	}
	Log []struct {
		ID                         uint64
		Level, Message, Attributes string
	}
}

func (w *world) overview(t testing.TB, query string) (o overview) {
	t.Helper()
	if res := call(t, "GET", w.admin.URL+"/overview"+query, "", nil, &o); res.StatusCode != 200 {
		t.Fatalf("/overview%s: %d", query, res.StatusCode)
	}
	return o
}

// gauge is a recorder of the free space of a disk, which shrinks by a byte a second.
func freeSpace(t testing.TB, now *time.Time) *chart.Recorder {
	t.Helper()
	begin := *now
	r, err := chart.New(chart.Options{
		Series: []chart.Series{{Name: "steps", Counter: true}, {Name: admin.FreeSeries}},
		Read: func() []float64 {
			passed := now.Sub(begin).Seconds()
			return []float64{2 * passed, 1_000_000 - passed}
		},
		Now: func() time.Time { return *now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestOverview: one answer has what the other routes show.
func TestOverview(t *testing.T) {
	t.Parallel()
	book := logbook.New()
	log := slog.New(book.Handler(slog.DiscardHandler))
	subjects := []alert.Subject{{Kind: alert.Host, Name: "a", Now: alert.Grace},
		{Kind: alert.Source, Name: "b", Now: alert.Alert}}
	now := time.Now().Add(-10 * time.Minute)
	charts := freeSpace(t, &now)
	for range 60 {
		charts.Look()
		now = now.Add(10 * time.Second)
	}
	sources := []admin.Source{{URL: "wss://ok.test", Running: true}, {URL: "wss://late.test", Running: true, Lag: time.Hour}, {URL: "wss://down.test", Failures: 3, LastFailure: admin.SourceFailure{Detail: "503"}}}
	w := newWorld(t, api.Options{Journal: book, Charts: charts, Version: "v1",
		Alerts:     func() []alert.Subject { return slices.Clone(subjects) },
		Conditions: func() []condition.Status { return []condition.Status{{Name: "disk", State: condition.OK}} },
		Firehose:   admin.Firehose{Sources: func() []admin.Source { return slices.Clone(sources) }},
		Ignored:    func() []verdict.Ignored { return []verdict.Ignored{{Option: "--mode full", Held: "filter"}} },
		Disk:       func() (admin.Disk, error) { return admin.Disk{Free: 864_000, Total: 2_000_000, Reserve: 432_000}, nil },
	})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.add(t, bob)
	call(t, "PUT", w.admin.URL+"/subscriptions/search", `{"filter":{"dids":["`+alice+`"]},"start":"oldest"}`, jsonType, nil)
	log.Info("first", "n", 1)
	log.Warn("second")

	o := w.overview(t, "")
	var want, got any
	call(t, "GET", w.admin.URL+"/stats", "", nil, &want)
	if err := json.Unmarshal(o.Stats, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("/overview has other figures than /stats: %s", diff)
	}
	if o.Version != "v1" || o.Login || o.Alerting != 1 || o.Alerts.Total != 2 || o.Alerts.Items[0].Subject != "b" {
		t.Errorf("%+v", o)
	}
	var urls []string
	for _, s := range o.Sources.Items {
		urls = append(urls, s.URL)
	}
	if text := strings.Join(urls, " "); o.Sources.Total != 3 || text != "wss://down.test wss://late.test wss://ok.test" {
		t.Errorf("sources in the order %s", text)
	}
	if len(o.Subscriptions) != 1 || o.Subscriptions[0].Name != "search" || o.Subscriptions[0].Lag != int(w.store.Head()) {
		t.Errorf("subscriptions %+v", o.Subscriptions)
	}
	// alice is tracked; the disk is short in five days
	if v := o.Verdict; v.Level != "bad" || !v.Ready || len(v.Problems) != 2 || len(v.Notes) != 3 ||
		!strings.HasPrefix(v.Problems[0], "alert: source b ") || v.Problems[1] != "not connected: wss://down.test: 503" ||
		!strings.HasPrefix(v.Notes[1], "the disk reaches its reserve ") || !strings.HasPrefix(v.Notes[2], "--mode full is ignored") {
		t.Errorf("verdict %+v", v)
	}
	if d := o.Disk; d == nil || d.Free != 864_000 || d.PerDay == nil || *d.PerDay > -86_300 || *d.PerDay < -86_500 {
		t.Errorf("disk %+v", d)
	} else if short, err := time.Parse(time.RFC3339, d.Short); err != nil || time.Until(short) < 119*time.Hour || time.Until(short) > 121*time.Hour {
		t.Errorf("the reserve is reached at %s, in five days: %v", d.Short, err)
	}
	hour := o.Charts["hour"]
	if points := hour.Series["steps"]; hour.Step != 10 || len(points) < 60 || points[0] != nil || *points[1] != 2 || o.Charts["day"].Step != 300 {
		t.Errorf("charts %+v", o.Charts)
	}
	if len(o.Log) != 2 || o.Log[0].Message != "first" || o.Log[0].Attributes != "n=1" || o.Log[1].Level != "WARN" {
		t.Errorf("log %+v", o.Log)
	}

	newest := hour.Start + hour.Step*float64(len(hour.Series["steps"])-1)
	next := w.overview(t, fmt.Sprintf("?hour=%.0f&day=9999999999999999&log=1", newest))
	if n := len(next.Charts["hour"].Series["steps"]); n != 1 || next.Charts["hour"].Start != newest {
		t.Errorf("a refresh has %d points from %.0f on", n, next.Charts["hour"].Start)
	}
	if n := len(next.Charts["day"].Series["steps"]); n != 0 || len(next.Log) != 1 || next.Log[0].ID != 2 {
		t.Errorf("a refresh has %d points of days, and %+v", n, next.Log)
	}
	var e refused
	if res := call(t, "GET", w.admin.URL+"/overview?hour=x", "", nil, &e); res.StatusCode != 400 {
		t.Errorf("a wrong time: %d %+v", res.StatusCode, e)
	}
}

// TestOverviewOfLittle: without charts, a log and a disk that can be read the other parts are there.
func TestOverviewOfLittle(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{AdminToken: "secret", Disk: func() (admin.Disk, error) { return admin.Disk{}, errors.New("no disk") }})
	var o overview
	res := call(t, "GET", w.admin.URL+"/overview", "", map[string]string{"Authorization": "Bearer secret"}, &o)
	if res.StatusCode != 200 || !o.Login || o.Disk != nil || len(o.Charts) != 0 || o.Log == nil || o.Sources.Items == nil {
		t.Errorf("%d %+v", res.StatusCode, o)
	}
}

// manyHosts makes a store know n hosts, each with a row of its own. Some of them fail.
func manyHosts(t testing.TB, n int) (*store.Store, admin.Hosts) {
	t.Helper()
	s := storetest.Open(t, store.Options{})
	for i := range n {
		if _, err := s.SetHost(fmt.Sprintf("pds%05d.test", i), func(*store.HostRow) {}); err != nil {
			t.Fatal(err)
		}
	}
	return s, admin.Hosts{Standing: func(id uint32) (st admin.HostStanding) {
		if id%100 == 7 {
			st.View = pace.View{FailingSince: time.Unix(1_800_000_000, 0)}
		}
		return st
	}}
}

// TestOverviewOfManyHosts: the hosts that fail are shown before all others, and an answer has a
// bounded number of them.
func TestOverviewOfManyHosts(t *testing.T) {
	t.Parallel()
	s, standing := manyHosts(t, 300)
	w := newWorldOn(t, s, api.Options{Hosts: standing})
	o := w.overview(t, "")
	if o.Hosts.Total != 300 || o.Hosts.States["failing"] != 3 || o.Hosts.States["ok"] != 297 || o.Hosts.States["banned"] != 0 || len(o.Hosts.Items) != 50 {
		t.Errorf("%d hosts, %v, %d shown", o.Hosts.Total, o.Hosts.States, len(o.Hosts.Items))
	}
	for i, h := range o.Hosts.Items {
		if (h.State == "failing") != (i < 3) {
			t.Errorf("host %d is %s, %s", i, h.Host, h.State)
		}
	}
}

// BenchmarkOverview is a refresh of the dashboard with the hosts of the real network, and a log and
// charts that are full. A refresh every five seconds may cost 50 ms: one percent of a processor.
func BenchmarkOverview(b *testing.B) {
	book := logbook.New()
	log := slog.New(book.Handler(slog.DiscardHandler))
	for i := range 1000 {
		log.Warn("malformed message from source; further ones on this connection are not logged", "source", "wss://relay.test", "seq", i)
	}
	now := time.Now().Add(-24 * time.Hour)
	charts := freeSpace(b, &now)
	for range 8640 {
		charts.Look()
		now = now.Add(10 * time.Second)
	}
	sources := make([]admin.Source, 500)
	for i := range sources {
		sources[i] = admin.Source{URL: fmt.Sprintf("wss://pds%d.test", i), Running: i%7 != 0, Failures: i % 7}
	}
	s, standing := manyHosts(b, 3000)
	server, err := api.New(api.Options{Store: s, Hosts: standing, Journal: book, Charts: charts,
		Firehose: admin.Firehose{Sources: func() []admin.Source { return slices.Clone(sources) }},
		Disk:     func() (admin.Disk, error) { return admin.Disk{Free: 1 << 40, Total: 2 << 40}, nil }})
	if err != nil {
		b.Fatal(err)
	}
	admin := server.Admin()
	for name, query := range map[string]string{
		"first": "/overview",
		"next":  fmt.Sprintf("/overview?hour=%d&day=%[1]d&log=999", now.Unix()-10),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			size := 0
			for b.Loop() {
				r, w := httptest.NewRequest("GET", query, nil), httptest.NewRecorder()
				r.Host = "localhost"
				if admin.ServeHTTP(w, r); w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body)
				}
				size = w.Body.Len()
			}
			b.ReportMetric(float64(size), "bytes/answer")
		})
	}
}

// TestRelaysAreNoHosts: a host that is followed and has no repositories is not among the hosts of an
// overview, and one that has some is.
func TestRelaysAreNoHosts(t *testing.T) {
	t.Parallel()
	sources := []admin.Source{{URL: "wss://relay.test"}}
	w := newWorld(t, api.Options{Firehose: admin.Firehose{Sources: func() []admin.Source { return sources }}})
	for _, name := range []string{"relay.test", "pds.test"} {
		if _, err := w.store.HostID(name); err != nil {
			t.Fatal(err)
		}
	}
	if o := w.overview(t, ""); o.Hosts.Total != 1 || o.Hosts.Items[0].Host != "pds.test" {
		t.Errorf("%+v", o.Hosts)
	}
}

// TestOverviewOfNothingTracked: the verdict notes a filter that can find nothing, in each mode and with
// each kind of source, until a repository is tracked.
func TestOverviewOfNothingTracked(t *testing.T) {
	t.Parallel()
	crawls := func(all ...admin.Crawl) admin.Crawler {
		return admin.Crawler{Sources: func() []admin.Crawl { return all }}
	}
	relay := admin.Firehose{Sources: func() []admin.Source { return []admin.Source{{URL: "wss://relay.test", Running: true}} }}
	for name, c := range map[string]struct {
		filter filter.Config
		o      api.Options
		notes  bool
	}{
		"a relay in mode filter":           {filter.Config{}, api.Options{Firehose: relay, Crawler: crawls(admin.Crawl{Implied: true})}, true},
		"a relay in mode full":             {filter.Config{Mode: filter.ModeFull}, api.Options{Firehose: relay}, false},
		"a crawl source in mode full":      {filter.Config{Mode: filter.ModeFull}, api.Options{Crawler: crawls(admin.Crawl{Implied: true})}, false},
		"mode full without a source":       {filter.Config{Mode: filter.ModeFull}, api.Options{}, true},
		"a signal and a relay":             {filter.Config{Signals: []string{"app.test.a"}}, api.Options{Firehose: relay}, false},
		"a signal without a source":        {filter.Config{Signals: []string{"app.test.a"}}, api.Options{}, true},
		"a crawl source that is named":     {filter.Config{}, api.Options{Crawler: crawls(admin.Crawl{Implied: true}, admin.Crawl{Named: true})}, false},
		"a crawl source that was added":    {filter.Config{}, api.Options{Crawler: crawls(admin.Crawl{Persisted: true})}, false},
		"nothing at all, as with --listen": {filter.Config{}, api.Options{}, true},
	} {
		w := newWorld(t, c.o)
		if _, err := w.store.SetFilter(c.filter); err != nil {
			t.Fatal(err)
		}
		noted := func() bool {
			return strings.Contains(strings.Join(w.overview(t, "").Verdict.Notes, "\n"), "nothing is tracked")
		}
		if noted() != c.notes {
			t.Errorf("%s: noted is %t", name, !c.notes)
		}
		w.add(t, bob)
		if noted() {
			t.Errorf("%s: nothing is tracked, with a repository", name)
		}
	}
}

// TestOverviewUnready: the verdict of a daemon that stops is that of its probe.
func TestOverviewUnready(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{Stopping: func() bool { return true }})
	if v := w.overview(t, "").Verdict; v.Ready || v.Level != verdict.Bad || v.Problems[0] != "not ready: the daemon is stopping" {
		t.Errorf("%+v", v)
	}
}
