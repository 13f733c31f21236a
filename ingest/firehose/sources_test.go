package firehose_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/gate"
	"cistern/ingest/firehose"
	"cistern/store"
	"cistern/store/storetest"
)

// steady sends the events 1 to n, and stays.
func steady(t *testing.T, n int64) *server { return newServer(t, upTo(n)) }

// upTo is the script of steady.
func upTo(n int64) func(int, *client) {
	return func(_ int, c *client) {
		c.after(1, n)
		c.stay()
	}
}

func TestSourcesAreAddedAndRemoved(t *testing.T) {
	t.Parallel()
	a, b := steady(t, 2), steady(t, 3)
	s := newStage(t, a.source)
	stop := s.run()
	s.sees(a.url, 1, 2)
	if err := s.r.Add(store.Source{URL: b.URL + "/xrpc/com.atproto.sync.subscribeRepos", PDS: true}); err != nil {
		t.Fatal(err)
	}
	s.sees(b.url, 1, 2, 3)
	var urls []string
	for _, st := range s.r.Status() {
		urls = append(urls, st.URL)
		if want := st.URL == b.url; st.PDS != want || st.Persisted != want || !st.Running {
			t.Errorf("status %+v", st)
		}
	}
	if want := []string{a.url, b.url}; !slices.Equal(urls, want) && !slices.IsSorted(urls) {
		t.Errorf("sources %q, want %q", urls, want)
	}
	if err := s.r.Remove(b.URL); err != nil {
		t.Fatal(err)
	}
	if st := s.status(b.url); st.URL != "" {
		t.Errorf("it is there: %+v", st)
	}
	if err := s.r.Remove(b.URL); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if err := s.r.Remove(a.URL); err != nil { // one that the Options name
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"add": s.r.Add(store.Source{URL: "relay"}), "remove": s.r.Remove("relay"), "forget": s.r.ForgetCursor("relay"),
	} {
		if err == nil {
			t.Errorf("%s took no address", name)
		}
	}
	stop()
	if got := s.cursor(b.url); got != 3 {
		t.Errorf("cursor %d stays", got)
	}
}

func TestSourcesSurviveARestart(t *testing.T) {
	t.Parallel()
	a, b := steady(t, 2), steady(t, 2)
	db := storetest.Open(t, store.Options{})
	s := newStageOn(t, db, a.source)
	for _, src := range []store.Source{{URL: b.URL}, {URL: b.URL, PDS: true}, {URL: a.URL, PDS: true}} { // also before Run
		if err := s.r.Add(src); err != nil {
			t.Fatal(err)
		}
	}
	s = newStageOn(t, db, a.source)
	for _, h := range []*server{a, b} {
		if st := s.status(h.url); !st.PDS || !st.Persisted {
			t.Errorf("status %+v", st)
		}
	}
	stop := s.run()
	s.sees(a.url, 1, 2)
	s.sees(b.url, 1, 2)
	for _, h := range []*server{a, b} {
		if err := s.r.Remove(h.url); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	s = newStageOn(t, db, a.source)
	if all := s.r.Status(); len(all) != 0 {
		t.Errorf("what was removed is back after a restart: %+v", all)
	}
	if text := s.text.String(); !strings.Contains(text, a.url) || strings.Contains(text, b.url) || !strings.Contains(text, "stays removed") {
		t.Errorf("the log of the start must say that a source of the options stays removed: %q", text)
	}
	// The operator wants it again.
	if err := s.r.Add(store.Source{URL: a.URL}); err != nil {
		t.Fatal(err)
	}
	s = newStageOn(t, db, a.source)
	if all := s.r.Status(); len(all) != 1 || all[0].URL != a.url || !all[0].Named || !all[0].Persisted || all[0].Cursor != 2 {
		t.Errorf("sources %+v", all)
	}
	if text := s.text.String(); text != "" {
		t.Errorf("the start logs %q", text)
	}
}

// TestReplaceSource changes what it is, without a gap, and tries at once.
func TestReplaceSource(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		c.listen()
		for seq := max(c.cursor+1, 1); ; seq++ {
			c.send(account(seq))
			select {
			case <-c.gone:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	s := newStage(t, h.source)
	hosts := map[string]int64{}
	s.holding(func(e *firehose.Event) {
		hosts[e.Source.PDSHost()]++
		e.Source.Refuse()
		e.Skip()
	})
	stop := s.run()
	s.until("events", func() bool { return len(s.seqs(h.url)) > 20 })
	if err := s.r.Add(store.Source{URL: h.URL, PDS: true}); err != nil {
		t.Fatal(err)
	}
	n := len(s.seqs(h.url))
	s.until("more events", func() bool { return len(s.seqs(h.url)) > n+20 })
	stop()
	for i, seq := range s.seqs(h.url) {
		if seq != int64(i)+1 {
			t.Fatalf("event %d has seq %d", i, seq)
		}
	}
	if name := strings.TrimPrefix(h.url, "ws://"); hosts[""] == 0 || hosts[name] == 0 || len(hosts) != 2 {
		t.Errorf("hosts %v", hosts)
	}
	if st := s.status(h.url); st.Refused != int64(len(s.seqs(h.url))) {
		t.Errorf("status %+v", st)
	}
}

// TestRemovedSourceComesBack while its events are in flight: they are not read a second time.
func TestRemovedSourceComesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, net *pipes) {
		h := net.server(t, upTo(4))
		s := net.stage(t, h.source)
		held := make(chan *firehose.Event, 10)
		s.holding(func(e *firehose.Event) { held <- e })
		s.run()
		s.sees(h.url, 1, 2, 3, 4)
		if err := s.r.Remove(h.url); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if err := s.r.Add(store.Source{URL: h.url}); err != nil {
			t.Fatal(err)
		}
		s.until("another connection", func() bool { return len(h.asked()) == 2 })
		if got := h.asked(); got[1] != "4" {
			t.Errorf("asked with cursors %q", got)
		}
		if err := s.r.Remove(h.url); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			e := <-held
			e.Skip()
		}
		s.until("the last cursor", func() bool { return s.cursor(h.url) == 4 })
		// It has left, or is about to; either way it begins behind its cursor.
		if err := s.r.Add(store.Source{URL: h.url}); err != nil {
			t.Fatal(err)
		}
		s.until("a third connection", func() bool { return len(h.asked()) == 3 })
		if got := h.asked(); got[2] != "4" {
			t.Errorf("asked with cursors %q", got)
		}
	})
}

// TestForgetCursor goes on at the tip, and earlier events write no cursor any more.
func TestForgetCursor(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		if c.cursor < 0 {
			c.after(100, 102)
		}
		c.stay()
	})
	s := newStage(t, h.source)
	var held []*firehose.Event
	s.holding(func(e *firehose.Event) {
		if e.Frame.Seq == 101 {
			held = append(held, e)
			return
		}
		if err := e.Write(); err != nil {
			t.Error(err)
		}
	})
	stop := s.run()
	s.sees(h.url, 100, 101, 102)
	s.until("cursor 100", func() bool { return s.cursor(h.url) == 100 })
	if err := s.r.ForgetCursor(h.URL); err != nil {
		t.Fatal(err)
	}
	s.sees(h.url, 100, 101, 102, 100, 101, 102)
	s.until("cursor 100", func() bool { return s.cursor(h.url) == 100 })
	if err := held[0].Write(); err != nil { // the earlier one, while the new one is in flight
		t.Fatal(err)
	}
	if got := s.cursor(h.url); got != 100 {
		t.Errorf("cursor %d while 101 is in flight", got)
	}
	if got := h.asked(); !slices.Equal(got, []string{"-", "-"}) {
		t.Errorf("asked with cursors %q", got)
	}
	stop()
	// While nothing runs, and of a source that is not followed.
	b := s.store.NewBatch()
	b.SetCursor("ws://elsewhere", func() int64 { return 5 })
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{h.url, "http://elsewhere"} {
		if err := s.r.ForgetCursor(url); err != nil {
			t.Error(err)
		}
		if err := s.r.ForgetCursor(url); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s forgotten twice: %v", url, err)
		}
	}
	if s.cursor(h.url) != -1 || s.cursor("ws://elsewhere") != -1 {
		t.Error("a cursor is left")
	}
}

func TestPause(t *testing.T) {
	inBubble(t, func(t *testing.T, net *pipes) {
		a, b := net.server(t, upTo(3)), net.server(t, upTo(1))
		var g gate.Gate
		pause := gate.Cause{Name: "test"}
		s := net.stage(t, a.source, func(o *firehose.Options) { o.Gate = &g })
		g.Shut(pause)
		s.run()
		if err := s.r.Add(store.Source{URL: b.URL}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if len(a.asked())+len(b.asked()) != 0 {
			t.Error("it connects while paused")
		}
		g.Open(pause.Name)
		s.sees(a.url, 1, 2, 3)
		s.sees(b.url, 1)
		g.Shut(pause)
		s.until("the connections to end", func() bool { return !s.status(a.url).Running && !s.status(b.url).Running })
		if st := s.status(a.url); st.LastFailure.Kind != "" || st.RetryIn != 0 {
			t.Errorf("status %+v", st)
		}
		n := len(a.asked())
		time.Sleep(5 * time.Minute)
		if len(a.asked()) != n {
			t.Error("it connects while paused again")
		}
		g.Open(pause.Name)
		s.until("a connection", func() bool { return len(a.asked()) == n+1 })
		if got := a.asked()[n]; got != "3" {
			t.Errorf("asked with cursor %s", got)
		}
	})
}

// TestChangesDoNotWaitForRetries: when an operator resumes or replaces a failing source, it is
// connected at once.
func TestChangesDoNotWaitForRetries(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(n int, c *client) {
		if n == 0 {
			return
		}
		c.after(1, 1)
		c.stay()
	})
	s := newStage(t, h.source, func(o *firehose.Options) { o.RetryBase, o.RetryMax = time.Hour, time.Hour })
	s.run()
	s.until("a failure", func() bool { return s.status(h.url).Failures == 1 })
	if d := s.status(h.url).RetryIn; d <= 0 || d > time.Hour {
		t.Errorf("retry in %s", d)
	}
	if err := s.r.Add(store.Source{URL: h.URL}); err != nil {
		t.Fatal(err)
	}
	s.sees(h.url, 1)
}

// TestRunEndsInEveryState: connected, connecting, between attempts, paused, and handing over.
func TestRunEndsInEveryState(t *testing.T) {
	t.Parallel()
	good, silent := steady(t, 5), newServer(t, func(_ int, c *client) { c.stay() })
	slow := newServer(t, nil)
	block := make(chan struct{})
	t.Cleanup(func() { close(block) })
	slow.refuse = func(int, http.ResponseWriter, string) bool { <-block; return true }
	s := newStage(t, good.source, silent.source, slow.source, func(o *firehose.Options) {
		o.Sources = append(o.Sources, store.Source{URL: "ws://127.0.0.1:1"})
	})
	for range 5 {
		stop := s.run()
		s.until("connections", func() bool { return s.status(good.url).Running && s.status(silent.url).Running })
		stop()
		for _, st := range s.r.Status() {
			if st.Running {
				t.Errorf("status %+v", st)
			}
		}
	}
}

// TestRemovedSourcesLeave nothing behind once their events are handled.
func TestRemovedSourcesLeave(t *testing.T) {
	t.Parallel()
	h := steady(t, 3)
	s := newStage(t, h.source)
	s.run()
	s.sees(h.url, 1, 2, 3)
	for i := range 5 {
		url := fmt.Sprintf("ws://127.0.0.1:1/%d", i)
		if err := errors.Join(s.r.Add(store.Source{URL: url}), s.r.Remove(url)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.r.Remove(h.url); err != nil {
		t.Fatal(err)
	}
	s.until("an empty set", func() bool { return firehose.HeldSources(s.r) == 0 })
}

// TestSourcesAreBounded, but one that is there may be changed.
func TestSourcesAreBounded(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(o *firehose.Options) {
		for i := range firehose.SourcesMax {
			o.Sources = append(o.Sources, store.Source{URL: fmt.Sprintf("ws://127.0.0.1:1/%d", i)})
		}
	})
	if err := s.r.Add(store.Source{URL: "ws://127.0.0.1:2"}); err == nil || !strings.Contains(err.Error(), "ws://127.0.0.1:2") {
		t.Errorf("one more: %v", err)
	}
	if err := s.r.Add(store.Source{URL: "ws://127.0.0.1:1/7", PDS: true}); err != nil || !s.status("ws://127.0.0.1:1/7").PDS {
		t.Errorf("one that is there: %v", err)
	}
	if err := errors.Join(s.r.Remove("ws://127.0.0.1:1/8"), s.r.Add(store.Source{URL: "ws://127.0.0.1:2"})); err != nil {
		t.Errorf("one for another: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	_, err := firehose.New(firehose.Options{QueueBytes: -1, SilentAfter: -1, ReadTimeout: -1, RetryBase: 2, RetryMax: 1, ReconcileEvery: -1,
		Sources: []store.Source{{URL: "relay"}, {URL: "wss://a"}, {URL: "https://a", PDS: true}}})
	if err == nil {
		t.Fatal("New took everything")
	}
	for _, word := range []string{"store", "queue bytes", "silence", "read timeout", "retry maximum", "reconciliation", `"relay"`, "both"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("nothing about %q: %v", word, err)
		}
	}
}

// TestForgetCursorWaitsForTheReader: what is read on the old connection must not become the new
// cursor.
func TestForgetCursorWaitsForTheReader(t *testing.T) {
	inBubble(t, func(t *testing.T, net *pipes) {
		h := net.server(t, func(_ int, c *client) {
			c.after(100, 120) // all of it is in our buffer when the connection ends
			c.stay()
		})
		s := net.stage(t, h.source)
		leave := make(chan struct{})
		s.holding(func(e *firehose.Event) {
			if e.Frame.Seq == 101 && len(h.asked()) == 1 {
				<-leave
			}
			e.Skip()
		})
		s.run()
		synctest.Wait()
		forgotten := make(chan error, 1)
		go func() { forgotten <- s.r.ForgetCursor(h.url) }()
		synctest.Wait()
		if len(forgotten) > 0 {
			t.Error("it does not wait for the event that is being handed over")
		}
		close(leave)
		if err := <-forgotten; err != nil {
			t.Fatal(err)
		}
		s.until("another connection", func() bool { return len(h.asked()) == 2 })
		if got := h.asked(); got[1] != "-" {
			t.Errorf("asked with cursors %q", got)
		}
	})
}
