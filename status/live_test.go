package status_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"cistern/console"
	"cistern/status"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

const metrics = `# HELP cistern_api_requests_total Requests by route and result.
# TYPE cistern_api_requests_total counter
cistern_api_requests_total{result="ok",route="stats"} 40
cistern_api_requests_total{result="refused",route="stats"} 2
cistern_api_requests_total_other 7
cistern_ingest_messages_total{kind="commit"} 1e+06
cistern_ingest_messages_total{kind="account"} 3
cistern_ingest_received_bytes_total 1000
cistern_backfill_received_bytes_total 24
process_cpu_seconds_total 7.5
process_resident_memory_bytes 3.14572800e+08
cistern_process_disk_read_bytes_total 4096
cistern_process_disk_written_bytes_total 8192
`

// later returns a sample some seconds after the fixture, with more of everything.
func later(t *testing.T, name string, seconds int) *status.Sample {
	t.Helper()
	a := decode(t, name)
	at := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC).Add(time.Duration(seconds) * time.Second)
	a.Time = at.Format(time.RFC3339Nano)
	n := float64(seconds)
	a.Stats.Counts["records"] += 100 * int64(seconds)
	return &status.Sample{Answer: a, Counters: status.Counters{Requests: 3 * n, Commits: 2.5 * n, Received: 2048 * n, CPU: 0.42 * n, Memory: 300 << 20, Read: 1024 * n, Written: 3 << 20 * n}}
}

func TestParseCounters(t *testing.T) {
	t.Parallel()
	want := status.Counters{Requests: 42, Commits: 1e6, Received: 1024, CPU: 7.5, Memory: 300 << 20, Read: 4 << 10, Written: 8 << 10}
	if diff := cmp.Diff(want, status.ParseCounters(metrics)); diff != "" {
		t.Error(diff)
	}
}

// TestRates: rates are differences over the time between the answers, and a restart has none.
func TestRates(t *testing.T) {
	t.Parallel()
	first, second := later(t, "well", 0), later(t, "well", 4)
	want := status.Rates{Records: 100, Commits: 2.5, Requests: 3, Received: 2048, CPU: 0.42, Read: 1024, Written: 3 << 20}
	if diff := cmp.Diff(want, second.RatesSince(first)); diff != "" {
		t.Error(diff)
	}
	for why, before := range map[string]*status.Sample{"no sample": nil, "the same time": second, "a later time": later(t, "well", 9)} {
		if got := second.RatesSince(before); got != (status.Rates{}) {
			t.Errorf("since %s: %+v", why, got)
		}
	}
	first.Started = "2026-11-01T00:00:00Z"
	if got := second.RatesSince(first); got != (status.Rates{}) {
		t.Errorf("since another run of the daemon: %+v", got)
	}
}

// TestLive compares live pages with golden ones, while they are scrolled and without an answer.
func TestLive(t *testing.T) {
	t.Parallel()
	for _, columns := range []int{80, 160} {
		var live status.Live
		show := func(rows int) string {
			return strings.Join(live.Screen(rows, 2*time.Second, status.View{Columns: columns, Paint: plain}), "\n") + "\n"
		}
		var all strings.Builder
		step := func(what string, rows int) { fmt.Fprintf(&all, "--- %s\n%s", what, show(rows)) }
		live.Fail(errors.New("connection refused"))
		step("no answer yet", 24)
		live.Add(later(t, "troubled", 0))
		live.Add(later(t, "troubled", 2))
		step("the beginning", 16)
		live.Scroll(console.Down)
		live.Scroll(console.PageDown)
		step("a line and a page down", 16)
		live.Scroll(console.End)
		step("the end", 16)
		live.Fail(errors.New("connection refused"))
		step("no answer any more", 16)
		golden(t, fmt.Sprintf("live_%d", columns), all.String())
	}
}

// TestRow: each sample is a row below the titles, whatever it has.
func TestRow(t *testing.T) {
	t.Parallel()
	var live status.Live
	rows := []string{status.Titles()}
	for i, name := range []string{"well", "well", "troubled"} {
		live.Add(later(t, name, 2*i))
		rows = append(rows, live.Row())
	}
	live.Fail(errors.New("connection \x1b[31mrefused"))
	golden(t, "rows", strings.Join(append(rows, live.Row()), "\n")+"\n")
}

// TestLiveIsBounded: invariants 1 and 2 hold for live pages of any size, however they are scrolled.
func TestLiveIsBounded(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/troubled.json")
	if err != nil {
		t.Fatal(err)
	}
	for seed := range storetest.Seeds(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var live status.Live
		for range 10 {
			if a, err := status.Decode(distorted(t, r, text)); err == nil {
				live.Add(&status.Sample{Answer: a})
			} else {
				live.Fail(err)
			}
			live.Scroll(console.Key(r.IntN(int(console.End) + 1)))
			rows, columns := 1+r.IntN(60), 20+r.IntN(200)
			lines := live.Screen(rows, time.Second, status.View{Columns: columns, Paint: plain})
			if wantBounded(t, strings.Join(lines, "\n"), columns); len(lines) > rows || t.Failed() {
				t.Fatalf("seed %d: %d lines of %d", seed, len(lines), rows)
			}
		}
	}
}
