package discover_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/ingest/simnet"
	"cistern/store"
)

// compared is how far a comparison is.
type compared struct {
	mu          sync.Mutex
	done, total int
	waits       string
}

func (c *compared) note(done, total int, waits string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done, c.total, c.waits = done, total, waits
}

func (c *compared) is(ok func(done, total int, waits string) bool) func() bool {
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return ok(c.done, c.total, c.waits)
	}
}

// TestComparison: a comparison of all listings repairs what was missed, and ends when its passes have
// ended. It requests nothing while the gate is shut, and goes on after it was stopped.
func TestComparison(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 6, RecordsMedian: 5}})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	for _, did := range dids[:3] {
		if _, err := w.Net.Account(did).Mutate(2); err != nil {
			t.Fatal(err)
		}
	}
	var at compared
	c := w.crawl.NewComparison([]string{w.Net.Relay()})
	w.crawlGate.Shut(backfilltest.Pausing)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, at.note) }()
	w.Until("the reason to be told", at.is(func(_, _ int, waits string) bool { return waits == backfilltest.Pausing.Reason }))
	if n := len(w.passes()); n != 0 {
		t.Errorf("%d listings were requested while the gate is shut", n)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	w.crawlGate.Open(backfilltest.Pausing.Name)
	if err := c.Run(t.Context(), at.note); err != nil {
		t.Error(err)
	}
	if !at.is(func(done, total int, waits string) bool { return done == 3 && total == 3 && waits == "" })() || len(w.passes()) != 0 {
		t.Errorf("at the end: %+v; %d listings are left", &at, len(w.passes()))
	}
	w.Until("what was missed", func() bool {
		for _, did := range dids {
			row, err := w.Store.Repo(did)
			if err != nil || row.State != store.StateSynced || row.Rev != w.Net.Account(did).Truth().Rev {
				return false
			}
		}
		return true
	})
}

// TestComparisonOfManyHosts: a few listings are requested at a time, so that few go on after a stop.
func TestComparisonOfManyHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 40, Repos: 40, RecordsMedian: 1}})
	w.Add(w.Net.DIDs()...)
	w.Settle(w.Net.DIDs()...)
	w.Stop() // no pass runs
	var at compared
	c := w.crawl.NewComparison(nil)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, at.note) }()
	w.Until("requests", at.is(func(_, total int, _ string) bool { return total > 0 }))
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	if n := len(w.passes()); n != 32 || at.total != len(w.Net.Hosts()) {
		t.Errorf("%d of %d listings are requested, want 32 of %d", n, at.total, len(w.Net.Hosts()))
	}
}

// TestComparisonOfADeadHost: a comparison ends without the listing of a host that fails, which stays
// requested.
func TestComparisonOfADeadHost(t *testing.T) {
	t.Parallel()
	var log backfilltest.Buffer
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 1},
		crawl: discover.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}})
	dead := newList(t)
	dead.set(func() { dead.status = http.StatusBadGateway })
	var at compared
	ended := make(chan error, 1)
	go func() { ended <- w.crawl.NewComparison([]string{dead.URL}).Run(t.Context(), at.note) }()
	w.Until("the end", func() bool {
		w.Clock.Advance(time.Hour)
		w.Wake()
		return len(ended) == 1
	})
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := len(dead.asked()); n < 3 {
		t.Errorf("the host was asked %d times", n)
	}
	if _, ok := w.passes()[dead.URL]; !ok || !strings.Contains(log.String(), "listings were not compared") {
		t.Errorf("left are %v; the log is %s", w.passes(), log.String())
	}
}
