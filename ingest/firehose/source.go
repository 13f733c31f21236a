package firehose

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cistern/ingest/identity"
	"cistern/loop"
	"cistern/store"
)

// Source is one firehose: its cursor, and its connection while there is one.
type Source struct {
	set       *Sources
	url       string // normalised
	id        uint32 // store.SourceID of its host
	tracker   *tracker
	gaps      gaps
	socket    atomic.Pointer[socket] // the connection, nil if there is none
	pds       atomic.Bool
	persisted atomic.Bool
	direct    atomic.Bool // as in its row
	failing   atomic.Bool // failures is not 0

	messages   atomic.Int64
	bytes      atomic.Int64
	bad        atomic.Int64
	foreign    atomic.Int64 // events about accounts that are not its own
	lastRead   atomic.Int64 // unix nanoseconds by Options.Now
	followed   time.Time    // since when, by Options.Now
	lastStated atomic.Int64 // unix microseconds, as stated by the newest event

	moved atomic.Int64  // the mark when the durable cursor was last read
	kick  chan struct{} // wakes run

	// owned by run:
	patience  time.Duration // how long it may be silent
	tried     atomic.Bool   // the first attempt to connect has ended
	tipped    bool          // a connection without a cursor was made
	strays    int           // events in a row below the cursor, with rising seqs
	strayLast int64         // seq of the last of them
	recounted bool          // the host of this connection has begun a new count
	stuck     int           // connections in a row that ended inside the same message
	stuckAt   int64         // the seq before it
	stuckTime time.Time     // when the first of them ended

	// mu guards:
	mu        sync.Mutex
	started   bool // run was called
	removed   bool
	paused    bool
	holds     int                     // callers of hold, which want no connection for a moment
	stop      context.CancelCauseFunc // ends the current attempt, nil if there is none
	idle      sync.Cond               // of mu: stop became nil
	live      bool                    // connected
	failures  int                     // in a row
	lastFail  LastFailure
	nextRetry time.Time // zero: at once
	jitter    *rand.Rand
}

func newSource(set *Sources, row store.Source) *Source {
	s := &Source{set: set, url: row.URL, id: store.SourceID(identity.HostOf(row.URL)),
		tracker: newTracker(-1), kick: make(chan struct{}, 1), patience: set.opts.SilentAfter,
		followed: set.opts.Now()}
	var name uint64
	for _, c := range []byte(row.URL) {
		name = name*31 + uint64(c)
	}
	s.jitter = rand.New(rand.NewPCG(set.opts.Seed, name))
	s.idle.L = &s.mu
	s.pds.Store(row.PDS)
	return s
}

// URL returns the normalised address of the source, which names it in rows.
func (s *Source) URL() string { return s.url }

// ID returns the store.SourceID of the source's host.
func (s *Source) ID() uint32 { return s.id }

// Name returns the name of the source in logs: its host.
func (s *Source) Name() string { return identity.HostOf(s.url) }

// PDSHost returns the host of a source that is a PDS, spelled as in the origins of package
// identity: with its port unless that is the scheme's default. It returns "" for a relay, which may
// speak of every account.
func (s *Source) PDSHost() string {
	if !s.pds.Load() {
		return ""
	}
	return identity.HostOf(s.url)
}

// Refuse counts an event that a PDS sent about an account that is not its own.
func (s *Source) Refuse() { s.foreign.Add(1) }

// Finish marks events as done, by their numbers, and returns the seq up to which all events of the
// source are done, -1 while that is unknown. A batch that has the changes of events calls it while
// it gets its place in the log (store.Batch.SetCursor).
func (s *Source) Finish(numbers ...int64) (mark int64) { return s.tracker.finish(numbers...) }

// ending is why a connection ended, or could not be made.
type ending struct {
	kind string
	err  error
	wait time.Duration // the Retry-After of the host
	ours bool          // the store failed
	idle bool          // nothing came, which is no failure
	lone bool          // nor did other sources send anything
	// inside means that the connection ended inside a message.
	inside bool
}

func (e *ending) Error() string { return e.kind + ": " + e.err.Error() }

// text returns the cause for logs and answers. A host may have written much of it: an answer that
// is not HTTP is quoted whole.
func (e *ending) text() string {
	text := e.err.Error()
	return strings.ToValidUTF8(text[:min(len(text), failureBytesMax)], "")
}

func (e *ending) Unwrap() error { return e.err }

// errStopped ends an attempt that is no longer wanted.
var errStopped = errors.New("stopped")

// run follows the source until ctx ends or it is removed. An error is the store's.
func (s *Source) run(ctx context.Context) error {
	defer s.leave()
	for ctx.Err() == nil {
		attempt := s.begin(ctx)
		if attempt == nil {
			if gone, err := s.rest(ctx); gone || err != nil {
				return err
			}
			continue
		}
		err := s.settle(ctx, s.follow(attempt, ctx))
		s.end()
		if err != nil {
			return err
		}
		s.pause(ctx)
	}
	return nil
}

// begin returns the context of a new attempt, nil if none is wanted.
func (s *Source) begin(ctx context.Context) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wanted() {
		return nil
	}
	attempt, stop := context.WithCancelCause(ctx)
	s.stop = stop
	return attempt
}

// end records and announces the end of an attempt.
func (s *Source) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop(nil)
	s.stop, s.live = nil, false
	s.idle.Broadcast()
}

// wanted reports whether there should be a connection. mu is held.
func (s *Source) wanted() bool { return !s.removed && !s.paused && s.holds == 0 }

func (s *Source) isWanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted()
}

// start reports whether the caller is to call run, which it does once.
func (s *Source) start() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return false
	}
	s.started = true
	return true
}

func (s *Source) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = false
}

// rest waits until a connection may be wanted again. A removed source stays until its events are
// handled, so that they are not read and counted anew by a source that is added meanwhile.
func (s *Source) rest(ctx context.Context) (gone bool, err error) {
	if s.isRemoved() && s.tracker.waiting() == 0 {
		behind, err := s.behind()
		if err == nil && behind {
			b := s.set.store.NewBatch()
			b.SetCursor(s.url, s.tracker.mark)
			err = b.CommitSync()
		}
		return err != nil || s.set.drop(s), err
	}
	t := time.NewTimer(removeEvery)
	defer t.Stop()
	if !s.isRemoved() {
		t.Stop()
	}
	select {
	case <-ctx.Done():
	case <-s.kick:
	case <-t.C:
	}
	return false, nil
}

// settle acts on the end of an attempt.
func (s *Source) settle(ctx context.Context, e *ending) error {
	if e == nil || ctx.Err() != nil {
		return nil
	}
	if e.ours {
		return fmt.Errorf("follow source %s: %w", s.url, e.err)
	}
	if e.idle {
		level := slog.LevelInfo
		if s.pds.Load() { // many PDSes are quiet most of the time
			level = slog.LevelDebug
		}
		s.set.opts.Logger.Log(ctx, level, "source sends nothing: connecting anew, in case its host "+
			"lost the subscription", "source", s.url, "err", e.err)
		return nil
	}
	s.set.metrics.failures.WithLabelValues(e.kind).Inc()
	failures, retry := s.fail(e)
	if worthSaying(failures) {
		s.set.opts.Logger.Warn("source failed", "source", s.url, "kind", e.kind, "failures", failures,
			"retry", retry, "err", e.text())
	}
	if e.kind != failRead || !e.inside {
		return nil
	}
	// A message that we cannot read to its end would be sent again and again. The host's seq after
	// it is unknown.
	if at := s.tracker.last(); at != s.stuckAt || s.stuck == 0 {
		s.stuckAt, s.stuck, s.stuckTime = at, 1, time.Now()
	} else {
		s.stuck++
	}
	if s.stuck < stuckMax || s.stuckAt < 0 || time.Since(s.stuckTime) < s.set.stuckAfter {
		return nil
	}
	s.stuck = 0
	s.set.opts.Logger.Warn("source sends the same unreadable message on every connection: "+
		"continuing at its newest message", "source", s.url, "seq", s.stuckAt)
	return s.set.reconcile(s, true)
}

// fail records a failure and plans the next attempt.
func (s *Source) fail(e *ending) (failures int, retry time.Duration) {
	o := &s.set.opts
	s.mu.Lock()
	defer s.mu.Unlock()
	ceiling := o.RetryBase
	for i := 0; i < s.failures && ceiling < o.RetryMax; i++ {
		ceiling *= 2
	}
	retry = time.Duration(s.jitter.Int64N(int64(min(ceiling, o.RetryMax)) + 1))
	retry = max(retry, min(e.wait, retryAfterRatio*o.RetryMax))
	s.failures++
	s.failing.Store(true)
	s.nextRetry = time.Now().Add(retry)
	s.lastFail = LastFailure{At: o.Now(), Kind: e.kind, Detail: e.text()}
	return s.failures, retry
}

// worthSaying reports whether a failure is logged. It keeps the log of a source that always fails
// short.
func worthSaying(failures int) bool { return failures&(failures-1) == 0 }

// pause waits until it is time for the next attempt.
func (s *Source) pause(ctx context.Context) {
	for ctx.Err() == nil {
		s.mu.Lock()
		d, wanted := time.Until(s.nextRetry), s.wanted()
		s.mu.Unlock()
		if d <= 0 || !wanted {
			return
		}
		t := time.NewTimer(d)
		select {
		case <-ctx.Done():
		case <-s.kick:
		case <-t.C:
		}
		t.Stop()
	}
}

// connectedNow records that there is a connection.
func (s *Source) connectedNow(cursor int64) {
	s.mu.Lock()
	s.live = true
	failures := s.failures
	s.mu.Unlock()
	if worthSaying(failures) {
		from := []any{"source", s.url}
		if cursor >= 0 { // otherwise it is at the tip
			from = append(from, "cursor", cursor)
		}
		s.set.opts.Logger.Info("source connected", from...)
	}
}

// Healthy forgets failures. It is cheap enough to be called for every event.
func (s *Source) Healthy() {
	if !s.failing.Swap(false) {
		return
	}
	s.mu.Lock()
	s.failures = 0
	s.mu.Unlock()
}

// change changes whether a connection is wanted, and wakes run.
func (s *Source) change(f func()) {
	s.mu.Lock()
	f()
	s.nextRetry = time.Time{}
	if s.stop != nil && !s.wanted() {
		s.stop(errStopped)
	}
	s.mu.Unlock()
	loop.Wake(s.kick)
}

func (s *Source) setRemoved(removed bool) { s.change(func() { s.removed = removed }) }
func (s *Source) setPaused(paused bool)   { s.change(func() { s.paused = paused }) }

// hold ends the connection and prevents a new one until release is called.
func (s *Source) hold() (release func()) {
	s.change(func() { s.holds++ })
	s.mu.Lock()
	for s.stop != nil {
		s.idle.Wait()
	}
	s.mu.Unlock()
	return func() { s.change(func() { s.holds-- }) }
}

func (s *Source) isRemoved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed
}

func (s *Source) connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

// attempting reports whether there is a connection, or one is being made.
func (s *Source) attempting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop != nil
}

// rewind goes back to the durable cursor at the beginning of a run, when no event is in flight.
func (s *Source) rewind() error {
	cursor, ok, err := s.set.store.Cursor(s.url)
	if err != nil {
		return err
	}
	if !ok {
		cursor = -1
	}
	s.restart(cursor)
	return s.gaps.load(s.set.store, s.url)
}

// restart drops the events in flight and continues behind cursor, -1 for none.
func (s *Source) restart(cursor int64) {
	s.tracker.reset(cursor)
	s.moved.Store(-1)
	s.gaps.mu.Lock()
	s.gaps.sampled = false
	s.gaps.mu.Unlock()
}

// behind reports whether the durable cursor is behind the mark. It reads the cursor only when the
// mark has moved since the last time.
func (s *Source) behind() (bool, error) {
	mark := s.tracker.mark()
	if mark < 0 || s.moved.Swap(mark) == mark {
		return false, nil
	}
	cursor, ok, err := s.set.store.Cursor(s.url)
	return err == nil && (!ok || cursor < mark), err
}

// lag returns how far the source is behind: 0 if it has nothing more to send, and if its lag is
// unknown. While all events read are handled, it is the delay of the newest message.
func (s *Source) lag() time.Duration {
	at := max(s.lastStated.Load(), s.gaps.clock.Load())
	if at == 0 {
		return 0
	}
	until := s.set.opts.Now()
	if c := s.socket.Load(); c != nil && c.reading.Load() && s.tracker.waiting() == 0 {
		if time.Since(time.Unix(0, c.heard.Load())) > s.set.idleAfter() {
			return 0
		}
		if c.messages.Load() > 0 {
			until = time.Unix(0, s.lastRead.Load())
		}
	}
	return max(0, until.Sub(time.UnixMicro(at)))
}

// eventAge returns how long ago the newest event was read, or for how long none has come since the
// source is followed.
func (s *Source) eventAge() time.Duration {
	since := s.followed
	if at := s.lastRead.Load(); at != 0 {
		since = time.Unix(0, at)
	}
	return max(0, s.set.opts.Now().Sub(since))
}

func (s *Source) status() Status {
	st := Status{
		URL: s.url, PDS: s.pds.Load(), Direct: s.direct.Load(), Named: s.set.named[s.url],
		Persisted: s.persisted.Load(), Seq: max(0, s.tracker.last()), Events: s.messages.Load(),
		Bytes: s.bytes.Load(), BadFrames: s.bad.Load(), Refused: s.foreign.Load(), Lag: s.lag(),
	}
	if at := s.lastRead.Load(); at != 0 {
		st.LastEvent = time.Unix(0, at)
	}
	if cursor, ok, err := s.set.store.Cursor(s.url); ok && err == nil {
		st.Cursor = cursor
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Running, st.Failures, st.LastFailure = s.live, s.failures, s.lastFail
	if !s.live && s.stop == nil && s.wanted() {
		st.RetryIn = max(0, time.Until(s.nextRetry))
	}
	return st
}
