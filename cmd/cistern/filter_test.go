package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cistern/backfill"
	"cistern/backfill/discover"
	"cistern/cmd/cistern/command"
	"cistern/filter"
	"cistern/ingest/firehose"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// patch changes the filter of a running daemon.
func (x *testIndex) patch(t *testing.T, body string) filter.Config {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "PATCH", "http://"+x.admin+"/filter", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	var c filter.Config
	if err != nil || res.StatusCode != http.StatusOK || json.Unmarshal(text, &c) != nil {
		t.Fatalf("%s: %d %s %v", body, res.StatusCode, text, err)
	}
	return c
}

// TestFilterSurvivesRestarts checks that a filter set at runtime stays in force, whatever the
// options of the next start are.
func TestFilterSurvivesRestarts(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 5, Hosts: 1, Repos: 1, RecordsMedian: 1, RecordsMax: 1})
	x := newTestIndex(t)
	stop := x.start(t, x.args(n, "--collection", "app.test.a", "--store", "all"))
	if diff := cmp.Diff([]string{"app.test.a"}, x.patch(t, `{}`).Collections); diff != "" {
		t.Errorf("the options are not what a new store begins with: %s", diff)
	}
	want := x.patch(t, `{"collections":["app.test.b"],"excludes":["did:web:a.example"],"store":"wanted"}`)
	stop()
	for _, more := range [][]string{nil, {"--collection", "app.test.c", "--store", "all", "--exclude", "did:web:b.example"}} {
		stop = x.start(t, x.args(n, more...))
		if diff := cmp.Diff(want, x.patch(t, `{}`)); diff != "" {
			t.Errorf("%s: %s", more, diff)
		}
		stop()
	}
}

// TestSeedFilter checks that each option that is not applied is logged in a line with both values,
// and an option that agrees with the filter is not.
func TestSeedFilter(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args, environ []string
		says          []string // of what is ignored, in a line each
	}{
		"none":    {},
		"as held": {[]string{"--signal", "app.test.b", "--mode", "filter"}, []string{"CISTERN_COLLECTION=app.test.a"}, nil},
		"others": {[]string{"--signal", "app.test.c", "--mode", "filter"}, []string{"CISTERN_COLLECTION=app.test.c,app.test.d,app.test.e,app.test.f", "CISTERN_STORE=all"},
			[]string{`option="--store all" stored=wanted`, `option="--signal app.test.c" stored=app.test.b`,
				`option="--collection app.test.c,app.test.d,app.test.e and 1 more" stored=app.test.a`}},
		"mode and exclude": {[]string{"--mode", "full"}, []string{"CISTERN_EXCLUDE=did:web:a.example"},
			[]string{`option="--mode full" stored=filter`, `option="--exclude did:web:a.example" stored=none`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := storetest.Open(t, store.Options{})
			held, err := s.SetFilter(filter.Config{Signals: []string{"app.test.b"}, Collections: []string{"app.test.a"}})
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := loadArgs(t, append([]string{"--relay", "wss://relay.example"}, c.args...), c.environ)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			d := &daemon{store: s, cfg: cfg, log: newLogger(&out, slog.LevelInfo)}
			if err := d.seedFilter(); err != nil {
				t.Fatal(err)
			}
			if s.Filter().Version != held.Version {
				t.Error("the filter was changed")
			}
			got := slices.Collect(strings.Lines(out.String()))
			if len(got) != len(c.says) || len(d.cfg.ignored(d.seed, d.store.Filter().Config())) != len(c.says) {
				t.Fatalf("logged %q, want %d lines", got, len(c.says))
			}
			for i, want := range c.says {
				if !strings.Contains(got[i], want) || !strings.Contains(got[i], "PATCH /filter") {
					t.Errorf("logged %q, want %s", got[i], want)
				}
			}
		})
	}
	s := storetest.Open(t, store.Options{})
	cfg, err := loadArgs(t, []string{"--signal", "app.test.b", "--pds", "wss://pds.example", "--exclude", "did:web:a.example"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&daemon{store: s, cfg: cfg, log: slog.New(slog.DiscardHandler)}).seedFilter(); err != nil {
		t.Fatal(err)
	}
	want := filter.Config{Mode: "filter", Store: "wanted", Signals: []string{"app.test.b"}, Collections: []string{}, Excludes: []string{"did:web:a.example"}}
	if diff := cmp.Diff(want, s.Filter().Config()); diff != "" {
		t.Errorf("a new store begins with another filter: %s", diff)
	}
}

// TestFailedStartPinsNoFilter checks that a failed start leaves no filter, so that the options of
// the next start apply.
func TestFailedStartPinsNoFilter(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "above", "store")
	args := []string{"run", "--data", dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--collection", "app.test.a"}
	a := &app{Process: command.Process{Stdout: io.Discard, Stderr: io.Discard}}
	if err := a.run(t.Context(), append(args, "--disk-reserve", "1000000TiB")); err == nil || !strings.Contains(err.Error(), "--disk-reserve") {
		t.Errorf("start on a disk that is too full: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it made the directory of the store: %v", err)
	}
	for name, tune := range map[string]tuning{
		"backfill": {backfill: func(o *backfill.Options) { o.Concurrency = -1 }},
		"discover": {discover: func(o *discover.Options) { o.CrawlEvery = -1 }},
		"firehose": {firehose: func(o *firehose.Options) { o.Sources = []store.Source{{URL: "ftp://x"}} }},
	} {
		a := &app{Process: command.Process{Stdout: io.Discard, Stderr: io.Discard}, tune: tune}
		if err := a.run(t.Context(), args); err == nil {
			t.Errorf("%s: started with a bad option", name)
		}
	}
	s, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if f := s.Filter(); f.Version != 0 {
		t.Errorf("the failed starts set a filter: %+v", f.Config())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
