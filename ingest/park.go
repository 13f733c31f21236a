package ingest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/frame"
	"cistern/ingest/identity"
	"cistern/loop"
	"cistern/store"
)

// need is what a parked backlog waits for.
type need uint8

const (
	needNothing need = iota
	needKey          // the identity, as the directory knows it
	needRefresh      // the identity, read again
	needHeavy        // an account event that changes many records
)

// backlog holds the events of one DID that a shard has taken, in order. Its shard owns it, except
// for the fields that a task writes while the backlog is parked.
type backlog struct {
	shard *shard
	did   string

	events    []*firehose.Event // the first is handled next
	bytes     int64             // of events, while parked
	coalesced coalesced
	drain     bool // buffered commits are handled first
	queued    bool // in shard.ready, or in the current group
	// refresh counts the lookups of its identity because of an #identity, 0 if none is due.
	refresh int

	// parked is what the backlog waits for. Events that come meanwhile are appended, and none is
	// handled.
	parked need
	tries  int
	due    time.Time // when the task is to be retried

	head *firehose.Event // with needHeavy: the event to handle

	// Why its event waits for the identity: the key in the row fits, or no known key does.
	held, mismatch bool

	// written by the task:
	ident identity.Identity
	err   error
	read  time.Time // when the lookup began
	// got is the need that ident and err answer, until the next event is done.
	got need
}

// coalesced is the remainder of events that were dropped for lack of room while their DID was
// parked. The repository of a commit is fetched again. It stands for events that came after the
// backlog's, and may be handled before them: they then find a row with a SeenRev above theirs.
type coalesced struct {
	revs  map[string]string // the highest rev by the PDS that sent it, "" for all relays
	marks []mark
}

// add records the rev of a commit.
func (f *coalesced) add(host, rev string) {
	if f.revs == nil {
		f.revs = map[string]string{}
	}
	f.revs[host] = max(f.revs[host], rev)
}

// rev returns the highest rev from relays and from the account's PDS; other PDSes do not count.
func (f *coalesced) rev(pds string) string { return max(f.revs[""], f.revs[pds]) }

// mark is an event that is done once its effect is written.
type mark struct {
	src *firehose.Source
	seq int64
}

func (l *backlog) empty() bool {
	return len(l.events) == 0 && len(l.coalesced.marks) == 0 && !l.drain && l.refresh == 0 &&
		l.parked == needNothing
}

// web reports whether its document is at a host that anyone may run (did:web).
func (l *backlog) web() bool { return webDID(l.did) }

func webDID(did string) bool { return strings.HasPrefix(did, "did:web:") }

// pop removes the first event.
func (l *backlog) pop() {
	n := copy(l.events, l.events[1:])
	l.events[n] = nil
	l.events = l.events[:n]
}

// park makes the backlog wait for a task, unless there is no room even for its first event.
func (s *shard) park(l *backlog, n need) {
	l.parked, l.tries, l.due = n, 0, time.Time{}
	if n == needHeavy {
		l.head = l.events[0]
	}
	s.parked.Add(1)
	s.local -= len(l.events)
	events := l.events
	l.events = events[:0]
	for _, e := range events {
		s.wait(l, e)
	}
	clear(events[len(l.events):])
	switch {
	case len(events) > 0 && len(l.events) == 0:
		s.unpark(l)
		l.forget()
		s.requeue(l)
	case !s.ending:
		s.send(l)
	}
}

// send starts the task.
func (s *shard) send(l *backlog) {
	l.err = nil
	switch {
	case l.parked == needHeavy:
		s.r.heavy.add(l)
	case l.web():
		s.r.webs.add(l)
	case l.rereads():
		s.r.rereading.add(l)
	default:
		s.r.lookups.add(l)
	}
}

// unpark lets the events continue.
func (s *shard) unpark(l *backlog) {
	l.got, l.parked, l.head = l.parked, needNothing, nil
	s.parked.Add(-1)
	s.parkedBytes -= l.bytes
	if l.web() {
		s.webBytes -= l.bytes
	}
	s.parkedEvents -= len(l.events)
	s.local += len(l.events)
	l.bytes = 0
}

// wait appends an event to a parked backlog. If there is no room, only the rev of a commit is kept,
// and only the newest of account and identity events.
func (s *shard) wait(l *backlog, e *firehose.Event) {
	if k := e.Frame.Kind; (k == frame.KindCommit || k == frame.KindSync) &&
		(len(l.coalesced.revs) > 0 || s.crowded(l, e)) {
		if revFault(e.Frame.Rev, s.r.opts.Now()) == "" {
			l.coalesced.add(e.Source.PDSHost(), e.Frame.Rev)
		}
		s.coalesce(l, e)
		return
	}
	if s.crowded(l, e) {
		s.supersede(l, e)
	}
	l.events = append(l.events, e)
	l.bytes += e.Cost()
	s.parkedBytes += e.Cost()
	if l.web() {
		s.webBytes += e.Cost()
	}
	s.parkedEvents++
}

// coalesce drops an event but for its mark.
func (s *shard) coalesce(l *backlog, e *firehose.Event) {
	l.coalesced.marks = append(l.coalesced.marks, mark{e.Source, e.Number})
	s.coalesced++
	s.r.tally.coalesced.Inc()
	e.Release()
}

// supersede drops the waiting event of e's kind and source: e arrived later, and only the last one
// counts, as e is no commit. A mark of an account and its status are two kinds. The first event may
// be in work, and stays.
func (s *shard) supersede(l *backlog, e *firehose.Event) {
	for i := 1; i < len(l.events); i++ {
		old := l.events[i]
		if old.Source != e.Source || old.Frame.Kind != e.Frame.Kind || hasMark(old) != hasMark(e) {
			continue
		}
		l.events = slices.Delete(l.events, i, i+1)
		s.leave(l, old)
		s.coalesce(l, old)
		return
	}
}

// hasMark reports whether an #account states something that does not hide the account.
func hasMark(e *firehose.Event) bool {
	_, m := statusOf(e.Frame.Active, e.Frame.Status)
	return e.Frame.Kind == frame.KindAccount && m != store.MarkNone
}

// leave subtracts an event from the counts of waiting events.
func (s *shard) leave(l *backlog, e *firehose.Event) {
	l.bytes -= e.Cost()
	s.parkedBytes -= e.Cost()
	if l.web() {
		s.webBytes -= e.Cost()
	}
	s.parkedEvents--
}

// crowded reports whether an event should be coalesced rather than wait for its backlog. Where room
// is expected soon, full waits for it instead.
func (s *shard) crowded(l *backlog, e *firehose.Event) bool {
	if l.web() && s.webBytes+e.Cost() > s.parkedBytesMax()/websBytesShare {
		return true
	}
	return len(l.events) >= backlogEventsMax || s.parkedBytes+e.Cost() > s.parkedBytesMax()
}

// parkedBytesMax returns how many bytes parked events may hold. It leaves most of the readers'
// budget to other events, so that a directory that does not answer does not stop all accounts.
func (s *shard) parkedBytesMax() int64 {
	return s.r.opts.Firehose.QueueBytes() / parkedShare / int64(len(s.r.shards))
}

// full reports whether the shard must take no more events: too many wait that cannot be coalesced,
// or they wait for lookups that are being answered, so that waiting is cheaper than fetching
// repositories again.
func (s *shard) full(now time.Time) bool {
	if s.coalesced >= coalescedMax || s.parkedEvents >= parkedEventsMax {
		return true
	}
	return s.parkedBytes-s.webBytes >= s.parkedBytesMax()/2 && now.Sub(s.answered) < answeredWithin
}

// collect takes back backlogs whose tasks are done, and restarts tasks that are due.
func (s *shard) collect(now time.Time) {
	s.mu.Lock()
	s.back, s.inbox = append(s.back[:0], s.inbox...), s.inbox[:0]
	s.mu.Unlock()
	for _, l := range s.back {
		s.answer(l, now)
	}
	clear(s.back)
	if now.Before(s.nextDue) {
		return
	}
	s.nextDue = now.Add(dueEvery)
	s.later = slices.DeleteFunc(s.later, func(l *backlog) bool {
		due := !l.due.After(now)
		if due {
			s.send(l)
		}
		return due
	})
	s.startRefreshes(now)
}

// answer applies the result of a task to its backlog.
func (s *shard) answer(l *backlog, now time.Time) {
	heavy := l.parked == needHeavy
	if l.err == nil && !heavy && !l.web() {
		s.answered = now
	}
	if passing(l.err) {
		if !errors.Is(l.err, context.Canceled) {
			l.tries++
		}
		if l.tries < s.triesMax(l) {
			l.due = now.Add(lookupDelay(l.tries))
			s.later = append(s.later, l)
			return
		}
	}
	s.unpark(l)
	if heavy {
		s.finish(l) // the task has written and counted the event
	}
	s.requeue(l)
}

// triesMax returns how often the identity is looked up before the first event is handled without
// it. A commit that is dropped comes back with a fetch of the repository, but a status is not
// stated again. See wantKey for commits whose signature could be checked against some key.
func (s *shard) triesMax(l *backlog) int {
	if len(l.events) > 0 && l.events[0].Frame.Kind == frame.KindAccount {
		return lookupsMaxAccount
	}
	if l.refresh > 0 || len(l.events) > 0 && l.events[0].Frame.Kind == frame.KindIdentity {
		return 1 // refreshLater repeats the lookup without holding an event
	}
	switch {
	case l.held:
		return 1
	case l.mismatch:
		return lookupsMaxMismatch
	}
	return lookupsMax
}

// passing reports whether a failure is independent of the DID.
func passing(err error) bool {
	return err != nil && !errors.Is(err, identity.ErrNotFound) &&
		!errors.Is(err, identity.ErrInvalid) && !errors.Is(err, identity.ErrPrivateAddress)
}

// lookupDelay returns how long to wait after so many failures.
func lookupDelay(tries int) time.Duration {
	return min(lookupDelayBase<<min(max(tries-1, 0), 16), lookupDelayMax)
}

// tasks is the queue of backlogs that wait for a goroutine of a pool. It is no longer than the
// number of parked backlogs.
type tasks struct {
	kick chan struct{}

	mu       sync.Mutex
	backlogs []*backlog // mu guards
}

func (q *tasks) add(l *backlog) {
	q.mu.Lock()
	q.backlogs = append(q.backlogs, l)
	q.mu.Unlock()
	loop.Wake(q.kick)
}

func (q *tasks) take() *backlog {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.backlogs) == 0 {
		return nil
	}
	l := q.backlogs[0]
	q.backlogs[0] = nil
	if q.backlogs = q.backlogs[1:]; len(q.backlogs) > 0 {
		loop.Wake(q.kick)
	}
	return l
}

// clear empties the queue.
func (q *tasks) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.backlogs = nil
}

// work runs tasks until ctx ends.
func (q *tasks) work(ctx context.Context, do func(context.Context, *backlog) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.kick:
		}
		for ctx.Err() == nil {
			l := q.take()
			if l == nil {
				break
			}
			if err := do(ctx, l); err != nil {
				return err
			}
			l.shard.returned(l)
		}
	}
}

// lookUp reads an identity.
func (r *Runner) lookUp(ctx context.Context, l *backlog) error {
	l.read = r.opts.Now()
	if !l.web() && r.outage.lasts(l.read) {
		l.err = errOutage
		return nil
	}
	if l.parked == needRefresh {
		r.opts.Directory.Purge(l.did)
	}
	l.ident, l.err = r.opts.Directory.Resolve(ctx, l.did)
	if !l.web() {
		r.outage.note(l.err, r.opts.Now())
	}
	if l.err == nil && l.ident.DID != l.did {
		l.err = identity.ErrInvalid
	}
	return nil
}
