package durable

import (
	"cmp"
	"slices"
	"time"

	"cistern/store"
)

// window is what the connections of a subscription have and have not acknowledged of the log:
// every event before next is settled, except the outstanding ones. All outstanding events of an
// account are at one member. It does no I/O, and time is an argument. Records of a snapshot are
// events too, with numbers as ids (snapshot.go).
type window struct {
	next        uint64
	page        uint64      // of the newest event that was added; 0: none
	snapshot    *snapshot   // in progress, before the log from next on; nil: none
	number      uint64      // the last that was given; 0: there was no snapshot
	outstanding []sentEvent // in rising order of id
	known       bool        // no account of an outstanding event is unknown, nor will be
	accounts    map[string]*account
	members     []*member // in rising order of number
	most        int       // outstanding events that leave no room
	retry       time.Duration
	// early is at or before the time at which the first sent event is due.
	early time.Time
}

// state is what is to be done with an outstanding event.
type state uint8

const (
	unknown state = iota // its account is not known: add and identify know it
	loose                // there is no member to have it: join finds one
	queued               // its member is to send it: take
	sent                 // it is due at some time, unless it is settled before: expire
)

// sentEvent is an outstanding event.
type sentEvent struct {
	id      uint64
	page    uint64   // the page of the log that it is on; 0: none
	gap     uint64   // not 0: it stands for the lost events up to this id
	path    string   // not "": it is a record of the snapshot
	account *account // nil if unknown; a gap, or an end, has one of its own
	state   state
	again   bool      // it was sent, or may have been before a restart
	first   time.Time // when it became outstanding in this process
	due     time.Time // if sent
}

// account is an account with outstanding events.
type account struct {
	did         string
	member      *member // nil without members
	outstanding int
	wait        time.Time // not zero: released events are due then, and new ones behind them
}

// member is one of the connections that share the window.
type member struct {
	number int
	held   int       // outstanding events of its accounts
	queue  []uint64  // the queued ones, in rising order
	active time.Time // when it last acknowledged something, or began to hold events
	// stalled means that it is to get no events that another member can have: relieve.
	stalled bool
}

// newWindow returns the window at a position. The accounts of its outstanding events are unknown.
func newWindow(p store.SubscriptionPosition, most int, retry time.Duration, now time.Time) *window {
	w := &window{next: p.Next, most: most, retry: retry, accounts: map[string]*account{}}
	for _, id := range p.Outstanding {
		w.outstanding = append(w.outstanding, sentEvent{id: id, again: true, first: now})
	}
	w.restore(p, now)
	return w
}

// position returns what is to be kept of the window.
func (w *window) position() store.SubscriptionPosition {
	p := store.SubscriptionPosition{Next: w.next, Numbered: w.number}
	for i := range w.outstanding {
		if id := w.outstanding[i].id; id < store.NumbersFrom {
			p.Outstanding = append(p.Outstanding, id)
		}
	}
	p.Snapshot = w.progress()
	return p
}

// room returns how many events may become outstanding.
func (w *window) room() int { return max(0, w.most-len(w.outstanding)) }

// pass moves next forward, past events that the consumer does not want.
func (w *window) pass(next uint64) { w.next = max(w.next, next) }

// join adds a member, which gets the lowest number that is free, so that a connection that comes
// back gets the accounts that it had. Loose events are queued. Accounts with outstanding events
// stay where they are.
func (w *window) join(now time.Time) *member {
	number := 1
	for _, m := range w.members {
		if m.number != number {
			break
		}
		number++
	}
	m := &member{number: number, active: now}
	w.members = slices.Insert(w.members, number-1, m)
	w.assign(now)
	return m
}

// leave removes a member. What it holds is queued at other members, or loose without any.
func (w *window) leave(m *member, now time.Time) {
	w.members = slices.DeleteFunc(w.members, func(o *member) bool { return o == m })
	w.loosen(func(a *account) bool { return a.member == m })
	w.assign(now)
}

// loosen makes the events of some accounts loose. assign must follow.
func (w *window) loosen(which func(*account) bool) {
	for i := range w.outstanding {
		e := &w.outstanding[i]
		if e.account == nil || e.state == loose || !which(e.account) {
			continue
		}
		w.unqueue(e)
		e.state = loose
		e.account.member.held--
	}
	for i := range w.outstanding {
		if e := &w.outstanding[i]; e.state == loose {
			e.account.member, e.account.wait = nil, time.Time{}
		}
	}
}

// assign queues loose events, all events of an account at one member.
func (w *window) assign(now time.Time) {
	if len(w.members) == 0 {
		return
	}
	for i := range w.outstanding {
		if e := &w.outstanding[i]; e.state == loose {
			w.hold(e, now)
			w.enqueue(e)
		}
	}
}

// hold gives a new or loose event to the member of its account. An account without a member gets
// one of the members, of which there is at least one.
func (w *window) hold(e *sentEvent, now time.Time) {
	a := e.account
	if a.member == nil {
		a.member = choose(w.members, a.did, w.most)
	}
	if a.member.held == 0 {
		a.member.active = now
	}
	a.member.held++
}

// enqueue queues an event at the member that holds it.
func (w *window) enqueue(e *sentEvent) {
	m := e.account.member
	e.state = queued
	if n := len(m.queue); n == 0 || m.queue[n-1] < e.id {
		m.queue = append(m.queue, e.id)
		return
	}
	at, _ := slices.BinarySearch(m.queue, e.id)
	m.queue = slices.Insert(m.queue, at, e.id)
}

// unqueue takes an event out of the queue that it is in, if any. The caller sets another state.
func (w *window) unqueue(e *sentEvent) {
	if e.state == queued {
		m := e.account.member
		at, _ := slices.BinarySearch(m.queue, e.id)
		m.queue = slices.Delete(m.queue, at, at+1)
	}
}

// add makes an event outstanding, and queues it. Its id is next or higher. An account that waits
// (release) has it wait too.
func (w *window) add(ev Event, now time.Time) {
	w.outstanding = append(w.outstanding, sentEvent{id: ev.ID, page: ev.Page, first: now})
	w.next, w.page = ev.ID+1, ev.Page
	w.identifyAt(len(w.outstanding)-1, ev.DID, now)
}

// unknown returns the events whose accounts are not known, in rising order.
func (w *window) unknown() (ids []uint64) {
	if w.known {
		return nil
	}
	for i := range w.outstanding {
		if e := &w.outstanding[i]; e.state == unknown {
			ids = append(ids, e.id)
		}
	}
	w.known = len(ids) == 0 // an event that is added is identified at once
	return ids
}

// identify states the account of an unknown event, which is then queued, or loose without a member.
// Events of an account must be identified in rising order.
func (w *window) identify(id uint64, did string, now time.Time) {
	if i, ok := w.find(id); ok && w.outstanding[i].state == unknown {
		w.identifyAt(i, did, now)
	}
}

// identifyAt states the account of the unknown event at an index.
func (w *window) identifyAt(i int, did string, now time.Time) {
	e := &w.outstanding[i]
	a := w.accounts[did]
	if a == nil {
		a = &account{did: did}
		w.accounts[did] = a
	}
	e.account, e.state = a, loose
	a.outstanding++
	if len(w.members) == 0 {
		return
	}
	w.hold(e, now)
	if a.wait.IsZero() {
		w.enqueue(e)
	} else {
		w.wait(e, a.wait)
	}
}

// wait makes an event due at a time.
func (w *window) wait(e *sentEvent, at time.Time) {
	w.unqueue(e)
	e.state, e.due = sent, at
	if w.early.IsZero() || at.Before(w.early) {
		w.early = at
	}
}

// take takes up to most events out of the queue of a member, which is about to send them. They are
// due after the retry timeout.
func (w *window) take(m *member, most int, now time.Time) []Item {
	n := min(most, len(m.queue))
	items := make([]Item, 0, n)
	i := -1
	for _, id := range m.queue[:n] {
		if i++; i >= len(w.outstanding) || w.outstanding[i].id != id { // most follow each other
			i, _ = w.find(id)
		}
		e := &w.outstanding[i]
		items = append(items, Item{ID: id, Page: e.page, Gap: e.gap, Again: e.again,
			Record: store.RecordName{DID: e.account.did, Path: e.path}, End: w.ends(id)})
		e.state, e.again = sent, true
		e.due = now.Add(w.retry)
	}
	m.queue = slices.Delete(m.queue, 0, n)
	if n > 0 && (w.early.IsZero() || now.Add(w.retry).Before(w.early)) {
		w.early = now.Add(w.retry)
	}
	return items
}

// back queues an event that a member has taken and not sent.
func (w *window) back(m *member, id uint64) {
	if i, ok := w.find(id); ok && w.at(i, m) {
		w.enqueue(&w.outstanding[i])
	}
}

// again restarts the time of an event that a member has taken. It reports whether the event is
// still outstanding there; otherwise it must not be sent.
func (w *window) again(m *member, id uint64, now time.Time) bool {
	i, ok := w.find(id)
	if ok = ok && w.at(i, m); ok {
		w.outstanding[i].due = now.Add(w.retry)
	}
	return ok
}

// at reports whether a member has taken an event from its queue.
func (w *window) at(i int, m *member) bool {
	e := &w.outstanding[i]
	return e.state == sent && e.account.member == m
}

// acknowledge settles an event, or a gap that ends at gap, that a member acknowledges, whichever
// member has it. A gap has the id of its first event, and the acknowledgement of that event may be
// on its way: it must not settle what the other events are told by. tail is that of the log: an
// event before it that was outstanding at a restart may have been a gap, and becomes one (lost).
func (w *window) acknowledge(m *member, id, gap, tail uint64, now time.Time) (changed bool) {
	m.active, m.stalled = now, false
	i, ok := w.find(id)
	if !ok || w.outstanding[i].gap != gap || w.outstanding[i].state == unknown && id < tail {
		return false
	}
	w.remove(i)
	return true
}

// settle makes an event not outstanding: it was acknowledged, or is no longer to be sent. An id
// that is not outstanding is ignored.
func (w *window) settle(id uint64) (changed bool) {
	i, ok := w.find(id)
	if ok {
		w.remove(i)
	}
	return ok
}

// remove ends an outstanding event. What is before it moves if that is less than what follows:
// most events are acknowledged in order, and then nothing moves.
func (w *window) remove(i int) {
	if w.ends(w.outstanding[i].id) != 0 {
		w.snapshot = nil
	}
	w.drop(i)
	if i >= len(w.outstanding)/2 {
		w.outstanding = slices.Delete(w.outstanding, i, i+1)
		return
	}
	copy(w.outstanding[1:i+1], w.outstanding[:i])
	w.outstanding[0] = sentEvent{} // its account need not stay in memory
	w.outstanding = w.outstanding[1:]
}

// drop ends what queue, member and account know of an event. The caller deletes it.
func (w *window) drop(i int) {
	e := &w.outstanding[i]
	if e.state == unknown {
		return
	}
	w.unqueue(e)
	a := e.account
	if a.member != nil {
		a.member.held--
	}
	if a.outstanding--; a.outstanding == 0 && a.did != "" {
		delete(w.accounts, a.did)
	}
}

// release makes events that a member has taken due at a time, with all later events of their
// accounts, also events that are added until then.
func (w *window) release(m *member, ids []uint64, at time.Time) {
	from := map[*account]uint64{}
	for _, id := range ids {
		i, ok := w.find(id)
		if !ok || !w.at(i, m) {
			continue
		}
		a := w.outstanding[i].account
		if first, ok := from[a]; !ok || id < first {
			from[a] = id
		}
		if a.wait.Before(at) { // otherwise earlier events of it wait for longer
			a.wait = at
		}
	}
	for i := range w.outstanding {
		e := &w.outstanding[i]
		if first, ok := from[e.account]; ok && e.id >= first {
			w.wait(e, e.account.wait)
		}
	}
}

// find returns the index of an event, or the one at which it would be.
func (w *window) find(id uint64) (at int, ok bool) {
	if len(w.outstanding) > 0 && w.outstanding[0].id == id {
		return 0, true
	}
	return slices.BinarySearchFunc(w.outstanding, id, byID)
}

func byID(e sentEvent, id uint64) int { return cmp.Compare(e.id, id) }

// expire queues the events that are due: each event that was not acknowledged in time, and all
// later events of its account, so that the order of each repository is kept. It reports whether
// any member may have more to send.
func (w *window) expire(now time.Time) (changed bool) {
	changed = w.relieve(now)
	if w.early.IsZero() || now.Before(w.early) {
		return changed
	}
	late := map[*account]bool{}
	w.early = time.Time{}
	for i := range w.outstanding {
		e := &w.outstanding[i]
		switch {
		case e.state != sent:
		case !e.due.After(now) || late[e.account]:
			late[e.account], changed = true, true
			e.account.wait = time.Time{}
			w.enqueue(e)
		case w.early.IsZero() || e.due.Before(w.early):
			w.early = e.due
		}
	}
	return changed
}

// relieve gives what stalled members hold to others, if there are others. A member that has
// acknowledged nothing for a retry timeout while it held events is stalled until it acknowledges
// something.
func (w *window) relieve(now time.Time) (changed bool) {
	able, holding := false, false
	for _, m := range w.members {
		m.stalled = m.stalled || m.held > 0 && now.Sub(m.active) >= w.retry
		able = able || !m.stalled
		holding = holding || m.stalled && m.held > 0
	}
	if !able || !holding {
		return false
	}
	w.loosen(func(a *account) bool { return a.member.stalled })
	w.assign(now)
	return true
}

// lost gives up what is before tail, which the log no longer has. A gap is queued at a member in
// place of all of it but former gaps, which keep their ids and extent: the acknowledgement of one
// may be on its way. It reports whether anything is lost.
func (w *window) lost(m *member, tail uint64, now time.Time) bool {
	n, _ := w.find(tail)
	gap := sentEvent{id: w.next, gap: tail - 1, first: now}
	kept := w.outstanding[:0:0]
	for i := range n {
		if e := w.outstanding[i]; e.gap != 0 {
			kept = append(kept, e)
			continue
		}
		if e := &w.outstanding[i]; e.id < gap.id {
			gap.id, gap.first = e.id, e.first
		}
		w.drop(i)
	}
	if gap.id >= tail {
		return false
	}
	gap.account = &account{member: m, outstanding: 1}
	at, _ := slices.BinarySearchFunc(kept, gap.id, byID)
	w.outstanding = slices.Replace(w.outstanding, 0, n, slices.Insert(kept, at, gap)...)
	w.next = max(w.next, tail)
	w.hold(&w.outstanding[at], now)
	w.enqueue(&w.outstanding[at])
	return true
}

// oldest returns when the first outstanding event became outstanding; ok is false if none is.
func (w *window) oldest() (at time.Time, ok bool) {
	if len(w.outstanding) == 0 {
		return at, false
	}
	return w.outstanding[0].first, true
}
