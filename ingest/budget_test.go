package ingest_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/ingest"
	"cistern/store"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestBudgetOfARepository(t *testing.T) {
	t.Parallel()
	b, row, now := ingest.NewBudget(time.Minute), &store.Repo{DID: "did:plc:a"}, start
	// Each break comes as soon as the last fetch was allowed.
	for i, want := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60, 60} {
		due := b.Spend(row, "a", now)
		if want == 0 && !due.IsZero() || want != 0 && !due.Equal(now.Add(want*time.Minute)) {
			t.Fatalf("break %d is due at %v, want after %d minutes", i, due, want)
		}
		if row.Broken != now.Unix() || row.Breaks == 0 {
			t.Fatalf("break %d left the row at %d breaks, %d", i, row.Breaks, row.Broken)
		}
		if !due.IsZero() {
			now = due
		}
	}
	// It waits an hour, then keeps in order for one.
	now = now.Add(2*time.Hour + time.Second)
	if due := b.Spend(row, "a", now); !due.IsZero() || row.Breaks != 1 {
		t.Errorf("after an hour of good order: due %v, %d breaks", due, row.Breaks)
	}
	if due := b.Spend(row, "a", now.Add(-time.Hour)); due.IsZero() {
		t.Error("a clock that went back gave another for nothing")
	}
	row.Breaks, row.Broken = 20, now.AddDate(1, 0, 0).Unix()
	if due := b.Spend(row, "a", now); !due.IsZero() || row.Breaks != 1 {
		t.Errorf("after a break a year from now: due %v, %d breaks", due, row.Breaks)
	}
}

func TestBudgetOfAHost(t *testing.T) {
	t.Parallel()
	b := ingest.NewBudget(time.Minute)
	spend := func(i int, host string, now time.Time) time.Duration {
		due := b.Spend(&store.Repo{DID: fmt.Sprint("did:plc:", i)}, host, now)
		if due.IsZero() {
			return 0
		}
		return due.Sub(now)
	}
	for i := range ingest.RefetchBurst {
		if d := spend(i, "evil", start); d != 0 {
			t.Fatalf("repository %d of the burst waits %s", i, d)
		}
	}
	for i := range 10 {
		if d, want := spend(i, "evil", start), time.Duration(i+1)*time.Second; d.Round(time.Millisecond) != want {
			t.Errorf("repository %d after the burst waits %s, want %s", i, d, want)
		}
	}
	if d := spend(0, "good", start); d != 0 {
		t.Errorf("another host waits %s", d)
	}
	for i := range 10_000 {
		if d := spend(i, "evil", start); d > time.Hour {
			t.Fatalf("repository %d waits %s", i, d)
		}
	}
	if d := spend(0, "evil", start.Add(3*time.Hour)); d != 0 {
		t.Errorf("after three hours of rest one waits %s", d)
	}
}

// TestBudgetForgetsHosts: hosts cost nothing to make up.
func TestBudgetForgetsHosts(t *testing.T) {
	t.Parallel()
	b := ingest.NewBudget(time.Minute)
	waits := 0
	for i := range 2 * ingest.RefetchHostsMax {
		if due := b.Spend(&store.Repo{DID: "did:plc:a"}, fmt.Sprint("host", i), start); !due.IsZero() {
			waits++
		}
	}
	if want := ingest.RefetchHostsMax - ingest.RefetchBurst; waits != want {
		t.Errorf("%d of those that share a bucket wait, want %d", waits, want)
	}
	if n := b.Hosts(); n != ingest.RefetchHostsMax {
		t.Errorf("%d hosts are remembered", n)
	}
	b.Spend(&store.Repo{DID: "did:plc:a"}, "late", start.Add(time.Minute))
	if n := b.Hosts(); n != 1 {
		t.Errorf("%d hosts are remembered after a minute of rest", n)
	}
}
