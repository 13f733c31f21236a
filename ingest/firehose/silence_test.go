package firehose_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/ingest/firehose"
	"cistern/store"
)

// TestSilentSource: a source that sends nothing while others send is connected anew, less and less
// often.
func TestSilentSource(t *testing.T) {
	inBubble(t, func(t *testing.T, net *pipes) {
		silent, loud := net.server(t, func(_ int, c *client) { c.stay() }), net.talker(t)
		s := net.stage(t, silent.source)
		s.run()
		connections := func(when string, after time.Duration, want int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := len(silent.asked()); got != want {
				t.Fatalf("%s: connected %d times, want %d", when, got, want)
			}
		}
		connections("alone", 5*time.Minute, 1)
		if err := s.r.Add(store.Source{URL: loud.URL}); err != nil {
			t.Fatal(err)
		}
		connections("others send", 20*time.Second, 2)
		if st := s.status(silent.url); st.LastFailure.Kind != "silent" {
			t.Errorf("status %+v", st)
		}
		// Its patience is 2 minutes then, and 4, and 8.
		connections("within the second patience", 90*time.Second, 2)
		connections("after the second patience", time.Minute, 3)
		connections("within the third patience", 3*time.Minute, 3)
		connections("after the third patience", 2*time.Minute, 4)
		connections("within the fourth patience", 6*time.Minute, 4)
		if got := loud.asked(); len(got) != 1 {
			t.Errorf("the other source was connected %d times", len(got))
		}
		if !strings.Contains(s.text.String(), "kind=silent") {
			t.Error("the log does not say that the source is silent")
		}
	})
}

// TestSilenceOfAll: a host that answers pings and has lost our subscription is found even when no
// other source sends anything, and is read on from its last message.
func TestSilenceOfAll(t *testing.T) {
	inBubble(t, func(t *testing.T, net *pipes) {
		var mu sync.Mutex
		var connected []time.Time
		h := net.server(t, func(n int, c *client) {
			mu.Lock()
			connected = append(connected, time.Now())
			mu.Unlock()
			switch n {
			case 0:
				c.after(1, 3)
			case 1:
				c.after(4, 5)
			}
			c.stay()
		})
		s := net.stage(t, h.source)
		s.run()
		time.Sleep(25 * time.Minute)
		s.sees(h.url, 1, 2, 3, 4, 5)
		if got := h.asked(); !slices.Equal(got, []string{"-", "3", "5"}) {
			t.Fatalf("asked with cursors %q", got)
		}
		mu.Lock()
		defer mu.Unlock()
		for i := range 2 { // ten minutes each time: its patience stays as it was
			if d := connected[i+1].Sub(connected[i]); d < 10*time.Minute || d > 11*time.Minute {
				t.Errorf("connection %d ended after %s", i, d)
			}
		}
		if st := s.status(h.url); st.Failures != 0 || st.LastFailure.Kind != "" {
			t.Errorf("status %+v", st)
		}
		if text := s.text.String(); !strings.Contains(text, "source sends nothing") || strings.Contains(text, "level=WARN") {
			t.Error("the log does not say that the source sends nothing, or it warns")
		}
	})
}

// TestSlowShardsAreNoSilence: while our shards are slow, the host is neither silent nor dead.
func TestSlowShardsAreNoSilence(t *testing.T) {
	inBubble(t, func(t *testing.T, net *pipes) {
		h, loud := net.server(t, func(_ int, c *client) {
			c.after(1, 3)
			c.stay()
		}), net.talker(t)
		s := net.stage(t, h.source, loud.source)
		s.holding(func(e *firehose.Event) {
			if e.Source.URL() == h.url && e.Frame.Seq == 2 {
				time.Sleep(15 * time.Minute)
			}
			if err := e.Write(); err != nil {
				t.Error(err)
			}
		})
		s.run()
		time.Sleep(15*time.Minute + 30*time.Second)
		s.sees(h.url, 1, 2, 3)
		if got := h.asked(); len(got) != 1 {
			t.Errorf("connected %d times, last failure %+v", len(got), s.status(h.url).LastFailure)
		}
	})
}
