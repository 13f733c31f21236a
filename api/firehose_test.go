package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/admin"
	"cistern/store"

	"github.com/google/go-cmp/cmp"
)

// fakeFirehose is a set of sources without connections.
type fakeFirehose struct {
	mu      sync.Mutex
	sources []admin.Source
	cursors map[string]bool
	fail    error
}

func (f *fakeFirehose) index(url string) int {
	return slices.IndexFunc(f.sources, func(src admin.Source) bool { return src.URL == url })
}

func (f *fakeFirehose) options() admin.Firehose {
	locked := func(do func() error) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		return errors.Join(f.fail, do())
	}
	return admin.Firehose{
		Sources: func() []admin.Source {
			f.mu.Lock()
			defer f.mu.Unlock()
			return slices.Clone(f.sources)
		},
		Parse: func(url string, pds bool) (store.Source, error) {
			host, ok := strings.CutPrefix(strings.TrimRight(strings.ToLower(url), "/"), "wss://")
			if !ok || host == "" {
				return store.Source{}, fmt.Errorf("source %.200q: want wss://host", url)
			}
			return store.Source{URL: "wss://" + host, PDS: pds}, nil
		},
		Add: func(src store.Source) error {
			return locked(func() error {
				f.sources = append(f.sources, admin.Source{URL: src.URL, PDS: src.PDS, Persisted: true})
				return nil
			})
		},
		Remove: func(url string) error {
			return locked(func() error {
				i := f.index(url)
				if i < 0 {
					return fmt.Errorf("remove %s: %w", url, store.ErrNotFound)
				}
				f.sources = slices.Delete(f.sources, i, i+1)
				return nil
			})
		},
		Forget: func(url string) error {
			return locked(func() error {
				if !f.cursors[url] {
					return store.ErrNotFound
				}
				delete(f.cursors, url)
				return nil
			})
		},
	}
}

func newFakeFirehose() *fakeFirehose {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	return &fakeFirehose{cursors: map[string]bool{"wss://relay.test": true}, sources: []admin.Source{
		{URL: "wss://pds.test:8443/base", PDS: true, Persisted: true, Failures: 3, RetryIn: 1500 * time.Millisecond,
			LastFailure: admin.SourceFailure{At: at, Kind: "dial", Detail: "connection refused"}, Bytes: 5, Refused: 2},
		{URL: "wss://relay.test", Running: true, Cursor: 10, Seq: 12, Events: 7, Bytes: 900, BadFrames: 1, LastEvent: at, Lag: 250 * time.Millisecond},
	}}
}

func TestSources(t *testing.T) {
	t.Parallel()
	f := newFakeFirehose()
	w := newWorld(t, api.Options{Firehose: f.options()})
	var text string
	call(t, "GET", w.admin.URL+"/firehose/sources", "", nil, &text)
	want := `[{"url":"wss://pds.test:8443/base","is_pds":true,"persisted":true,"running":false,"failing":true,"consecutive_failures":3,"retry_in_secs":1.5,` +
		`"last_failure":{"at":"2026-01-02T03:04:05.6Z","kind":"dial","detail":"connection refused"},` +
		`"stats":{"cursor":0,"seq":0,"events":0,"bytes":5,"bad_frames":0,"refused":2,"lag_seconds":0}},` +
		`{"url":"wss://relay.test","is_pds":false,"persisted":false,"running":true,"failing":false,"consecutive_failures":0,` +
		`"stats":{"cursor":10,"seq":12,"events":7,"bytes":900,"bad_frames":1,"refused":0,"last_event":"2026-01-02T03:04:05.6Z","lag_seconds":0.25}}]`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	const pds, relay = "wss://pds.test:8443/base", "wss://relay.test"
	for query, want := range map[string]string{
		"is_pds=true": pds, "is_pds=false": relay, "running=true": relay, "running=false": pds, "failing=true": pds, "failing=false": relay,
		"host=RELAY.test": relay, "host=pds.test:8443": pds, "host=pds.test": "", "url=wss://Relay.test/": relay, "url=wss://other.test": "",
		"is_pds=true&running=true": "", "is_pds=true&failing=true&host=pds.test:8443": pds, "is_pds=": pds + " " + relay,
	} {
		var got []struct{ URL string }
		call(t, "GET", w.admin.URL+"/firehose/sources?"+query, "", nil, &got)
		var urls []string
		for _, src := range got {
			urls = append(urls, src.URL)
		}
		if strings.Join(urls, " ") != want {
			t.Errorf("%s: got %s", query, urls)
		}
	}
	for query, says := range map[string]string{"is_pds=1": `"1"`, "running=x": `"x"`, "failing=no": `"no"`, "host=wss://x/y": `"wss://x/y"`, "url=ftp://x": `"ftp://x"`} {
		var e refused
		if res := call(t, "GET", w.admin.URL+"/firehose/sources?"+query, "", nil, &e); res.StatusCode != 400 || !strings.Contains(e.Message, says) {
			t.Errorf("%s: %d %+v", query, res.StatusCode, e)
		}
	}
	if res := call(t, "GET", w.public.URL+"/firehose/sources", "", nil, nil); res.StatusCode != 404 {
		t.Errorf("the public listener shows sources: %d", res.StatusCode)
	}
	var stats struct{ Firehose map[string]float64 }
	call(t, "GET", w.public.URL+"/stats", "", nil, &stats)
	if diff := cmp.Diff(map[string]float64{"sources": 2, "running": 1, "failing": 1, "events": 7, "bytes": 905, "bad_frames": 1, "refused": 2, "lag_seconds": 0.25}, stats.Firehose); diff != "" {
		t.Error(diff)
	}
}

func TestSourceChanges(t *testing.T) {
	t.Parallel()
	f := newFakeFirehose()
	f.sources = append(f.sources, admin.Source{URL: "wss://named.test", Named: true})
	w := newWorld(t, api.Options{Firehose: f.options()})
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string // in the answer
	}{
		{"POST", "/firehose/sources", `{"url":"wss://New.test/"}`, 201, `{"url":"wss://new.test","is_pds":false}`},
		{"POST", "/firehose/sources", `{"url":"wss://host.test","is_pds":true}`, 201, `{"url":"wss://host.test","is_pds":true}`},
		{"POST", "/firehose/sources", `{"url":"ftp://x"}`, 400, `ftp://x`},
		{"POST", "/firehose/sources", `{"url":7}`, 400, "url is a number"},
		{"POST", "/firehose/sources", `{"url":"wss://x.test","is_pds":"yes"}`, 400, "is_pds is a string"},
		{"POST", "/firehose/sources", `{"url":"wss://x.test","pds":true}`, 400, "pds"}, // a misspelt field must not be passed over
		{"POST", "/firehose/sources", `{}`, 400, "lacks url"},
		{"POST", "/firehose/sources", `["wss://x.test"]`, 400, "want a JSON object"},
		{"POST", "/firehose/sources", `{"url":"wss://x.test"} {}`, 400, "goes on"},
		{"POST", "/firehose/sources", ``, 400, "want a JSON object"},
		{"POST", "/firehose/sources", `{"url":"` + strings.Repeat("x", 1<<16) + `"}`, 413, "longer"},
		{"DELETE", "/firehose/sources", `{"url":"wss://NEW.test"}`, 200, "wss://new.test"},
		{"DELETE", "/firehose/sources", `{"url":"wss://new.test"}`, 404, "wss://new.test"},
		{"DELETE", "/firehose/sources", `{"url":"wss://named.test"}`, 200, "stays removed after a restart"},
		{"DELETE", "/firehose/sources", `{"key":"wss://new.test"}`, 400, "key"},
		{"DELETE", "/firehose/sources", `{"url":"x"}`, 400, `\"x\"`},
		{"DELETE", "/firehose/cursors", `{"key":"wss://relay.test"}`, 200, "wss://relay.test"},
		{"DELETE", "/firehose/cursors", `{"key":"wss://relay.test"}`, 404, "has no cursor"},
		{"DELETE", "/firehose/cursors", `{}`, 400, "lacks key"},
		{"PUT", "/firehose/sources", `{}`, 405, "GET and POST and DELETE"},
	} {
		var text string
		res := call(t, c.method, w.admin.URL+c.path, c.body, jsonType, &text)
		if res.StatusCode != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %.80s: %d %s", c.method, c.path, c.body, res.StatusCode, text)
		}
	}
	if i := f.index("wss://host.test"); len(f.sources) != 3 || i < 0 || !f.sources[i].PDS {
		t.Errorf("left are %+v", f.sources)
	}
	if res := call(t, "POST", w.admin.URL+"/firehose/sources", `{"url":"wss://x.test"}`, nil, nil); res.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("without a content type: %d", res.StatusCode)
	}
	f.fail = errors.New("secret of the store")
	var e refused
	if res := call(t, "POST", w.admin.URL+"/firehose/sources", `{"url":"wss://x.test"}`, jsonType, &e); res.StatusCode != 500 || strings.Contains(e.Message, "secret") {
		t.Errorf("a failed store: %d %+v", res.StatusCode, e)
	}
	f.fail = nil
	for i := len(f.sources); i < 1000; i++ {
		f.sources = append(f.sources, admin.Source{URL: fmt.Sprintf("wss://%d.test", i)})
	}
	if res := call(t, "POST", w.admin.URL+"/firehose/sources", `{"url":"wss://y.test"}`, jsonType, &e); res.StatusCode != 400 || !strings.Contains(e.Message, "1000") {
		t.Errorf("the 1001st source: %d %+v", res.StatusCode, e)
	}
	if res := call(t, "POST", w.admin.URL+"/firehose/sources", `{"url":"wss://host.test","is_pds":false}`, jsonType, nil); res.StatusCode != 201 || f.sources[len(f.sources)-1].URL != "wss://host.test" {
		t.Errorf("a change among 1000 sources: %d", res.StatusCode)
	}
}

func TestNoFirehose(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	for _, c := range [][3]string{
		{"GET", "/firehose/sources", ""}, {"POST", "/firehose/sources", `{"url":"wss://x.test"}`}, {"DELETE", "/firehose/sources", `{"url":"wss://x.test"}`},
		{"DELETE", "/firehose/cursors", `{"key":"wss://x.test"}`},
	} {
		if res := call(t, c[0], w.admin.URL+c[1], c[2], jsonType, nil); res.StatusCode != 501 {
			t.Errorf("%s %s: %d", c[0], c[1], res.StatusCode)
		}
	}
}

func TestIngestion(t *testing.T) {
	t.Parallel()
	on, sets := map[string]bool{"crawler": true, "firehose": true, "backfill": true}, 0
	part := func(name string) admin.Switch {
		return admin.Switch{On: func() bool { return on[name] }, Set: func(v bool) { on[name] = v; sets++ }}
	}
	w := newWorld(t, api.Options{Ingestion: admin.Ingestion{Crawler: part("crawler"), Firehose: part("firehose"), Backfill: part("backfill")}})
	state := func() map[string]bool {
		var got map[string]bool
		call(t, "GET", w.admin.URL+"/ingestion", "", nil, &got)
		return got
	}
	if diff := cmp.Diff(map[string]bool{"crawler": true, "firehose": true, "backfill": true}, state()); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		body   string
		status int
		says   string
		want   map[string]bool
	}{
		{`{"firehose":false}`, 200, `"firehose":false`, map[string]bool{"crawler": true, "firehose": false, "backfill": true}},
		{`{"firehose":true,"backfill":false,"crawler":false}`, 200, `"crawler":false`, map[string]bool{"crawler": false, "firehose": true, "backfill": false}},
		{`{}`, 200, `"firehose":true`, nil},
		{`{"backfill":true,"firehoes":true}`, 400, `\"firehoes\"`, nil}, // nothing of it happens
		{`{"backfill":1}`, 400, `backfill is \"1\"`, nil},
		{`{"backfill":null}`, 400, `null`, nil},
		{`{"backfill":"true"}`, 400, `backfill`, nil},
		{`[]`, 400, `want a JSON object`, nil},
		{`null`, 400, `want a JSON object`, nil},
		{`{"backfill":true`, 400, `EOF`, nil},
		{`{"backfill":true}`, 200, `"backfill":true`, map[string]bool{"crawler": false, "firehose": true, "backfill": true}},
	} {
		before, setsBefore := state(), sets
		var text string
		res := call(t, "PATCH", w.admin.URL+"/ingestion", c.body, jsonType, &text)
		if res.StatusCode != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %s", c.body, res.StatusCode, text)
		}
		if c.want == nil {
			c.want = before
			if sets != setsBefore {
				t.Errorf("%s turned something", c.body)
			}
		}
		if diff := cmp.Diff(c.want, state()); diff != "" {
			t.Errorf("%s: %s", c.body, diff)
		}
	}
	if res := call(t, "PATCH", w.public.URL+"/ingestion", `{"firehose":false}`, jsonType, nil); res.StatusCode != 404 || !on["firehose"] {
		t.Errorf("the public listener turns things off: %d", res.StatusCode)
	}
	bare := newWorld(t, api.Options{})
	var e refused
	if res := call(t, "PATCH", bare.admin.URL+"/ingestion", `{"crawler":true}`, jsonType, &e); res.StatusCode != 400 || !strings.Contains(e.Message, "no crawler") {
		t.Errorf("no crawler: %d %+v", res.StatusCode, e)
	}
}
