package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/alert"

	"github.com/VictoriaMetrics/metricsql"
	"go.yaml.in/yaml/v3"
)

// scraped are the labels that Prometheus adds to every metric.
var scraped = []string{"instance", "job"}

func monitoringFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "monitoring", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// checkExpression reports what an expression names that no daemon has: metrics, labels, and values of
// labels with a closed set. It returns the names of the metrics.
func checkExpression(all map[string]exposed, expr string) (names []string, err error) {
	parsed, err := metricsql.Parse(expr)
	if err != nil {
		return nil, err
	}
	var wrong []string
	labels := slices.Clone(scraped) // that the metrics of the expression have
	metricsql.VisitAll(parsed, func(e metricsql.Expr) {
		m, ok := e.(*metricsql.MetricExpr)
		if !ok {
			return
		}
		for _, filters := range m.LabelFilterss {
			name, has, text := checkSelector(all, filters)
			names, labels, wrong = append(names, name), append(labels, has...), append(wrong, text...)
		}
	})
	metricsql.VisitAll(parsed, func(e metricsql.Expr) {
		for _, l := range grouping(e) {
			if !slices.Contains(labels, l) {
				wrong = append(wrong, fmt.Sprintf("it groups by %s, which its metrics do not have", l))
			}
		}
	})
	if len(names) == 0 {
		wrong = append(wrong, "it names no metric")
	}
	if len(wrong) > 0 {
		return names, fmt.Errorf("%s: %s", expr, strings.Join(wrong, "; "))
	}
	return names, nil
}

// checkSelector checks one selector, and returns the metric that it names and the labels of that.
func checkSelector(all map[string]exposed, filters []metricsql.LabelFilter) (name string, labels, wrong []string) {
	for _, f := range filters {
		if f.Label == "__name__" {
			name = f.Value
		}
	}
	m, ok := all[name]
	if base, bucket := strings.CutSuffix(name, "_bucket"); bucket && all[base].kind == "histogram" {
		m, ok, labels = all[base], true, append(labels, "le")
	}
	if !ok {
		return name, nil, []string{"no metric " + name}
	}
	labels = slices.AppendSeq(labels, maps.Keys(m.labels))
	for _, f := range filters {
		switch values := m.labels[f.Label]; {
		case f.Label == "__name__" || slices.Contains(scraped, f.Label):
		case !slices.Contains(labels, f.Label):
			wrong = append(wrong, fmt.Sprintf("%s has no label %s", name, f.Label))
		case values == nil: // an open set
		case !f.IsRegexp && !slices.Contains(values, f.Value):
			wrong = append(wrong, fmt.Sprintf("%s never has %s=%q", name, f.Label, f.Value))
		case f.IsRegexp:
			for _, v := range strings.Split(f.Value, "|") {
				if !slices.Contains(values, v) {
					wrong = append(wrong, fmt.Sprintf("%s never has %s=%q", name, f.Label, v))
				}
			}
		}
	}
	return name, labels, wrong
}

// grouping returns the labels that an expression groups or joins by.
func grouping(e metricsql.Expr) (labels []string) {
	switch e := e.(type) {
	case *metricsql.AggrFuncExpr:
		return e.Modifier.Args
	case *metricsql.BinaryOpExpr:
		return slices.Concat(e.GroupModifier.Args, e.JoinModifier.Args)
	}
	return nil
}

// board is the part of a board of Grafana that is checked.
type board struct {
	UID, Title    string
	SchemaVersion int
	Templating    struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []struct {
		ID          int
		Type, Title string
		GridPos     struct{ H, W, X, Y int }
		Targets     []struct{ Expr, LegendFormat string }
	}
}

var boardVariables = strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*")

// checkBoard parses docs/monitoring/grafana.json: its panels do not overlap, and each shows metrics
// that exist, with legends of their labels.
func checkBoard(t *testing.T, all map[string]exposed) {
	var b board
	if err := json.Unmarshal(monitoringFile(t, "grafana.json"), &b); err != nil {
		t.Fatal(err)
	}
	if b.UID == "" || b.Title == "" || b.SchemaVersion == 0 || len(b.Templating.List) != 2 {
		t.Errorf("the board has uid %q, title %q, version %d and %d variables", b.UID, b.Title, b.SchemaVersion, len(b.Templating.List))
	}
	places, ids := map[[2]int]string{}, map[int]bool{}
	shown := map[string]bool{}
	for _, p := range b.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := places[[2]int{x, y}]; other != "" || x >= 24 {
					t.Errorf("panels %q and %q overlap, or leave the board", p.Title, other)
				}
				places[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			names, err := checkExpression(all, boardVariables.Replace(target.Expr))
			if err != nil {
				t.Errorf("panel %q: %v", p.Title, err)
			}
			for _, name := range names {
				shown[name] = true
			}
			for _, l := range legendLabels(target.LegendFormat) {
				if !hasLabel(all, names, l) {
					t.Errorf("panel %q: no metric of %s has the label %s of its legend", p.Title, target.Expr, l)
				}
			}
		}
	}
	if len(shown) < 50 {
		t.Errorf("the board shows %d metrics", len(shown))
	}
}

var inBraces = regexp.MustCompile(`\{\{ *([a-z_]+) *\}\}`)

func legendLabels(format string) (labels []string) {
	for _, m := range inBraces.FindAllStringSubmatch(format, -1) {
		labels = append(labels, m[1])
	}
	return labels
}

func hasLabel(all map[string]exposed, names []string, label string) bool {
	return slices.Contains(scraped, label) || slices.ContainsFunc(names, func(name string) bool {
		_, ok := all[name].labels[label]
		return ok
	})
}

// rule is an alert rule of Prometheus.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

var (
	upper     = regexp.MustCompile(`[A-Z]`)
	inSummary = regexp.MustCompile(`\$labels\.([a-z_]+)`)
)

// runbookOf returns the heading of docs/operating.md that an alert must name: alert-slow-disk for
// CisternSlowDisk.
func runbookOf(name string) string {
	words := upper.ReplaceAllStringFunc(strings.TrimPrefix(name, "Cistern"), func(c string) string {
		return "-" + strings.ToLower(c)
	})
	return "docs/operating.md#alert" + words
}

// checkRules parses docs/monitoring/rules.yml: each rule names metrics that exist, and has a severity,
// a summary of its labels and a runbook. Each kind of alert of the daemon has a rule.
func checkRules(t *testing.T, all map[string]exposed) {
	all = maps.Clone(all)
	all["up"] = exposed{name: "up"}
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(monitoringFile(t, "rules.yml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	runbooks := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			names, err := checkExpression(all, r.Expr)
			if err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			if _, err := time.ParseDuration(r.For); r.For != "" && err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			if s := r.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s has severity %q", r.Alert, s)
			}
			if want := runbookOf(r.Alert); r.Annotations["runbook"] != want || runbooks[want] {
				t.Errorf("%s has the runbook %q, want %q, once", r.Alert, r.Annotations["runbook"], want)
			}
			runbooks[r.Annotations["runbook"]] = true
			for _, l := range inSummary.FindAllStringSubmatch(r.Annotations["summary"], -1) {
				if !hasLabel(all, names, l[1]) {
					t.Errorf("%s: its metrics have no label %s", r.Alert, l[1])
				}
			}
		}
	}
	for _, kind := range alert.Kinds {
		if !runbooks[alert.Runbook(kind)] {
			t.Errorf("no rule has the runbook %s", alert.Runbook(kind))
		}
	}
	checkHeadings(t, slices.Collect(maps.Keys(runbooks)))
	promtool(t, "check", "rules", "rules.yml")
}

// promtool runs a command of Prometheus's promtool in docs/monitoring, where it is installed.
func promtool(t *testing.T, args ...string) {
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not installed: the rules are parsed and not run (Debian: apt install prometheus)")
		return
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = filepath.Join("..", "..", "docs", "monitoring")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

// checkRuleTests runs docs/monitoring/rules_test.yml, which has for each alert of rules.yml a time at
// which it fires and one at which it does not.
func checkRuleTests(t *testing.T) {
	var rules struct {
		Groups []struct {
			Rules []rule
		}
	}
	var cases struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := errors.Join(yaml.Unmarshal(monitoringFile(t, "rules.yml"), &rules), yaml.Unmarshal(monitoringFile(t, "rules_test.yml"), &cases)); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range cases.Tests {
		for _, c := range test.AlertRuleTest {
			fires[c.Alertname] = fires[c.Alertname] || len(c.ExpAlerts) > 0
			silent[c.Alertname] = silent[c.Alertname] || len(c.ExpAlerts) == 0
		}
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if !fires[r.Alert] || !silent[r.Alert] {
				t.Errorf("docs/monitoring/rules_test.yml: %s fires in a test: %t, and is silent in one: %t; want both", r.Alert, fires[r.Alert], silent[r.Alert])
			}
		}
	}
	promtool(t, "test", "rules", "rules_test.yml")
}

// TestExpressions: what checkExpression refuses.
func TestExpressions(t *testing.T) {
	t.Parallel()
	all := map[string]exposed{
		"cistern_a_total":   {kind: "counter", labels: map[string][]string{"kind": {"x", "y"}, "name": nil}},
		"cistern_a_seconds": {kind: "histogram", labels: map[string][]string{}},
	}
	for expr, want := range map[string]string{
		`rate(cistern_a_total{kind="x",name="z",instance="i"}[5m])`:                 "",
		`sum by (kind) (cistern_a_total{kind=~"x|y"}) / 2`:                          "",
		`histogram_quantile(0.9, sum by (le) (rate(cistern_a_seconds_bucket[5m])))`: "",
		`cistern_b_total`:                             "no metric cistern_b_total",
		`cistern_a_total_bucket`:                      "no metric",
		`cistern_a_total{sort="x"}`:                   "no label sort",
		`cistern_a_total{kind="z"}`:                   `never has kind="z"`,
		`cistern_a_total{kind!~"x|z"}`:                `never has kind="z"`,
		`sum by (sort) (cistern_a_total)`:             "groups by sort",
		`cistern_a_total / on (sort) cistern_a_total`: "groups by sort",
		`sum(cistern_a_total`:                         "",
		`1`:                                           "names no metric",
	} {
		_, err := checkExpression(all, expr)
		broken := strings.HasPrefix(expr, "sum(")
		if err == nil && (want != "" || broken) || err != nil && (want == "" && !broken || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", expr, err, want)
		}
	}
}

// checkHeadings wants a heading of docs/operating.md for each runbook, once that page exists.
func checkHeadings(t *testing.T, runbooks []string) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operating.md"))
	if os.IsNotExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	anchors := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && line[0] == '#' {
			anchors[anchorOf(heading)] = true
		}
	}
	for _, r := range runbooks {
		if _, anchor, _ := strings.Cut(r, "#"); !anchors[anchor] {
			t.Errorf("docs/operating.md has no heading for %s, such as \"Alert: slow disk\"", anchor)
		}
	}
}

// anchorOf returns the anchor that a heading has where Markdown is shown.
func anchorOf(heading string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == ' ':
			return '-'
		case c == '-' || c == '_' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			return c
		}
		return -1
	}, strings.ToLower(strings.TrimSpace(heading)))
}
