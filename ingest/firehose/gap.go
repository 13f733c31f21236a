package firehose

import (
	"sync"
	"sync/atomic"
	"time"

	"cistern/store"
)

// gaps detects that messages of a source were missed between two connections. Most hosts do not
// announce it: indigo's relay answers a cursor that is too old with its oldest message, and a
// cursor from an earlier count with its next message.
//
// The first message of a connection with a cursor is compared with the cursor, and the first that
// states a time with the time up to which the source was read. These signs mean that messages may
// be missing:
//
//   - its seq is not above the cursor: the host has begun a new count, in which reading goes on;
//   - its seq is above cursor + 1, and the source is dense: it gives consecutive numbers;
//   - nothing was read of the gapTime before it, or gapTimeDense if the source is dense: messages
//     of that time may be lost. In a dense source consecutive numbers exclude a gap, unless a new
//     count has passed the cursor;
//   - no message comes for a while, and the cursor is older than gapTimeDense.
//
// After each sign the source's listing is compared with our rows, and for a relay the listings of
// all known hosts. A source may request that once in Options.ReconcileEvery, and not while a
// comparison is under way; until then store.Progress records it as owed.
type gaps struct {
	// unix microseconds: all that was sent until then was read, as far as is known; 0: unknown
	clock atomic.Int64
	dense atomic.Int64 // 0 to denseMax

	// mu guards what follows. It is held over I/O.
	mu    sync.Mutex
	asked time.Time      // when this process last requested a comparison
	saved store.Progress // as last written
	// A sample is the value of clock at a seq. It is written once the cursor has reached the seq.
	sampled   bool
	sampleSeq int64
	sampleAt  int64
}

// isDense reports whether the source numbers its messages consecutively, so that a skipped seq is a
// missed message.
func (g *gaps) isDense() bool { return g.dense.Load() >= denseMin }

// step learns from two successive seqs of one connection whether the source is dense.
func (g *gaps) step(from, to int64) {
	if n := g.dense.Load(); to > from+1 {
		g.dense.Store(n / 2)
	} else if n < denseMax {
		g.dense.Store(n + 1)
	}
}

// lost learns from a seq that was left out between two connections. Such a seq is much weaker
// evidence of a sparse source than one left out within a connection: the source may have lost
// messages several times in a row, and each time has to be noticed.
func (g *gaps) lost() { g.dense.Store(max(g.dense.Load()-1, 0)) }

// read records that everything sent until a time, in unix microseconds, was read. A time in our
// future counts as now. A time recorded while our clock was ahead is replaced by the present one.
func (g *gaps) read(until, now int64) {
	for until = min(until, now); ; {
		at := g.clock.Load()
		if until <= at && at <= now || g.clock.CompareAndSwap(at, until) {
			return
		}
	}
}

// load reads what an earlier process wrote. A new source is assumed to be dense until its seqs show
// otherwise.
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

// progress adds the source's progress to a batch, if it changed enough, and reports whether it did.
// The same batch writes the cursor if that is not written yet. gaps.mu is held until the batch is
// committed.
func (s *Source) progress(b *store.Batch) (news bool) {
	g := &s.gaps
	if !g.sampled {
		at := g.clock.Load() // read before the seq, so that it is true for this seq too
		g.sampled, g.sampleAt, g.sampleSeq = true, at, s.tracker.last()
	}
	if mark := s.tracker.mark(); mark < 0 || mark < g.sampleSeq {
		return false
	}
	g.sampled = false
	p := store.Progress{At: g.sampleAt, Dense: g.dense.Load(), Owed: g.saved.Owed}
	moved := time.Duration(p.At-g.saved.At) * time.Microsecond
	if moved.Abs() < progressEvery && (p.Dense >= denseMin) == (g.saved.Dense >= denseMin) {
		return false
	}
	b.PutProgress(s.url, p)
	g.saved = p
	return true
}

// checkGap requests a comparison if the first message of a connection, or the first that states a
// time, is a sign of a gap.
func (c *socket) checkGap(seq, stated int64) error {
	s := c.src
	sign, anew := c.sign(seq, stated)
	c.begins, c.untimed = false, stated <= 0 && sign == ""
	if sign == "" {
		return nil
	}
	s.set.opts.Logger.Warn("messages of the source may have been missed: comparing its listing",
		"source", s.url, "sign", sign, "cursor", s.tracker.last(), "seq", seq)
	return s.set.reconcile(s, anew)
}

// sign returns the sign that messages are missing before a message, "" for none. With anew, the
// host has begun a new count. Only the first message of a connection is compared with the cursor.
func (c *socket) sign(seq, stated int64) (sign string, anew bool) {
	s := c.src
	cursor, dense := s.tracker.last(), s.gaps.isDense()
	var unread time.Duration
	if stated > 0 {
		unread = c.unread(stated)
	}
	switch {
	case !c.begins:
	case seq == cursor && stated > 0 && stated == s.lastStated.Load():
		return "", false // the newest message again: this host starts at the cursor, not behind it
	case seq <= cursor:
		return "seq is not above the cursor: the source has begun a new count", true
	case dense && seq > cursor+1:
		s.gaps.lost()
		return "seqs are missing behind the cursor", false
	}
	switch {
	case !dense && unread >= gapTime, unread >= gapTimeDense:
		return "a jump in the time of events", false
	}
	return "", false
}

// unread returns for how long before a time, or before the connection if that was earlier, the
// source was not read: 0 if that is unknown. If the recorded time is well after the connection, our
// clock was ahead then, and the source may have been unread for long.
func (c *socket) unread(until int64) time.Duration {
	behind := time.Duration(min(until, c.sinceTime)-c.clock) * time.Microsecond
	switch {
	case c.clock <= 0:
		return 0
	case time.Duration(c.clock-c.sinceTime)*time.Microsecond >= gapTime:
		return gapTimeDense
	}
	return behind
}

// checkSilence requests a comparison if no message has come since the connection was made and the
// cursor is old.
func (c *socket) checkSilence() error {
	s := c.src
	if c.unread(c.sinceTime) < gapTimeDense {
		return nil
	}
	s.set.opts.Logger.Info("the source has sent no message and its cursor is old: comparing its "+
		"listing", "source", s.url, "read_until", time.UnixMicro(c.clock))
	return s.set.reconcile(s, false)
}

// reconcile requests the comparison of the source's listing, now or as soon as mayAsk allows. With
// anew it drops the cursor in the same batch. An error is the store's.
func (s *Sources) reconcile(src *Source, anew bool) error {
	if anew {
		s.metrics.restarts.Inc()
		src.restart(-1)
	}
	g := &src.gaps
	g.mu.Lock()
	defer g.mu.Unlock()
	// A pass that moves its cursor must not overwrite the request.
	defer s.store.LockReconciliation(Listing(src.url))()
	may, err := s.mayAsk(src)
	if err != nil {
		return ours(err)
	}
	b := s.store.NewBatch()
	if anew {
		b.DropCursor(src.url)
	}
	// This is durable before any message behind the gap moves the cursor: after a crash the
	// comparison is requested, or owed.
	return ours(s.ask(src, b, may))
}

// askOwed requests the comparison that is owed to a source, if mayAsk allows it by now.
func (s *Sources) askOwed(src *Source) error {
	g := &src.gaps
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.saved.Owed {
		return nil
	}
	defer s.store.LockReconciliation(Listing(src.url))()
	may, err := s.mayAsk(src)
	if err != nil || !may {
		return err
	}
	return s.ask(src, s.store.NewBatch(), true)
}

// mayAsk reports whether a comparison may be requested now: Options.ReconcileEvery has passed, and
// none is in progress. One that has not read its first page does not count: the source may have no
// listing, and then the listings of all hosts would never be requested again. The source's gaps.mu
// and the lock of its listing are held.
func (s *Sources) mayAsk(src *Source) (bool, error) {
	if at := src.gaps.asked; !at.IsZero() && time.Since(at) < s.opts.ReconcileEvery {
		return false, nil
	}
	row, _, err := s.store.Reconciliation(Listing(src.url))
	return row.Stage != store.ReconcileListed && row.Cursor == "", err
}

// ask commits a batch that requests a comparison, or records it as owed. The same locks as for
// mayAsk are held.
func (s *Sources) ask(src *Source, b *store.Batch, now bool) error {
	g := &src.gaps
	if listing := Listing(src.url); now {
		b.PutReconciliation(listing, store.Reconciliation{})
		// a relay's listing leaves out inactive accounts and accounts that it does not know
		if !src.pds.Load() {
			defer s.store.LockReconcileHosts()()
			b.PutReconcileHosts(listing)
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
