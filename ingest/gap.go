package ingest

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cistern/store"
)

// gaps is how a source finds out that messages were missed between two connections. Most hosts do not say so:
// indigo's relay answers a cursor that is too old with its oldest message, and one of an earlier count with its next message.
//
// The first message of a connection with a cursor is compared with the cursor. These signs mean that messages may be missing:
//
//   - its seq is not above the cursor: the host has begun a new count, in which reading goes on;
//   - its seq is above cursor + 1, and the source is dense: it gives consecutive numbers;
//   - no message accounts for gapTime before it, or gapTimeDense if the source is dense: the host was
//     not read during that time, and what it sends now was sent later. In a dense source the numbers exclude a gap, unless a
//     new count has passed the cursor;
//   - it does not come for a while, and the cursor is older than gapTimeDense.
//
// The answer to each is to compare the source's listing with what we hold, and for a relay those of all known hosts. A source may ask for that once in
// Options.ReconcileEvery, and not while a comparison is under way: until then it is owed, which its store.Progress remembers.
type gaps struct {
	clock atomic.Int64 // unix microseconds: all that was sent until then was read, as far as is known; 0: unknown
	dense atomic.Int64 // 0 to denseMax

	// mu guards what follows. It is held over I/O.
	mu    sync.Mutex
	asked time.Time      // when a comparison was asked for last, since the process began
	saved store.Progress // as last written
	// A sample is where the clock stood at a seq. It is written once the cursor has come so far.
	sampled   bool
	sampleSeq int64
	sampleAt  int64
}

// isDense reports whether a seq that was left out is a message that was missed.
func (g *gaps) isDense() bool { return g.dense.Load() >= denseMin }

// step learns from two successive seqs of one connection whether the source is dense.
func (g *gaps) step(from, to int64) {
	if n := g.dense.Load(); to > from+1 {
		g.dense.Store(n / 2)
	} else if n < denseMax {
		g.dense.Store(n + 1)
	}
}

// read notes that all that was sent until a time was read, in unix microseconds. A time that lies in our future says no more
// than now.
func (g *gaps) read(until, now int64) {
	for until = min(until, now); ; {
		at := g.clock.Load()
		if until <= at || g.clock.CompareAndSwap(at, until) {
			return
		}
	}
}

// load takes up what an earlier run wrote. The numbers of a source are believed to be dense until they prove not to be.
func (g *gaps) load(db *store.Store, source string) error {
	p, ok, err := db.Progress(source)
	if err != nil {
		return err
	}
	if !ok {
		p.Dense = denseMax / 4
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.saved, g.sampled = p, false
	g.dense.Store(min(max(p.Dense, 0), denseMax))
	g.clock.Store(p.At)
	return nil
}

// progress adds to a batch what is known of the source, if there is news. The batch also writes its cursor, if that is behind
// the mark.
func (s *source) progress(b *store.Batch) (news bool) {
	g := &s.gaps
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.sampled {
		at := g.clock.Load() // before the seq: what it tells is true of every later one
		g.sampled, g.sampleAt, g.sampleSeq = true, at, s.tracker.last()
	}
	if mark := s.tracker.mark(); mark < 0 || mark < g.sampleSeq {
		return false
	}
	g.sampled = false
	p := store.Progress{At: g.sampleAt, Dense: g.dense.Load(), Owed: g.saved.Owed}
	if p.At-g.saved.At < progressEvery.Microseconds() && (p.Dense >= denseMin) == (g.saved.Dense >= denseMin) {
		return false
	}
	b.PutProgress(s.url, p)
	g.saved = p
	return true
}

// checkGap looks for a sign of a gap before the first message of a connection.
func (c *socket) checkGap(seq, stated int64) error {
	s := c.src
	sign, anew := c.sign(seq, stated)
	if sign == "" {
		return nil
	}
	s.set.opts.Logger.Warn("messages of the source may be missing: comparing its listing", "source", s.url, "sign", sign,
		"cursor", s.tracker.last(), "seq", seq)
	return s.set.reconcile(s, anew)
}

// sign is what says that messages may be missing before the first message of a connection; "" for nothing. With anew, the host
// has begun a new count.
func (c *socket) sign(seq, stated int64) (sign string, anew bool) {
	s := c.src
	cursor, dense := s.tracker.last(), s.gaps.isDense()
	var unread time.Duration // before the message, or before the connection if the message came later
	if c.clock > 0 && stated > 0 {
		unread = time.Duration(min(stated, c.sinceTime)-c.clock) * time.Microsecond
	}
	switch {
	case seq == cursor && stated > 0 && stated == s.lastStated.Load():
		return "", false // the newest message again: its host takes the cursor for the first message wanted
	case seq <= cursor:
		return "a seq not above the cursor: the source counts anew", true
	case dense && seq > cursor+1:
		s.gaps.step(cursor, seq)
		return "seqs left out behind the cursor", false
	case !dense && unread >= gapTime, unread >= gapTimeDense:
		return "a jump in the time of events", false
	}
	return "", false
}

// checkSilence looks for a sign of a gap when no message has come since the connection was made.
func (c *socket) checkSilence() error {
	s := c.src
	if c.clock <= 0 || time.Duration(c.sinceTime-c.clock)*time.Microsecond < gapTimeDense {
		return nil
	}
	s.set.opts.Logger.Info("the cursor of a source is old and no message has come: comparing its listing", "source", s.url,
		"read_until", time.UnixMicro(c.clock))
	return s.set.reconcile(s, false)
}

// reconcile has the source's listing compared with what we hold, now or as soon as it may ask for that. With anew, the cursor is
// given up, in the same batch. An error is the store's.
func (s *sources) reconcile(src *source, anew bool) error {
	if anew {
		s.metrics.restarts.Inc()
		src.restart(-1)
	}
	g := &src.gaps
	g.mu.Lock()
	defer g.mu.Unlock()
	may, err := s.mayAsk(src)
	if err != nil {
		return ours(err)
	}
	b := s.store.NewBatch()
	if anew {
		b.DropCursor(src.url)
	}
	// Durable before any message behind the gap moves the cursor: after a crash the comparison is asked for, or owed.
	return ours(s.ask(src, b, may))
}

// askOwed asks for the comparison that is owed to a source, if it may be asked for by now.
func (s *sources) askOwed(src *source) error {
	g := &src.gaps
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.saved.Owed {
		return nil
	}
	may, err := s.mayAsk(src)
	if err != nil || !may {
		return err
	}
	return s.ask(src, s.store.NewBatch(), true)
}

// mayAsk reports whether a comparison may be asked for now: it is time, and none is under way. Called with the source's gaps.mu
// held.
func (s *sources) mayAsk(src *source) (bool, error) {
	if at := src.gaps.asked; !at.IsZero() && time.Since(at) < s.opts.ReconcileEvery {
		return false, nil
	}
	name := listingOf(src.url)
	passes, err := s.store.CrawlCursors(name)
	return passes[name] == "", err
}

// ask commits a batch that asks for a comparison, or remembers that it is owed. Called with the source's gaps.mu held.
func (s *sources) ask(src *source, b *store.Batch, now bool) error {
	g := &src.gaps
	if listing := listingOf(src.url); now {
		b.SetCrawlCursor(listing, "")
		if !src.pds.Load() { // its listing leaves out inactive accounts, and all that it does not know
			b.SetCrawlCursor(store.ReconcileCursor, strings.TrimPrefix(listing, reconcilePrefix))
		}
	}
	p := store.Progress{At: g.saved.At, Dense: g.dense.Load(), Owed: !now}
	b.PutProgress(src.url, p)
	if err := b.CommitSync(); err != nil {
		return err
	}
	if g.saved = p; now {
		g.asked = time.Now()
		s.metrics.reconciles.Inc()
		s.opts.Wake()
	}
	return nil
}

// ours marks an error as the store's, nil if there is none.
func ours(err error) error {
	if err == nil {
		return nil
	}
	return &ending{kind: "store", err: err, ours: true}
}
