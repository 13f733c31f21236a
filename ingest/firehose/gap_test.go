package firehose_test

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/ingest/firehose"
	"cistern/store"
	"cistern/store/storetest"
)

// eventAt is an #account event that states a time.
func eventAt(seq int64, at time.Time) []byte {
	return encode(header("#account"), map[string]any{"seq": seq, "did": storetest.DID(int(seq)), "time": at.UTC().Format(time.RFC3339Nano), "active": true})
}

// readUpTo is a store in which a source was read up to a cursor.
func readUpTo(t *testing.T, source string, cursor int64, p store.Progress) *store.Store {
	t.Helper()
	db := storetest.Open(t, store.Options{})
	b := db.NewBatch()
	b.SetCursor(source, func() int64 { return cursor })
	if p != (store.Progress{}) {
		b.PutProgress(source, p)
	}
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	return db
}

// TestFirstMessageShowsAGap: nothing announces a gap, so the first message of a connection is held
// against the cursor.
func TestFirstMessageShowsAGap(t *testing.T) {
	t.Parallel()
	const cursor, dense, sparse = 1000, 2 * firehose.DenseMin, 1
	for name, c := range map[string]struct {
		read  time.Duration // how long ago all was read; 0: unknown
		dense int64
		seq   int64         // of the first message
		age   time.Duration // its
		want  bool
	}{
		"the next message":  {time.Hour, dense, cursor + 1, time.Hour, false},
		"messages left out": {time.Hour, dense, cursor + 2, time.Hour, true},
		"messages left out, and nothing known of the source": {0, 0, cursor + 50, time.Hour, true},
		"numbers left out as always":                         {time.Hour, sparse, cursor + 50, time.Hour - time.Minute, false},
		"numbers left out, and a jump in time":               {3 * firehose.GapTime, sparse, cursor + 50, firehose.GapTime, true},
		"a live message after a long absence":                {2 * firehose.GapTime, sparse, cursor + 50, 0, true},
		"a live message after a short absence":               {firehose.GapTime / 2, sparse, cursor + 50, 0, false},
		"the next message of a source that was quiet":        {firehose.GapTimeDense / 2, dense, cursor + 1, 0, false},
		"the next number, of a new count":                    {2 * firehose.GapTimeDense, dense, cursor + 1, firehose.GapTimeDense / 2, true},
		"a message from the future":                          {time.Minute, sparse, cursor + 50, -time.Hour, false},
		"a message from the past":                            {time.Minute, sparse, cursor + 50, 24 * time.Hour, false},
		"the cursor again":                                   {time.Minute, dense, cursor, time.Minute, true},
		"a new count":                                        {time.Minute, sparse, 1, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			h := newServer(t, func(_ int, cl *client) {
				cl.send(eventAt(c.seq, now.Add(-c.age)))
				cl.stay()
			})
			p := store.Progress{Dense: c.dense}
			if c.read > 0 {
				p.At = now.Add(-c.read).UnixMicro()
			}
			s := newStageOn(t, readUpTo(t, h.url, cursor, p), h.source)
			s.run()
			s.sees(h.url, c.seq)
			if s.reconciling(h.url) != c.want || s.wakes.Load() > 1 {
				t.Errorf("listing to be compared: %t, want %t; %d wakes", s.reconciling(h.url), c.want, s.wakes.Load())
			}
			s.until("the cursor", func() bool { return s.cursor(h.url) == c.seq })
		})
	}
}

// TestGapsInARow: a source that loses messages between many connections in a row is found out each
// time, however few messages come in between.
func TestGapsInARow(t *testing.T) {
	t.Parallel()
	const connections = 12
	h := newServer(t, func(n int, c *client) {
		at := max(c.cursor, 0) + 3
		c.send(account(at), account(at+1))
		if n == connections {
			c.stay()
		}
	})
	s := newStage(t, h.source)
	s.run()
	s.until("the last connection", func() bool { return len(s.seqs(h.url)) == 2*(connections+1) })
	s.until("each gap to be noticed", func() bool {
		return strings.Count(s.text.String(), "messages of the source may have been missed") >= connections
	})
}

// TestSparseSourceIsLearnt: a source that leaves numbers out within its connections is not
// suspected at the next one, and what was learnt survives a restart.
func TestSparseSourceIsLearnt(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(n int, c *client) {
		at := max(c.cursor, 0) + 3
		c.send(account(at), account(at+3), account(at+6), account(at+9), account(at+12))
		if n%2 == 1 {
			c.stay()
		}
	})
	s := newStage(t, h.source)
	stop := s.run()
	s.until("two connections", func() bool { return len(s.seqs(h.url)) == 10 })
	if s.reconciling(h.url) {
		t.Error("numbers that a sparse source leaves out count as a gap")
	}
	s.until("what was learnt", func() bool {
		p, ok, err := s.store.Progress(h.url)
		return ok && err == nil && p.Dense < firehose.DenseMin && s.cursor(h.url) == 30
	})
	stop()
	again := newStageOn(t, s.store, h.source)
	again.run()
	again.until("two more connections", func() bool { return len(again.seqs(h.url)) == 10 })
	if again.reconciling(h.url) {
		t.Error("after a restart, numbers that a sparse source leaves out count as a gap")
	}
}

// TestNewCountOfAQuietHost is found out at its first message, although no connection brings as many
// as would prove it from within, and although the host says nothing of cursors in its future.
func TestNewCountOfAQuietHost(t *testing.T) {
	t.Parallel()
	const each = 20
	h := newServer(t, func(n int, c *client) {
		switch n {
		case 0:
			c.send(account(100_000))
			return
		case 1: // it has counted anew
			c.send(accounts(1, each)...)
			return
		}
		c.after(1, 2*each)
		c.stay()
	})
	s := newStage(t, h.source)
	s.run()
	s.until("the new count", func() bool { return s.cursor(h.url) == 2*each })
	if got := h.asked(); !slices.Equal(got, []string{"-", "100000", "20"}) || !s.reconciling(h.url) {
		t.Errorf("asked with cursors %q; listing to be compared: %t", got, s.reconciling(h.url))
	}
}

// TestOldCursorAndNoMessage: messages that were missed hours ago must not wait for the next one,
// which may come tomorrow.
func TestOldCursorAndNoMessage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		read time.Duration
		want bool
	}{
		"hours ago":    {2 * firehose.GapTimeDense, true},
		"a moment ago": {firehose.GapTimeDense / 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newServer(t, func(_ int, c *client) { c.stay() })
			p := store.Progress{At: time.Now().Add(-c.read).UnixMicro(), Dense: 2 * firehose.DenseMin}
			s := newStageOn(t, readUpTo(t, h.url, 1000, p), h.source, func(o *firehose.Options) { o.SilentAfter = 40 * time.Millisecond })
			s.run()
			// The second connection begins after the first was looked at, and what was seen then is
			// no news.
			s.until("two connections", func() bool { return len(h.asked()) >= 2 })
			if s.reconciling(h.url) != c.want || s.wakes.Load() > 1 {
				t.Errorf("listing to be compared: %t, want %t; %d wakes", s.reconciling(h.url), c.want, s.wakes.Load())
			}
		})
	}
}

// TestIdleSourceWasRead: an idle source is read up to now, not up to its newest message: its next
// connection is no gap.
func TestIdleSourceWasRead(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(n int, c *client) {
		if n == 1 {
			c.send(eventAt(2000, time.Now()))
		}
		c.stay()
	})
	start := time.Now()
	p := store.Progress{At: start.Add(-firehose.GapTime + time.Second).UnixMicro(), Dense: 1}
	s := newStageOn(t, readUpTo(t, h.url, 1000, p), h.source, func(o *firehose.Options) { o.SilentAfter = 40 * time.Millisecond })
	s.run()
	s.sees(h.url, 2000)
	s.until("the time up to which it was read", func() bool {
		p, _, err := s.store.Progress(h.url)
		return err == nil && p.At >= start.UnixMicro()
	})
	if s.reconciling(h.url) {
		t.Error("an idle source counts as not read")
	}
}

// TestComparisonsAreBounded: a source that leaves messages out in every connection has its listing
// compared once in a while; what comes in between is owed, in a later process too.
func TestComparisonsAreBounded(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(n int, c *client) {
		at := c.cursor + 100
		c.send(accounts(at, at+20)...)
		if n%3 == 2 {
			c.stay()
		}
	})
	s := newStageOn(t, readUpTo(t, h.url, 1000, store.Progress{}), h.source, func(o *firehose.Options) { o.ReconcileEvery = time.Hour })
	stop := s.run()
	s.until("three connections", func() bool { return len(s.seqs(h.url)) == 63 })
	if n := s.wakes.Load(); n != 1 {
		t.Errorf("%d comparisons in an hour", n)
	}
	if p, ok, err := s.store.Progress(h.url); !p.Owed || !ok || err != nil {
		t.Errorf("progress %+v, %t, %v: want a comparison owed", p, ok, err)
	}
	stop()
	done := s.store.NewBatch()
	done.DropReconciliation(firehose.Listing(h.url)) // the first comparison is over
	if err := done.CommitSync(); err != nil {
		t.Fatal(err)
	}
	h.script = func(_ int, c *client) { c.stay() }
	again := newStageOn(t, s.store, h.source, func(o *firehose.Options) { o.ReconcileEvery = time.Hour })
	again.run()
	again.until("what is owed", func() bool { return again.reconciling(h.url) })
	if p, _, err := s.store.Progress(h.url); p.Owed || err != nil {
		t.Errorf("progress %+v, %v: it is owed no more", p, err)
	}
}

// TestOwedWhileProgressIsSaved: a comparison that becomes owed while the progress of its source is
// being saved is still owed after the save. The progress was made before, when none was owed.
func TestOwedWhileProgressIsSaved(t *testing.T) {
	t.Parallel()
	const url = "wss://relay.test"
	s := newStage(t, func(o *firehose.Options) {
		o.Sources, o.ReconcileEvery = []store.Source{{URL: url}}, time.Hour
	})
	if err := firehose.Missed(s.r, url); err != nil { // requested: the next one is owed
		t.Fatal(err)
	}
	firehose.ReadTo(s.r, url, 7, time.Now())
	owed := make(chan error, 1)
	err := firehose.SaveAround(s.r, func() {
		go func() { owed <- firehose.Missed(s.r, url) }()
		for len(owed) == 0 && !waitsForMutex("cistern/ingest/firehose.Missed") {
			time.Sleep(time.Millisecond)
		}
	})
	if err := errors.Join(err, <-owed); err != nil {
		t.Fatal(err)
	}
	if p, ok, err := s.store.Progress(url); !p.Owed || !ok || err != nil {
		t.Errorf("progress %+v, %t, %v: want a comparison owed", p, ok, err)
	}
}

// waitsForMutex reports whether a goroutine that runs a function waits for a mutex.
func waitsForMutex(function string) bool {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for one := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(one, function) && strings.Contains(one, "sync.(*Mutex).Lock") {
			return true
		}
	}
	return false
}

// TestComparisonIsNotBegunAnew: one that is under way is not disturbed, for a source that leaves
// messages out again and again would never have it end. The next one follows.
func TestComparisonIsNotBegunAnew(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		c.send(account(5000))
		c.stay()
	})
	db := readUpTo(t, h.url, 1000, store.Progress{})
	b := db.NewBatch()
	page := store.Reconciliation{Stage: store.ReconcileReading, Cursor: "page 7"}
	b.PutReconciliation(firehose.Listing(h.url), page)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	s := newStageOn(t, db, h.source, func(o *firehose.Options) { o.ReconcileEvery = 1 })
	s.run()
	s.sees(h.url, 5000)
	if at, _, err := db.Reconciliation(firehose.Listing(h.url)); at != page || err != nil {
		t.Errorf("the comparison under way is at %+v, %v", at, err)
	}
	b = db.NewBatch()
	b.DropReconciliation(firehose.Listing(h.url))
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	s.until("the next comparison", func() bool { return s.reconciling(h.url) })
}

// TestFirstMessageWithoutATime: a message that states no time says nothing of a jump, and the next
// one is looked at instead. The time of an event is its author's to state.
func TestFirstMessageWithoutATime(t *testing.T) {
	t.Parallel()
	const cursor = 1000
	timeless := map[string]any{"seq": cursor + 40, "did": storetest.DID(1), "time": "yesterday", "active": true}
	for name, first := range map[string][]byte{
		"no datetime":       encode(header("#account"), timeless),
		"an unknown kind":   encode(header("#new"), timeless),
		"cannot be decoded": encode(header("#account"), map[string]any{"seq": cursor + 40}),
	} {
		for unread, want := range map[time.Duration]bool{3 * firehose.GapTime: true, firehose.GapTime + time.Minute: false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				now := time.Now()
				h := newServer(t, func(_ int, c *client) {
					c.send(first, eventAt(cursor+50, now.Add(-firehose.GapTime)))
					c.stay()
				})
				s := newStageOn(t, readUpTo(t, h.url, cursor, store.Progress{Dense: 1, At: now.Add(-unread).UnixMicro()}), h.source)
				s.run()
				s.until("the cursor", func() bool { return s.cursor(h.url) == cursor+50 })
				if s.reconciling(h.url) != want {
					t.Errorf("listing to be compared: %t, want %t", s.reconciling(h.url), want)
				}
			})
		}
	}
}

// TestClockThatWasAhead: a source that counts as read up to next year, since our clock was wrong,
// has its listing compared, and counts as read up to now afterwards.
func TestClockThatWasAhead(t *testing.T) {
	t.Parallel()
	for name, quiet := range map[string]bool{"a message": false, "no message": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			h := newServer(t, func(_ int, c *client) {
				if !quiet {
					c.send(eventAt(1050, now))
				}
				c.stay()
			})
			p := store.Progress{Dense: 1, At: now.AddDate(1, 0, 0).UnixMicro()}
			s := newStageOn(t, readUpTo(t, h.url, 1000, p), h.source, func(o *firehose.Options) { o.SilentAfter = 40 * time.Millisecond })
			s.run()
			s.until("the comparison", func() bool { return s.reconciling(h.url) })
			s.until("the time up to which it was read", func() bool {
				p, _, err := s.store.Progress(h.url)
				return err == nil && p.At >= now.UnixMicro() && p.At <= time.Now().UnixMicro()
			})
		})
	}
}

// TestSilenceIsComparedFirst: until a comparison is asked for, durably, an idle source counts as
// read up to its cursor only. A crash in between would hide the gap.
func TestSilenceIsComparedFirst(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) { c.stay() })
	at := time.Now().Add(-2 * firehose.GapTimeDense).UnixMicro()
	p := store.Progress{At: at, Dense: 2 * firehose.DenseMin}
	var s *stage
	read := make(chan int64, 1)
	s = newStageOn(t, readUpTo(t, h.url, 1000, p), h.source, func(o *firehose.Options) {
		o.SilentAfter = 40 * time.Millisecond
		o.Wake = func() { read <- firehose.ReadUntil(s.r, h.url) }
	})
	s.run()
	if got := <-read; got != at || !s.reconciling(h.url) {
		t.Errorf("read until %d when the comparison was asked for, want %d", got, at)
	}
}

// TestListingThatIsNeverRead: a relay may have no listing. Its comparison stays at the first page,
// and must not keep the listings of all hosts from being requested after the next gap.
func TestListingThatIsNeverRead(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		c.send(account(5000))
		c.stay()
	})
	db := readUpTo(t, h.url, 1000, store.Progress{})
	b := db.NewBatch()
	b.PutReconciliation(firehose.Listing(h.url), store.Reconciliation{Stage: store.ReconcileReading})
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	s := newStageOn(t, db, h.source)
	s.run()
	s.sees(h.url, 5000)
	if _, asked, err := db.ReconcileHosts(); !asked || err != nil || !s.reconciling(h.url) {
		t.Errorf("all hosts to be compared: %v, %v", asked, err)
	}
}

// TestLagOfAnIdleSource that has nothing more to send is 0, however old its newest message; while
// it is behind, the lag is what it is behind.
func TestLagOfAnIdleSource(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		c.send(eventAt(1, time.Now().Add(-time.Hour)))
		c.stay()
	})
	s := newStage(t, h.source, func(o *firehose.Options) { o.SilentAfter = time.Second })
	held := make(chan *firehose.Event, 1)
	s.holding(func(e *firehose.Event) { held <- e })
	s.run()
	e := <-held
	if lag := s.status(h.url).Lag; lag < time.Hour {
		t.Errorf("lag %s while an event of an hour ago is in flight", lag)
	}
	e.Skip()
	s.until("no lag", func() bool { return s.status(h.url).Lag == 0 && s.status(h.url).Running })
}

// TestQuietPDSIsNoFailure, whatever other sources send meanwhile; a relay that sends nothing for so
// long is one.
func TestQuietPDSIsNoFailure(t *testing.T) {
	t.Parallel()
	quiet := newServer(t, func(_ int, c *client) { c.stay() })
	loud := newServer(t, func(_ int, c *client) {
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
	s := newStage(t, loud.source, func(o *firehose.Options) {
		o.SilentAfter, o.Sources = 60*time.Millisecond, append(o.Sources, store.Source{URL: quiet.URL, PDS: true})
	})
	s.run()
	s.until("another connection", func() bool { return len(quiet.asked()) >= 2 })
	if st := s.status(quiet.url); st.Failures != 0 || st.LastFailure.Kind != "" {
		t.Errorf("status %+v", st)
	}
}
