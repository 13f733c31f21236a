package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cistern/ingest/simnet"
	"cistern/logs"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
)

// openLabels have values that operators choose, or that are too many to list.
var openLabels = []string{"name", "route", "operation", "condition"}

// exposed is a metric as the registry of a daemon has it.
type exposed struct {
	name, kind, help string
	labels           map[string][]string // with the values of a closed set
}

// everyMetric runs a daemon with everything on, and returns its metrics by name.
func everyMetric(t *testing.T) map[string]exposed {
	t.Helper()
	n := startNetwork(t, simnet.Options{Seed: 21, Repos: 3, Hosts: 1})
	x := newTestIndex(t)
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	}))
	t.Cleanup(sink.Close)
	dest := func(name string) string { return filepath.Join(t.TempDir(), name) + "/" }
	cfg, err := loadArgs(t, []string{"--data", x.dir, "--listen", x.public, "--admin", x.admin,
		"--plc", n.PLC(), "--allow-private", "--disk-reserve", "1MiB", "--relay", n.Relay(),
		"--backup", dest("b"), "--offload", dest("o"), "--export", dest("e"), "--backlinks",
		"--traces", sink.URL, "--pause-lag", "1000000"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := listeners{listenAny(t), listenAny(t)}
	x.public, x.admin = l.public.Addr().String(), l.admin.Addr().String()
	d, err := newDaemon(cfg, slog.New(logs.New(logs.Options{Output: io.Discard})), l, hasty())
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	stop := startDaemon(t, d, result)
	x.await(t, "the daemon to answer", func() error { _, err := x.counts(t.Context()); return err })
	if status, answer := x.send(t, "PUT", "/subscriptions/hook",
		fmt.Sprintf(`{"webhook":{"url":%q}}`, sink.URL)); status/100 != 2 {
		t.Fatalf("%d %s", status, answer)
	}
	var all map[string]exposed
	x.await(t, "every described metric to have a value", func() (err error) {
		all, err = gathered(d.metrics)
		var missing []string
		for _, name := range described(d.metrics) {
			if _, ok := all[name]; !ok && strings.HasPrefix(name, "cistern_") {
				missing = append(missing, name)
			}
		}
		_, hooked := all["cistern_api_webhook_events_total"]
		if err == nil && (len(missing) > 0 || !hooked) {
			err = fmt.Errorf("metrics without a value: %s; give the values of its labels when it "+
				"is made, or have this test cause one", missing)
		}
		return err
	})
	problems, err := testutil.GatherAndLint(d.metrics)
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	stop()
	if err := <-result; err != nil {
		t.Error(err)
	}
	return all
}

// gathered returns the metrics that have values.
func gathered(reg *prometheus.Registry) (map[string]exposed, error) {
	families, err := reg.Gather()
	if err != nil {
		return nil, err
	}
	all := map[string]exposed{}
	for _, f := range families {
		m := exposed{name: f.GetName(), help: f.GetHelp(), labels: map[string][]string{},
			kind: strings.ToLower(dto.MetricType_name[int32(f.GetType())])}
		for _, of := range f.Metric {
			for _, l := range of.Label {
				m.labels[l.GetName()] = append(m.labels[l.GetName()], l.GetValue())
			}
		}
		_, byRoute := m.labels["route"]
		for name, values := range m.labels {
			slices.Sort(values)
			if m.labels[name] = slices.Compact(values); byRoute || slices.Contains(openLabels, name) || m.name == "cistern_ingest_source_event_age_seconds" {
				m.labels[name] = nil
			}
		}
		all[m.name] = m
	}
	return all, nil
}

var fqName = regexp.MustCompile(`fqName: "([^"]+)"`)

// described returns the names of the metrics that collectors describe, also of those without values.
func described(reg *prometheus.Registry) (names []string) {
	descs := make(chan *prometheus.Desc)
	go func() { reg.Describe(descs); close(descs) }()
	for d := range descs {
		if m := fqName.FindStringSubmatch(d.String()); m != nil {
			names = append(names, m[1])
		}
	}
	return names
}

// TestDocsMetrics keeps the table in docs/metrics.md equal to the metrics of a daemon, whose names
// follow the conventions of Prometheus. The board and the rules name nothing else.
func TestDocsMetrics(t *testing.T) {
	t.Parallel()
	all := everyMetric(t)
	t.Run("table", func(t *testing.T) { wantGenerated(t, "metrics.md", "metrics", metricsTable(all)) })
	t.Run("board", func(t *testing.T) { checkBoard(t, all) })
	t.Run("rules", func(t *testing.T) { checkRules(t, all) })
	t.Run("rule tests", checkRuleTests)
}

// metricsTable returns the table of docs/metrics.md.
func metricsTable(all map[string]exposed) string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		m := all[name]
		if !strings.HasPrefix(name, "cistern_") {
			continue
		}
		var labels []string
		for _, l := range slices.Sorted(maps.Keys(m.labels)) {
			text := "`" + l + "`"
			if values := m.labels[l]; len(values) > 0 {
				text += ": " + strings.Join(values, ", ")
			}
			labels = append(labels, text)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, m.kind,
			cmp.Or(strings.Join(labels, "; "), "-"), m.help)
	}
	return b.String()
}

// wantGenerated compares a part of a page in docs with what the code makes of it, and with -update
// writes it. Comments mark its beginning and its end.
func wantGenerated(t *testing.T, page, mark, want string) {
	t.Helper()
	name := filepath.Join("..", "..", "docs", page)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, got, after, err := marked(string(text), mark)
	if err != nil {
		t.Fatalf("docs/%s: %v", page, err)
	}
	if *update {
		if err := os.WriteFile(name, []byte(before+want+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("docs/%s differs (go test ./cmd/cistern -run Docs -update):\n%s", page, diff)
	}
}

// marked cuts a page at the comments <!-- mark --> and <!-- /mark -->, which stay outside.
func marked(text, mark string) (before, inside, after string, err error) {
	open, shut := "<!-- "+mark+" -->\n", "<!-- /"+mark+" -->"
	i, j := strings.Index(text, open), strings.Index(text, shut)
	if i < 0 || j < i {
		return "", "", "", errors.New("no comments that mark " + mark)
	}
	i += len(open)
	return text[:i], text[i:j], text[j:], nil
}
