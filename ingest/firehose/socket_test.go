package firehose_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/frame"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
)

// TestReconnectsBehindWhatWasRead: nothing is read twice, although all of it is still in flight.
func TestReconnectsBehindWhatWasRead(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(n int, c *client) {
		switch n {
		case 0:
			c.after(5, 10) // and hangs up
		default:
			c.after(5, 20)
			c.stay()
		}
	})
	s := newStage(t, h.source)
	var held []*firehose.Event
	s.holding(func(e *firehose.Event) { held = append(held, e) })
	stop := s.run()
	s.sees(h.url, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
	if got := h.asked(); !slices.Equal(got, []string{"-", "10"}) {
		t.Errorf("asked with cursors %q", got)
	}
	if h.agents[0] != "cistern" {
		t.Errorf("user agent %q", h.agents[0])
	}
	st := s.status(h.url)
	if !st.Running || st.Seq != 20 || st.Events != 16 || st.Bytes == 0 || st.LastFailure.Kind != "closed" || st.Failures != 1 || st.Lag <= 0 || st.LastEvent.IsZero() {
		t.Errorf("status %+v", st)
	}
	if firehose.Queued(s.r) != 16*4096 {
		t.Errorf("%d bytes queued", firehose.Queued(s.r))
	}
	for i, e := range held {
		if i == 0 {
			continue // holds the cursor
		}
		if err := e.Write(); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.cursor(h.url); got != 4 {
		t.Errorf("cursor %d while 5 is in flight", got)
	}
	if err := held[0].Write(); err != nil {
		t.Fatal(err)
	}
	if got := s.cursor(h.url); got != 20 || s.status(h.url).Cursor != 20 {
		t.Errorf("cursor %d", got)
	}
	stop()
	if firehose.Queued(s.r) != 0 {
		t.Errorf("%d bytes queued at the end", firehose.Queued(s.r))
	}
}

// TestNextRunBeginsAtTheDurableCursor: what an earlier run read and did not finish is read again.
func TestNextRunBeginsAtTheDurableCursor(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		c.after(1, 6)
		c.stay()
	})
	s := newStage(t, h.source)
	s.holding(func(e *firehose.Event) {
		if e.Frame.Seq <= 3 {
			if err := e.Write(); err != nil {
				t.Error(err)
			}
		} // the others are lost
	})
	stop := s.run()
	s.sees(h.url, 1, 2, 3, 4, 5, 6)
	stop()
	s.holding(nil)
	s.run()
	s.sees(h.url, 1, 2, 3, 4, 5, 6, 4, 5, 6)
	s.until("cursor 6", func() bool { return s.cursor(h.url) == 6 })
	if got := h.asked(); !slices.Equal(got, []string{"-", "3"}) {
		t.Errorf("asked with cursors %q", got)
	}
}

// TestSkippedEventsMoveTheCursor: nothing is ever written, and yet a restart need not begin at the
// beginning.
func TestSkippedEventsMoveTheCursor(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		c.after(1, 5)
		c.send(encode(header("#future"), map[string]any{"seq": 6, "what": "ever"}))
		c.stay()
	})
	s := newStage(t, h.source)
	s.holding(func(e *firehose.Event) { e.Skip() })
	s.run()
	s.until("cursor 6", func() bool { return s.cursor(h.url) == 6 })
}

// TestBadMessagesArePassedOver sends every kind of garbage between good events on one connection.
func TestBadMessagesArePassedOver(t *testing.T) {
	t.Parallel()
	huge := encode(header("#commit"), map[string]any{"seq": 8, "repo": "did:plc:a", "blocks": bytes.Repeat([]byte{1}, frame.BytesMax+1000)})
	h := newServer(t, func(_ int, c *client) {
		c.after(1, 1)
		c.send([]byte{}, []byte("garbage"), bytes.Repeat([]byte{0x81}, 1000), []byte{0xa0}, account(2)[:20])
		_ = c.WriteMessage(websocket.TextMessage, account(2))
		c.after(3, 3)
		// bad, but says where it stands
		c.send(encode(header("#account"), map[string]any{"seq": 4, "did": 5}))
		c.after(5, 5)
		c.send(make([]byte, frame.BytesMax+1)) // no message at all
		c.after(6, 6)
		c.send(huge)
		c.send(make([]byte, frame.BytesMax)) // just short enough to be read, but no message
		c.stay()
	})
	registry := prometheus.NewRegistry()
	s := newStage(t, h.source, func(o *firehose.Options) { o.Registerer = registry })
	s.run()
	s.sees(h.url, 1, 3, 5, 6)
	s.until("all bad messages", func() bool { return s.status(h.url).BadFrames == 10 })
	s.until("the cursor behind the huge one", func() bool { return s.cursor(h.url) == 8 })
	if got := h.asked(); len(got) != 1 {
		t.Errorf("connected with cursors %q", got)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "cistern_ingest_messages_total" {
				counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	want := map[string]float64{"account": 4, "bad": 10, "commit": 0, "error": 0, "identity": 0, "info": 0, "sync": 0, "unknown": 0}
	if !maps.Equal(counts, want) {
		t.Errorf("counted %v", counts)
	}
	if n := strings.Count(s.text.String(), "malformed message from source"); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
	if firehose.Queued(s.r) != 0 {
		t.Errorf("%d bytes queued", firehose.Queued(s.r))
	}
}

// TestMessageWithoutEnd: the rest of it is not worth reading, and the next connection does not
// begin with it.
func TestMessageWithoutEnd(t *testing.T) {
	t.Parallel()
	start := encode(header("#commit"), map[string]any{"seq": 2, "repo": "did:plc:a", "blocks": make([]byte, frame.BytesMax)})
	h := newServer(t, func(_ int, c *client) {
		if c.cursor < 2 {
			c.after(1, 1)
			w, err := c.NextWriter(websocket.BinaryMessage)
			for chunk := start; err == nil; chunk = make([]byte, 1<<20) {
				_, err = w.Write(chunk)
			}
			return
		}
		c.after(3, 4)
		c.stay()
	})
	s := newStage(t, h.source)
	s.run()
	s.sees(h.url, 1, 3, 4)
	if got := h.asked(); !slices.Equal(got, []string{"-", "2"}) {
		t.Errorf("asked with cursors %q", got)
	}
	st := s.status(h.url)
	if st.LastFailure.Kind != "read" || st.Bytes < firehose.DiscardBytesMax || st.Bytes > firehose.DiscardBytesMax+10<<20 {
		t.Errorf("status %+v", st)
	}
}

// TestStuckSourceGoesOnAtItsTip: a host sends after its cursor a message that breaks every
// connection, and does not say where it stands.
func TestStuckSourceGoesOnAtItsTip(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		if c.cursor >= 0 && c.cursor < 9 {
			// the first byte of a message, and reserved bits
			c.UnderlyingConn().Write([]byte{0x02, 1, 0xa0, 0xf0, 0})
			c.stay()
			return
		}
		c.send(account(20))
		c.stay()
	})
	db := storetest.Open(t, store.Options{})
	b := db.NewBatch()
	b.SetCursor(h.url, func() int64 { return 7 })
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	s := newStageOn(t, db, h.source)
	firehose.SetStuckAfter(s.r, 0)
	s.run()
	s.sees(h.url, 20)
	want := append(slices.Repeat([]string{"7"}, firehose.StuckMax), "-")
	if got := h.asked(); !slices.Equal(got, want) {
		t.Errorf("asked with cursors %q, want %q", got, want)
	}
	if !s.reconciling(h.url) || s.wakes.Load() == 0 {
		t.Error("what was missed is not looked for")
	}
	s.until("cursor 20", func() bool { return s.cursor(h.url) == 20 })
}

// TestEndingsThatKeepTheCursor: a proxy whose host restarts closes every connection at once, with a
// code that the WebSocket library takes for a broken message; and one that ends inside a message
// does so for minutes before it loses the cursor.
func TestEndingsThatKeepTheCursor(t *testing.T) {
	t.Parallel()
	closing := func(code uint16) []byte { return binary.BigEndian.AppendUint16([]byte{0x88, 2}, code) }
	for name, c := range map[string]struct {
		sent  []byte
		after time.Duration // how long the source must be stuck
	}{
		"bad gateway":                    {closing(1014), 0},
		"abnormal closure":               {closing(1006), 0},
		"going away":                     {closing(1001), 0},
		"reserved bits between messages": {[]byte{0xf2, 0}, 0},
		"inside a message, for a moment": {[]byte{0x02, 1, 0xa0, 0xf0, 0}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newServer(t, func(n int, cl *client) {
				switch {
				case n == 0:
					cl.after(7, 7)
				case n <= 3*firehose.StuckMax:
					cl.UnderlyingConn().Write(c.sent)
				}
				cl.stay()
			})
			s := newStage(t, h.source, func(o *firehose.Options) { o.SilentAfter = 50 * time.Millisecond })
			firehose.SetStuckAfter(s.r, c.after)
			s.run()
			s.until("the last connection", func() bool { return len(h.asked()) >= 2+3*firehose.StuckMax })
			if got := h.asked()[1:]; slices.Contains(got, "-") {
				t.Errorf("asked with cursors %q: the cursor was given up", got)
			}
		})
	}
}

// TestStuckAtTheTip: a source without a cursor is at the tip already, so that there is no cursor to
// give up and nothing to log.
func TestStuckAtTheTip(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		// the first byte of a message, and reserved bits
		c.UnderlyingConn().Write([]byte{0x02, 1, 0xa0, 0xf0, 0})
		c.stay()
	})
	s := newStage(t, h.source)
	firehose.SetStuckAfter(s.r, 0)
	s.run()
	s.until("failures", func() bool { return s.status(h.url).Failures > 3*firehose.StuckMax })
	if strings.Contains(s.text.String(), "at its tip") || s.wakes.Load() != 0 {
		t.Errorf("%d comparisons of listings", s.wakes.Load())
	}
}

func TestDisconnectInsideAMessage(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(n int, c *client) {
		if n == 0 {
			c.after(1, 2)
			m := account(3)
			head := binary.BigEndian.AppendUint16([]byte{0x82, 126}, uint16(len(m)))
			c.UnderlyingConn().Write(append(head, m[:len(m)/2]...))
			return
		}
		c.after(1, 4)
		c.stay()
	})
	s := newStage(t, h.source)
	s.run()
	s.sees(h.url, 1, 2, 3, 4)
	if st := s.status(h.url); st.BadFrames != 0 || st.LastFailure.Kind != "closed" {
		t.Errorf("status %+v", st)
	}
}

// TestOutdatedCursor: reading goes on, and the gap is closed by the listing.
func TestOutdatedCursor(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		c.send(info("OutdatedCursor"), info("OutdatedCursor"), info("Other"))
		c.after(100, 102)
		c.stay()
	})
	s := newStage(t, h.source)
	s.run()
	s.sees(h.url, 100, 101, 102)
	if !s.reconciling(h.url) || s.wakes.Load() != 1 {
		t.Errorf("listing to be compared: %t, %d wakes", s.reconciling(h.url), s.wakes.Load())
	}
	if got := h.asked(); len(got) != 1 {
		t.Errorf("asked with cursors %q", got)
	}
}

// TestFutureCursor: the host counts anew, below the cursor.
func TestFutureCursor(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		if c.cursor > 50 {
			c.send(failure("FutureCursor"))
			return
		}
		c.after(5, 7)
		c.stay()
	})
	db := storetest.Open(t, store.Options{})
	b := db.NewBatch()
	b.SetCursor(h.url, func() int64 { return 1000 })
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	s := newStageOn(t, db, h.source)
	s.run()
	s.sees(h.url, 5, 6, 7)
	s.until("cursor 7", func() bool { return s.cursor(h.url) == 7 })
	if got := h.asked(); !slices.Equal(got, []string{"1000", "-"}) {
		t.Errorf("asked with cursors %q", got)
	}
	if !s.reconciling(h.url) || s.status(h.url).LastFailure.Kind != "error" {
		t.Errorf("status %+v, listing to be compared: %t", s.status(h.url), s.reconciling(h.url))
	}
}

// TestErrorMessagesReconnect: an error message has the source reconnect behind what was read. A
// FutureCursor is an ordinary error if no cursor was sent.
func TestErrorMessagesReconnect(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(n int, c *client) {
		switch n {
		case 0:
			c.send(failure("FutureCursor"))
		case 1:
			c.after(1, 3)
			c.send(failure("ConsumerTooSlow"))
		case 2:
			c.send(failure(strings.Repeat("x", 100)))
		default:
			c.after(1, 5)
			c.stay()
		}
	})
	s := newStage(t, h.source)
	s.run()
	s.sees(h.url, 1, 2, 3, 4, 5)
	if got := h.asked(); !slices.Equal(got, []string{"-", "-", "3", "3"}) {
		t.Errorf("asked with cursors %q", got)
	}
	if s.reconciling(h.url) {
		t.Error("a listing is to be compared")
	}
}

// TestEventsOutOfOrder are handled, and the cursor stays where it is.
func TestEventsOutOfOrder(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		c.send(account(10), account(10), account(3), account(2), account(11))
		c.stay()
	})
	s := newStage(t, h.source)
	s.run()
	s.sees(h.url, 10, 10, 3, 2, 11)
	if got := s.cursor(h.url); got != 11 {
		t.Errorf("cursor %d", got)
	}
}

// TestDeadHost: a host that answers no pings is given up; one that sends nothing but answers them
// is not.
func TestDeadHost(t *testing.T) {
	inBubble(t, func(t *testing.T, net *pipes) {
		dead := net.server(t, func(n int, c *client) {
			c.after(1, 1)
			if n == 0 {
				_, _ = io.Copy(io.Discard, c.UnderlyingConn()) // pings too
				return
			}
			c.stay()
		})
		quiet := net.server(t, func(_ int, c *client) { c.stay() })
		s := net.stage(t, dead.source, quiet.source, func(o *firehose.Options) { o.ReadTimeout = 20 * time.Second })
		s.run()
		time.Sleep(19 * time.Second)
		if got := dead.asked(); len(got) != 1 {
			t.Errorf("the dead host was connected %d times before the timeout", len(got))
		}
		time.Sleep(2 * time.Minute)
		if got := dead.asked(); len(got) != 2 {
			t.Errorf("the dead host was connected %d times", len(got))
		}
		if st := s.status(dead.url); st.LastFailure.Kind != "timeout" {
			t.Errorf("status %+v", st)
		}
		if got := quiet.asked(); len(got) != 1 || !s.status(quiet.url).Running {
			t.Errorf("the quiet host was connected %d times", len(got))
		}
	})
}

// TestPingsOfTheHostCount: a host may ping instead of answering pings.
func TestPingsOfTheHostCount(t *testing.T) {
	inBubble(t, func(t *testing.T, net *pipes) {
		h := net.server(t, func(_ int, c *client) {
			pongs := make(chan string, 100)
			c.SetPongHandler(func(data string) error { pongs <- data; return nil })
			c.SetPingHandler(func(string) error { return nil }) // no answer
			c.listen()
			for range 20 {
				_ = c.WriteControl(websocket.PingMessage, []byte("hello"), time.Now().Add(time.Second))
				select {
				case got := <-pongs:
					if got != "hello" {
						c.t.Errorf("pong %q", got)
					}
				case <-c.gone:
					return
				}
				time.Sleep(15 * time.Second)
			}
			c.after(1, 1)
			<-c.gone
		})
		s := net.stage(t, h.source, func(o *firehose.Options) { o.ReadTimeout = 20 * time.Second })
		s.run()
		time.Sleep(5*time.Minute + time.Second)
		s.sees(h.url, 1)
		if got := h.asked(); len(got) != 1 {
			t.Errorf("connected %d times", len(got))
		}
	})
}

// TestTrickle: a message may take long while more of it comes, but not for ever.
func TestTrickle(t *testing.T) {
	inBubble(t, func(t *testing.T, net *pipes) {
		h := net.server(t, func(n int, c *client) {
			m := account(int64(n) + 1)
			pause := time.Minute / time.Duration(len(m)) // all of it in three timeouts
			if n == 1 {
				pause = 5 * time.Minute / time.Duration(len(m))
			}
			if n > 1 {
				c.send(m)
				c.stay()
				return
			}
			if _, err := c.UnderlyingConn().Write([]byte{0x82, byte(len(m))}); err != nil {
				return
			}
			for _, b := range m {
				if _, err := c.UnderlyingConn().Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(pause)
			}
		})
		s := net.stage(t, h.source, func(o *firehose.Options) { o.ReadTimeout = 20 * time.Second })
		s.run()
		time.Sleep(4 * time.Minute)
		s.sees(h.url, 1, 3)
		if st := s.status(h.url); st.LastFailure.Kind != "timeout" {
			t.Errorf("status %+v", st)
		}
	})
}

// TestQueueBytesBoundReading: a host cannot make us hold more than the budget, and reading goes on
// when bytes are given back.
func TestQueueBytesBoundReading(t *testing.T) {
	inBubble(t, func(t *testing.T, net *pipes) {
		h := net.server(t, func(_ int, c *client) {
			c.after(1, 100)
			c.stay()
		})
		s := net.stage(t, h.source, func(o *firehose.Options) { o.QueueBytes = 40 << 10 })
		held := make(chan *firehose.Event, 100)
		s.holding(func(e *firehose.Event) { held <- e })
		s.run()
		synctest.Wait()
		if n := len(held); n != 10 || firehose.Queued(s.r) != 40<<10 {
			t.Errorf("%d events of %d bytes are held", n, firehose.Queued(s.r))
		}
		for range 100 {
			e := <-held
			e.Skip()
		}
		if firehose.Queued(s.r) != 0 {
			t.Errorf("%d bytes queued at the end", firehose.Queued(s.r))
		}
	})
}

// TestOperationsCount: the operations of a message count as memory, as they are larger when
// decoded.
func TestOperationsCount(t *testing.T) {
	t.Parallel()
	ops := slices.Repeat([]map[string]any{{"action": "delete", "path": "", "cid": nil}}, 200)
	message := encode(header("#commit"), map[string]any{"seq": 1, "repo": "did:plc:a", "rev": "3kaaaaaaaaa22", "ops": ops})
	h := newServer(t, func(_ int, c *client) {
		c.send(message)
		c.stay()
	})
	s := newStage(t, h.source)
	held := make(chan *firehose.Event, 1)
	s.holding(func(e *firehose.Event) { held <- e })
	s.run()
	e := <-held
	if got, least := firehose.Queued(s.r), int64(len(message)+200*100); len(e.Frame.Ops) != 200 || got < least {
		t.Errorf("%d bytes for %d operations, want %d", got, len(e.Frame.Ops), least)
	}
	if e.Skip(); firehose.Queued(s.r) != 0 {
		t.Errorf("%d bytes of nothing", firehose.Queued(s.r))
	}
}

// TestMessagesKeepTheirBytes: buffers are reused, but never while an event refers to them.
func TestMessagesKeepTheirBytes(t *testing.T) {
	t.Parallel()
	const n = 2000
	h := newServer(t, func(_ int, c *client) {
		for seq := int64(1); seq <= n; seq++ {
			// of all classes of buffers up to 64 KiB
			text := strings.Repeat("x", int(seq*7919%40_000))
			c.send(encode(header("#account"), map[string]any{"seq": seq, "did": storetest.DID(int(seq)), "time": "2026-01-02T03:04:05Z", "active": true, "more": text}))
		}
		c.stay()
	})
	s := newStage(t, h.source, func(o *firehose.Options) { o.QueueBytes = 1 << 20 })
	held, count := []*firehose.Event{}, 0
	s.holding(func(e *firehose.Event) {
		held = append(held, e)
		if len(held) < 10 {
			return
		}
		for _, e := range held {
			if want := storetest.DID(int(e.Frame.Seq)); e.Frame.DID != want || !bytes.Contains(e.Message, []byte(want)) {
				t.Errorf("event %d is of %q", e.Frame.Seq, e.Frame.DID)
			}
			e.Skip()
		}
		count += len(held)
		held = held[:0]
	})
	s.run()
	s.until("all events", func() bool { return s.status(h.url).Events == n })
}
