package durable

import (
	"sync"
	"sync/atomic"
	"time"

	"cistern/api/wire"
	"cistern/filter"
	"cistern/store"
)

// Subscription keeps what its consumer has acknowledged, across connections and restarts.
type Subscription struct {
	name    string
	created int64 // unix seconds
	store   *store.Store
	gone    chan struct{} // closed once the subscription is deleted
	wake    chan struct{} // of the connection, with room for one
	// redelivered counts events sent again since the daemon started.
	redelivered atomic.Uint64

	mu      sync.Mutex
	config  filter.EventsConfig // mu guards
	filter  *filter.Events      // mu guards: config, compiled
	window  *window             // mu guards
	unsaved bool                // mu guards: the window has moved since the position was written
	open    bool                // mu guards: there is a connection

	// saving is held from reading the window until its position is durable, so that the position on
	// disk never moves back. It is taken before mu.
	saving  sync.Mutex
	dropped bool // saving guards: the rows are deleted, and not to be written any more
}

func newSubscription(
	s *store.Store, def store.Subscription, f *filter.Events, w *window,
) *Subscription {
	return &Subscription{name: def.Name, created: def.Created, store: s, config: def.Filter,
		filter: f, window: w, gone: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// Attach makes the caller the only connection until Detach. All outstanding events are due. The
// error is a refusal if there is another connection.
func (s *Subscription) Attach() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		return wire.Refuse("Conflict", "subscription %s has an open connection, and can have "+
			"one only", s.name)
	}
	s.open = true
	s.window.restart()
	return nil
}

// Detach ends the connection.
func (s *Subscription) Detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
}

// Wake returns the channel that Signal sends to. It has room for one signal.
func (s *Subscription) Wake() <-chan struct{} { return s.wake }

// Gone returns a channel that is closed once the subscription is deleted.
func (s *Subscription) Gone() <-chan struct{} { return s.gone }

// Signal wakes the connection.
func (s *Subscription) Signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next returns the id to read the log from, and how many events may become outstanding.
func (s *Subscription) Next() (id uint64, room int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.next, s.window.room()
}

// Event names an event that becomes outstanding.
type Event struct {
	ID  uint64
	DID string
}

// Take makes events outstanding. choose gets the filter and returns the events that it wants, in
// order, no more than there is room for, and the id behind the last event that was looked at. It
// must not block. What is taken is sent to this or a later connection until it is settled.
func (s *Subscription) Take(
	now time.Time, choose func(f *filter.Events, room int) (events []Event, next uint64),
) {
	s.mu.Lock()
	defer s.mu.Unlock()
	events, next := choose(s.filter, s.window.room())
	for _, ev := range events {
		s.window.sent(ev.ID, ev.DID, now)
	}
	s.window.pass(next)
	s.unsaved = true
}

// Settle makes an event not outstanding: the consumer has acknowledged it, or its account is
// hidden. An id that is not outstanding is ignored.
func (s *Subscription) Settle(id uint64) {
	s.mu.Lock()
	changed := s.window.settle(id)
	s.unsaved = s.unsaved || changed
	s.mu.Unlock()
	if changed {
		s.Signal()
	}
}

// Due returns the events to send again, in rising order of id (invariant 3). Again must be called
// for each of them.
func (s *Subscription) Due(now time.Time) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.due(now)
}

// Late reports whether Due may return events.
func (s *Subscription) Late(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.window.alarm()
	return ok && !at.After(now)
}

// Again restarts the retry timeout of an event that is about to be sent. It reports whether the
// event is outstanding; otherwise it must not be sent.
func (s *Subscription) Again(id uint64, did string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.again(id, did, now)
}

// Resent counts events that were sent again.
func (s *Subscription) Resent(n int) { s.redelivered.Add(uint64(n)) }

// Lost gives up the events before tail, which the log no longer has. It returns the first id of the
// gap, which is outstanding in place of all of it. ok is false if nothing is lost.
func (s *Subscription) Lost(tail uint64, now time.Time) (from uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, ok = s.window.lost(tail, now)
	s.unsaved = s.unsaved || ok
	return from, ok
}

// Save writes the position if it has changed. It is durable on return.
func (s *Subscription) Save() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	p, changed := s.window.position(), s.unsaved
	s.unsaved = false
	s.mu.Unlock()
	if !changed || s.dropped {
		return nil
	}
	b := s.store.NewBatch()
	b.PutSubscriptionPosition(s.name, p)
	// From here on no event that was acknowledged before the call is sent again. A crash before
	// leaves the former position, and sends again what was acknowledged since.
	return b.CommitSync()
}

// replace sets the filter for the events from next on. It is durable on return.
func (s *Subscription) replace(c filter.EventsConfig, f *filter.Events) (next uint64, err error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	s.config, s.filter = c, f
	p := s.window.position()
	s.unsaved = false
	s.mu.Unlock()
	b := s.store.NewBatch()
	b.PutSubscription(store.Subscription{Name: s.name, Filter: c, Created: s.created})
	// With an older position, a crash would apply the filter to earlier events, and lose events that
	// only the former filter wanted.
	b.PutSubscriptionPosition(s.name, p)
	return p.Next, b.CommitSync()
}

// drop deletes the rows, and ends the connection. The deletion is durable on return.
func (s *Subscription) drop() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	b := s.store.NewBatch()
	b.DropSubscription(s.name)
	if err := b.CommitSync(); err != nil {
		return err
	}
	s.dropped = true // the connection must not write the position again
	close(s.gone)
	return nil
}
