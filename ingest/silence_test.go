package ingest_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest"
	"cistern/store"
)

// TestSilentSource is connected anew while others speak, less and less often.
func TestSilentSource(t *testing.T) {
	t.Parallel()
	silent := newFirehose(t, func(_ int, c *client) { c.stay() })
	loud := newFirehose(t, func(_ int, c *client) {
		c.listen()
		for seq := int64(1); ; seq++ {
			c.send(account(seq))
			select {
			case <-c.gone:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	s := newStage(t, silent.source, func(o *ingest.Options) { o.SilentAfter = 100 * time.Millisecond })
	s.run()
	time.Sleep(400 * time.Millisecond)
	if got := silent.asked(); len(got) != 1 {
		t.Errorf("alone, it was connected to %d times", len(got))
	}
	if err := s.r.AddSource(store.Source{URL: loud.URL}); err != nil {
		t.Fatal(err)
	}
	s.until("another connection", func() bool { return len(silent.asked()) >= 3 })
	if st := s.status(silent.url); st.LastFailure.Kind != "silent" {
		t.Errorf("status %+v", st)
	}
	n := len(silent.asked())
	time.Sleep(600 * time.Millisecond) // six times SilentAfter; by now it has the patience for four
	if got := len(silent.asked()) - n; got > 2 {
		t.Errorf("%d more connections in six times the time", got)
	}
	if got := loud.asked(); len(got) != 1 {
		t.Errorf("the loud one was connected to %d times", len(got))
	}
	if !strings.Contains(s.text.String(), "kind=silent") {
		t.Error("the log does not say so")
	}
}

// TestSilenceOfAll: a host that answers pings and has lost our subscription is found even when nobody speaks to compare it with,
// and goes on behind what it said.
func TestSilenceOfAll(t *testing.T) {
	t.Parallel()
	const silentAfter = 50 * time.Millisecond
	first := time.Now()
	var second atomic.Int64 // unix nanoseconds
	h := newFirehose(t, func(n int, c *client) {
		switch n {
		case 0:
			c.after(1, 3)
		case 1:
			second.Store(time.Now().UnixNano())
			c.after(4, 5)
		}
		c.stay()
	})
	s := newStage(t, h.source, func(o *ingest.Options) { o.SilentAfter = silentAfter })
	s.run()
	s.sees(h.url, 1, 2, 3, 4, 5)
	if d := time.Unix(0, second.Load()).Sub(first); d < 10*silentAfter {
		t.Errorf("connected anew after %s", d)
	}
	s.until("the third connection", func() bool { return len(h.asked()) >= 3 }) // its patience stayed as it was
	if got := h.asked(); !slices.Equal(got[:3], []string{"-", "3", "5"}) {
		t.Errorf("asked with cursors %q", got)
	}
	if st := s.status(h.url); st.Failures != 0 || st.LastFailure.Kind != "" {
		t.Errorf("status %+v", st)
	}
	if text := s.text.String(); !strings.Contains(text, "source sends nothing") || strings.Contains(text, "level=WARN") {
		t.Error("the log does not say so, or too loudly")
	}
}

// TestSourceThatWaitsForUsIsNotSilent: our shards are slow, not the host, and not dead either.
func TestSourceThatWaitsForUsIsNotSilent(t *testing.T) {
	t.Parallel()
	h := newFirehose(t, func(_ int, c *client) {
		c.after(1, 3)
		c.stay()
	})
	loud := newFirehose(t, func(_ int, c *client) {
		c.listen()
		for seq := int64(1); ; seq++ {
			c.send(account(seq))
			select {
			case <-c.gone:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	s := newStage(t, h.source, loud.source, func(o *ingest.Options) { o.SilentAfter, o.ReadTimeout = 100*time.Millisecond, 150*time.Millisecond })
	s.holding(func(e ingest.Event) {
		if e.Source() == h.url && e.Frame().Seq == 2 {
			time.Sleep(time.Second)
		}
		if err := e.Write(); err != nil {
			t.Error(err)
		}
	})
	s.run()
	s.sees(h.url, 1, 2, 3)
	if got := h.asked(); len(got) != 1 {
		t.Errorf("connected %d times, last failure %+v", len(got), s.status(h.url).LastFailure)
	}
}
