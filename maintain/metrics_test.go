package maintain_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/maintain"

	"github.com/prometheus/client_golang/prometheus"
)

// TestMetrics: metrics tell what each operation does and did, and the last success of an earlier
// process.
func TestMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		results := make(chan error)
		k := &shelf{rows: map[string]maintain.Row{"b": {Name: "b", Succeeded: time.Unix(1700000000, 0), Failures: 2, Error: "bad"}}}
		c := run(t, maintain.Options{Keeper: k, Registerer: reg, Operations: []maintain.Operation{
			{Name: "a", Run: func(ctx context.Context, _ *maintain.Progress) error {
				select {
				case err := <-results:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			}}, {Name: "b", Run: nothing}}})
		want := func(when, metrics string) {
			t.Helper()
			synctest.Wait()
			got := text(t, reg)
			for line := range strings.Lines(metrics) {
				if line = "cistern_maintain_" + strings.TrimSpace(line) + "\n"; !strings.Contains(got, line) {
					t.Errorf("%s: no %s in\n%s", when, line, got)
				}
			}
		}
		for _, end := range []error{nil, errors.New("no"), errors.New("no")} {
			if err := c.Schedule("a"); err != nil {
				t.Error(err)
			}
			rest(10 * time.Second)
			results <- end
		}
		want("after three runs", `running{a} 0
			pending{a} 0
			last_success_timestamp_seconds{a} 946684810
			last_success_timestamp_seconds{b} 1700000000
			last_failed{a} 1
			last_failed{b} 1
			failures{a} 2
			failures{b} 2
			runs_total{a,success} 1
			runs_total{a,failure} 2
			runs_total{a,cancelled} 0
			seconds_total{a} 30`)
		for _, name := range []string{"a", "b"} {
			if err := c.Schedule(name); err != nil {
				t.Error(err)
			}
		}
		want("while one runs", `running{a} 1
			running{b} 0
			pending{a} 0
			pending{b} 1`)
		if _, err := c.Cancel("a"); err != nil {
			t.Error(err)
		}
		want("after a cancellation", `runs_total{a,cancelled} 1
			runs_total{b,success} 1
			failures{b} 0
			last_failed{b} 0`)
	})
}

// text writes the metrics of a registry one a line, with the values of their labels.
func text(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range all {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue()
			fmt.Fprintf(&out, "%s{%s} %.0f\n", f.GetName(), strings.Join(labels, ","), value)
		}
	}
	return out.String()
}
