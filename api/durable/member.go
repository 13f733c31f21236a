package durable

import (
	"context"
	"log/slog"
	"time"

	"cistern/api/wire"
	"cistern/filter"
	"cistern/store"
)

// Member is one connection of a subscription, or one of several senders: its part of what is
// outstanding. It is for one goroutine, except Wake, Gone, Signal, Acknowledge, Expire and Save.
type Member struct {
	*Subscription
	member *member       // window.members has it until Detach
	wake   chan struct{} // has room for one signal
	sends  bool          // it makes requests of a webhook
}

// Event names an event that becomes outstanding.
type Event struct {
	ID  uint64
	DID string
	// Page is the id of the page of the log that it is on; 0: none.
	Page uint64
}

// Item is an outstanding event that a member is to send.
type Item struct {
	ID uint64
	// Page is that of the Event; 0: it is to be read by its id.
	Page uint64
	// Gap is the last id of a gap that begins at ID. An event has 0.
	Gap uint64
	// Record is, if it has a path, a record of a snapshot that is to be sent as it is now.
	Record store.RecordName
	// End is the id at which the log goes on behind a snapshot that ends with this item; 0: it is
	// no end.
	End uint64
	// Again means that the event was sent before, or may have been before a restart.
	Again bool
}

// Attach adds a connection, until Detach. Outstanding events that no other connection has are to be
// sent again at once. The error is a refusal if the subscription is exclusive and has a connection,
// or has as many as it may have, or a webhook. Senders of a webhook that was removed count only
// towards that maximum while they finish their requests.
func (s *Subscription) Attach() (*Member, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := s.connections(); {
	case s.hook != nil:
		return nil, wire.Refuse("Conflict", "subscription %s has a webhook, and takes no connections",
			s.def.Name)
	case n > 0 && s.def.Share == "":
		return nil, wire.Refuse("Conflict", "subscription %s has an open connection, and can have "+
			"one only: its share is %s", s.def.Name, Exclusive)
	case len(s.members) >= membersMax:
		return nil, wire.Refuse("Conflict", "subscription %s has %d open connections, the maximum",
			s.def.Name, len(s.members))
	case n > 0:
		s.logger.Info("subscription is shared by several connections",
			slog.String("subscription", s.def.Name), slog.Int("connections", n+1))
	}
	return s.join(), nil
}

// connections returns how many members are connections. mu is held.
func (s *Subscription) connections() (n int) {
	for _, m := range s.members {
		if !m.sends {
			n++
		}
	}
	return n
}

// join adds a member. mu is held.
func (s *Subscription) join() *Member {
	m := &Member{Subscription: s, wake: make(chan struct{}, 1)}
	m.member = s.window.join(time.Now())
	s.members[m.member] = m
	return m
}

// Detach ends the connection. What it has not acknowledged is to be sent again at once, by other
// connections if there are some.
func (m *Member) Detach() {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.members, m.member)
	m.window.leave(m.member, time.Now())
	m.signalAll() // also for the log that this connection would have read
}

// Wake returns a channel that receives after Signal, and when Take may return more than before.
func (m *Member) Wake() <-chan struct{} { return m.wake }

// Signal wakes the connection.
func (m *Member) Signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// signalAll wakes all connections. mu is held.
func (s *Subscription) signalAll() {
	for _, m := range s.members {
		m.Signal()
	}
}

// Turn waits until no other connection adds events to the window. EndTurn must follow if the error
// is nil; otherwise it is that of ctx.
func (m *Member) Turn(ctx context.Context) error { return m.turn.Acquire(ctx, 1) }

// EndTurn ends a turn.
func (m *Member) EndTurn() { m.turn.Release(1) }

// Unknown returns events whose account is not known, in rising order. Before events are added, each
// must be identified or settled. The caller has a turn.
func (m *Member) Unknown() []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.window.unknown()
}

// Identify states the accounts of unknown events, in rising order of id. The caller has a turn.
func (m *Member) Identify(events []Event, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ev := range events {
		m.window.identify(ev.ID, ev.DID, now)
	}
	m.signalAll()
}

// Next returns the id to read the log from, behind the snapshot if there is one (Reading), the page
// of the newest event that was added (0: none), and how many events may become outstanding.
func (m *Member) Next() (id, page uint64, room int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.window.next, m.window.page, m.window.room()
}

// Add makes events outstanding that follow each other in the log from Next on, each for one of the
// connections. choose gets the filter and returns the events that it wants, in order, no more than
// there is room for, and the id behind the last event that was looked at. It must not block. What
// is added is sent until it is settled. The caller has a turn, and no event is unknown.
func (m *Member) Add(
	now time.Time, choose func(f *filter.Events, room int) (events []Event, next uint64),
) {
	m.mu.Lock()
	defer m.mu.Unlock()
	events, next := choose(m.filter, m.window.room())
	for _, ev := range events {
		m.window.add(ev, now)
	}
	m.window.pass(next)
	m.unsaved = true
	m.signalOthers() // to send their events, and to read on while this connection sends
}

// Take returns up to most events that this connection is to send now, in rising order. Those of an
// account come in order over all calls. Each must be given to Again before it is sent, or to Back.
func (m *Member) Take(most int, now time.Time) []Item {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.window.take(m.member, most, now)
}

// Back gives back events that Take returned and that were not sent. They are to be sent at once.
func (m *Member) Back(items []Item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, it := range items {
		m.window.back(m.member, it.ID)
	}
}

// Again restarts the retry timeout of an event that is about to be sent. It reports whether this
// connection is to send it; otherwise it must not be sent.
func (m *Member) Again(id uint64, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.window.again(m.member, id, now)
}

// Resent counts events that were sent again.
func (m *Member) Resent(n int) { m.redelivered.Add(uint64(n)) }

// Acknowledge settles events that the consumer has acknowledged. An id that is not outstanding is
// ignored. It is durable with the next Save. left is how many events the member has taken and its
// consumer has still to acknowledge.
func (m *Member) Acknowledge(ids ...uint64) (left int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	full, now, changed := m.window.room() == 0, time.Now(), false
	tail := m.store.Oldest()
	for _, id := range ids {
		changed = m.window.acknowledge(m.member, id, 0, tail, now) || changed
	}
	m.settled(changed, full)
	return m.member.held - len(m.member.queue)
}

// AcknowledgeGap settles a gap that the consumer has acknowledged by its first and last id. One
// that is not outstanding is ignored. It is durable with the next Save.
func (m *Member) AcknowledgeGap(from, to uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	full := m.window.room() == 0
	m.settled(m.window.acknowledge(m.member, from, to, m.store.Oldest(), time.Now()), full)
}

// Settle settles events that are not to be sent: their account is hidden, or the format of the
// consumer has no such events.
func (m *Member) Settle(ids ...uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	full, changed := m.window.room() == 0, false
	for _, id := range ids {
		changed = m.window.settle(id) || changed
	}
	m.settled(changed, full)
}

// settled wakes the connections that may go on. mu is held.
func (m *Member) settled(changed, full bool) {
	switch {
	case !changed:
		return
	case full:
		m.signalAll() // each may be waiting for room
	default:
		m.Signal()
	}
	m.unsaved = true
}

// Release has events that Take returned sent again at a time, with all later events of their
// accounts, in order. Other accounts go on.
func (m *Member) Release(at time.Time, ids ...uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.window.release(m.member, ids, at)
}

// Expire has what was not acknowledged in time sent again. It is to be called every now and then.
func (m *Member) Expire(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.window.expire(now) {
		m.signalAll()
	}
}

// Lost gives up the events before tail, which the log no longer has. If there are some, this
// connection is to send a gap in place of all of them.
func (m *Member) Lost(tail uint64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.window.lost(m.member, tail, now) {
		m.unsaved = true
		m.Signal()
	}
}
