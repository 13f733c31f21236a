package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/console"
	"cistern/ingest/firehose"

	"github.com/mattn/go-runewidth"
)

// TestProgressLine checks that the line fits every terminal, and that its first part is always
// shown.
func TestProgressLine(t *testing.T) {
	t.Parallel()
	p := &progress{term: console.New(io.Discard, nil), total: 1_000_000}
	s := sample{repos: 900_000, done: 450_000, records: 123_456_789, pending: 449_900, syncing: 100, resync: 30,
		ratelimited: 10, transport: 10, generic: 10, sources: 3, running: 2, lag: 75 * time.Second, waiting: "3.1 GiB free, 5.0 GiB needed"}
	p.recent = []sample{s}
	for columns := 10; columns <= 200; columns++ {
		line := p.line(s, columns)
		if runewidth.StringWidth(line) > columns-1 {
			t.Errorf("%d columns: %q takes %d", columns, line, runewidth.StringWidth(line))
		}
		if columns > 30 && !strings.Contains(line, "450,000/1,000,000 repos") {
			t.Errorf("%d columns: %q", columns, line)
		}
	}
	full := p.line(s, 250)
	for _, part := range []string{strings.Repeat("━", 13), "123,456,789 records", "waiting: 3.1 GiB free, 5.0 GiB needed", "100 syncing", "449,900 pending", "0/s live", "1 source down", "1m15s behind", "30 failing", "(10 ratelimited, 10 transport, 10 generic)"} {
		if !strings.Contains(full, part) {
			t.Errorf("%q lacks %q", full, part)
		}
	}
}

func TestProgressRate(t *testing.T) {
	t.Parallel()
	p := &progress{term: console.New(io.Discard, nil), log: slog.New(slog.DiscardHandler)}
	start := time.Unix(0, 0)
	for i := range 100 {
		p.show(sample{at: start.Add(time.Duration(i) * drawEvery), repos: 1, records: int64(i * 200)})
	}
	if got := p.rate(); got != 1000 {
		t.Errorf("rate %d, want 1000", got)
	}
	if n := len(p.recent); n > 20 {
		t.Errorf("keeps %d samples", n)
	}
	for i := range 100 { // what is no longer wanted goes
		p.show(sample{at: start.Add(time.Duration(100+i) * drawEvery), repos: 1, records: int64(20_000 - i*200)})
	}
	if got := p.rate(); got != 0 {
		t.Errorf("rate %d while the store shrinks", got)
	}
}

// TestProgressLog checks that lines are logged while something changes, and none afterwards.
func TestProgressLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		begin := time.Now()
		p := &progress{term: console.New(&out, nil), log: newLogger(&out, slog.LevelInfo), logEvery: logEveryDefault,
			sample: func() sample {
				n := min(int64(time.Since(begin)/time.Second), 20)
				return sample{at: time.Now(), repos: n, done: n, records: n * 10}
			}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "msg=progress"); n != 4 {
			t.Errorf("%d lines in ten minutes with twenty seconds of change:\n%s", n, &out)
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Errorf("escapes without a terminal: %q", &out)
		}
	})
}

// TestProgressLogLive checks that few lines are logged while only live events arrive.
func TestProgressLogLive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		begin := time.Now()
		p := &progress{term: console.New(&out, nil), log: newLogger(&out, slog.LevelInfo), logEvery: logEveryDefault,
			sample: func() sample {
				n := int64(time.Since(begin) / time.Millisecond)
				return newSample(time.Now(), map[string]int64{"repos": 5, "synced": 5, "records": n}, 0,
					[]firehose.Status{{Running: true, Events: 2 * n, Lag: time.Duration(n) * time.Microsecond}})
			}}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "msg=progress"); n < 9 || n > 12 {
			t.Errorf("%d lines in ten minutes of nothing but live events:\n%s", n, &out)
		}
		if !strings.Contains(out.String(), "live_per_second=2000 sources=1") {
			t.Errorf("no rate:\n%s", &out)
		}
	})
}
