package firehose_test

import (
	"slices"
	"strconv"
	"testing"

	"cistern/ingest/firehose"
)

// TestHostCountsAnew without saying so: its events are handled all the time, and the cursor follows
// in the end.
func TestHostCountsAnew(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	h := newServer(t, func(_ int, c *client) {
		c.send(account(1000))
		c.send(accounts(1, firehose.StraysMax-1)...)
		c.send(account(1001)) // no: it only repeated itself
		c.send(accounts(1, firehose.StraysMax+20)...)
		<-more
		c.stay()
	})
	s := newStage(t, h.source)
	s.run()
	n := 1 + firehose.StraysMax - 1 + 1 + firehose.StraysMax + 20
	s.until("all events", func() bool { return len(s.seqs(h.url)) == n })
	s.until("the cursor of the new count", func() bool { return s.cursor(h.url) == firehose.StraysMax+20 })
	if !s.reconciling(h.url) || s.wakes.Load() != 1 {
		t.Errorf("listing to be compared: %t, %d wakes", s.reconciling(h.url), s.wakes.Load())
	}
	close(more)
}

// TestFirstOfANewCount holds the cursor like any event while it is in flight.
func TestFirstOfANewCount(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		c.send(account(1000))
		c.send(accounts(1, firehose.StraysMax+1)...)
		c.stay()
	})
	s := newStage(t, h.source)
	held := make(chan *firehose.Event, 1)
	s.holding(func(e *firehose.Event) {
		if e.Frame.Seq == firehose.StraysMax {
			held <- e
			return
		}
		if err := e.Write(); err != nil {
			t.Error(err)
		}
	})
	s.run()
	s.until("all events", func() bool { return len(s.seqs(h.url)) == 1+firehose.StraysMax+1 })
	if got := s.cursor(h.url); got != firehose.StraysMax-1 {
		t.Errorf("cursor %d while %d is in flight", got, firehose.StraysMax)
	}
	e := <-held
	e.Skip()
	s.until("the cursor", func() bool { return s.cursor(h.url) == firehose.StraysMax+1 })
}

// TestHostCountsAnewAllTheTime is ended after the second time: each costs a durable write, a
// comparison and a line of the log.
func TestHostCountsAnewAllTheTime(t *testing.T) {
	t.Parallel()
	const times = 40
	h := newServer(t, func(n int, c *client) {
		for range times {
			if n == 0 {
				c.send(account(1 << 50))
				c.send(accounts(1, firehose.StraysMax)...)
			}
		}
		c.stay()
	})
	s := newStage(t, h.source)
	s.run()
	s.until("another connection", func() bool { return len(h.asked()) > 1 })
	if n := s.wakes.Load(); n != 1 || h.asked()[1] != strconv.Itoa(1<<50) || s.status(h.url).LastFailure.Kind != "error" {
		t.Errorf("%d comparisons, asked with %q, status %+v", n, h.asked(), s.status(h.url))
	}
}

// TestHostRepeatsItself: within a connection, seqs that do not rise are no new count, however many
// there are. A connection that begins below its cursor is one.
func TestHostRepeatsItself(t *testing.T) {
	t.Parallel()
	const some = firehose.StraysMax/2 + 1
	h := newServer(t, func(n int, c *client) {
		if n == 0 {
			c.send(account(1000))
			for range 4 {
				c.send(accounts(1, some)...)
			}
			return
		}
		c.send(accounts(1, firehose.StraysMax+1)...)
		if c.send(account(1000)); n == 2 {
			c.stay()
		}
	})
	s := newStage(t, h.source, func(o *firehose.Options) { o.ReconcileEvery = 1 })
	s.run()
	s.until("three connections", func() bool { return len(s.seqs(h.url)) == 1+4*some+2*(firehose.StraysMax+2) })
	if got := h.asked(); !slices.Equal(got, []string{"-", "1000", "1000"}) || s.wakes.Load() != 2 {
		t.Errorf("asked with cursors %q, %d comparisons", got, s.wakes.Load())
	}
}
