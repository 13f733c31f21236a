package durable

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"cistern/api/wire"
	"cistern/filter"
	"cistern/store"

	"golang.org/x/sync/semaphore"
)

// How several connections share a subscription.
const (
	// Exclusive is a subscription with one connection at a time.
	Exclusive = "exclusive"
	// ByDID gives each connection the events of some accounts.
	ByDID = "did"
)

// Subscription keeps what its consumer has acknowledged, across connections and restarts.
type Subscription struct {
	store  *store.Store
	logger *slog.Logger
	gone   chan struct{} // closed once the subscription is deleted or replayed
	// turn is held from reading the log until its events are in the window. It is taken before mu.
	turn *semaphore.Weighted
	// redelivered counts events sent again since the daemon started.
	redelivered atomic.Uint64

	mu      sync.Mutex
	def     store.Subscription  // mu guards: but for its name, which stays
	filter  *filter.Events      // mu guards: that of def, compiled
	begun   *filter.Events      // mu guards: that with which the snapshot in progress began
	pass    *store.Pass         // mu guards: of the snapshot; nil: Reading makes it
	window  *window             // mu guards
	members map[*member]*Member // mu guards: the connections
	unsaved bool                // mu guards: the window has moved since the position was written
	hook    *Hook               // mu guards: its webhook; nil: it has none
	// numbered is the last number in the position on disk, or an older one. mu guards it.
	numbered uint64

	// saving is held from reading the window until its position is durable, so that the position on
	// disk never moves back. It is taken before mu.
	saving sync.Mutex
	// dropped means that the rows are deleted, or belong to the Subscription that took the place of
	// this one. This one does not write them any more.
	dropped  bool        // saving guards
	replayed atomic.Bool // set before gone is closed, if another took the place
}

// newSubscription returns a subscription whose rows are written. begun is the filter with which its
// snapshot began, nil if that is f.
func newSubscription(o Options, def store.Subscription, f, begun *filter.Events,
	p store.SubscriptionPosition, retry time.Duration, st store.WebhookState,
) *Subscription {
	s := &Subscription{store: o.Store, logger: o.Logger, def: def, filter: f, begun: begun,
		numbered: p.Numbered, window: newWindow(p, o.WindowEvents, retry, time.Now()),
		gone: make(chan struct{}), turn: semaphore.NewWeighted(1), members: map[*member]*Member{}}
	if begun == nil {
		s.begun = f
	}
	s.hook = s.newHook(st)
	return s
}

// Gone returns a channel that is closed once the subscription is deleted or replayed.
func (s *Subscription) Gone() <-chan struct{} { return s.gone }

// Replayed reports, once Gone is closed, whether the subscription goes on from another position:
// Registry.Find returns it.
func (s *Subscription) Replayed() bool { return s.replayed.Load() }

// Save writes the position, and the state of the webhook, if one of them has changed. They are
// durable on return, unless the store is frozen: then they stay in memory until the next Save.
func (s *Subscription) Save() error {
	_, err := s.save()
	return err
}

// save is Save, and reports whether the store was not frozen.
func (s *Subscription) save() (saved bool, err error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	changed, reported := s.unsaved, s.hook != nil && s.hook.unsaved
	if !changed && !reported || s.dropped {
		s.mu.Unlock()
		return true, nil
	}
	p := s.window.position()
	s.unsaved = false
	var state store.WebhookState
	if reported {
		state, s.hook.unsaved = s.hook.state, false
	}
	s.mu.Unlock()
	b := s.store.NewBatch()
	b.PutSubscriptionPosition(s.def.Name, p)
	if reported {
		b.PutWebhookState(s.def.Name, state)
	}
	// From here on no event that was acknowledged before the call is sent again. A crash before
	// leaves the former position, and sends again what was acknowledged since.
	err = b.CommitUnlessFrozen()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.numbered = p.Numbered
	case errors.Is(err, store.ErrFrozen):
		s.unsaved = s.unsaved || changed
		if reported { // saving is held: it is the same hook
			s.hook.unsaved = true
		}
		return false, nil
	}
	return true, err
}

// replace sets the filter for the events from next on, how new connections share, the webhook and
// the retry timeout. It is durable on return. The error is a refusal if connections are open that
// it does not allow.
func (s *Subscription) replace(
	def store.Subscription, f *filter.Events, retry time.Duration,
) (next uint64, err error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	if err := s.mayBecome(def); err != nil {
		s.mu.Unlock()
		return 0, err
	}
	def.Created = s.def.Created
	if def.Begun = s.def.Begun; s.window.snapshot == nil {
		def.Begun, s.begun = nil, f
	} else if def.Begun == nil {
		def.Begun = &filter.EventsConfig{Collections: s.def.Filter.Collections,
			DIDs: s.def.Filter.DIDs}
	}
	s.def, s.filter = def, f
	s.window.retry = retry
	s.rehook()
	p := s.window.position()
	s.unsaved = false
	s.mu.Unlock()
	b := s.store.NewBatch()
	b.PutSubscription(def)
	b.PutWebhookState(def.Name, store.WebhookState{})
	// With an older position, a crash would apply the filter to earlier events, and lose events that
	// only the former filter wanted.
	b.PutSubscriptionPosition(def.Name, p)
	return p.Next, b.CommitSync()
}

// mayBecome refuses a definition that does not allow the open connections. mu is held.
func (s *Subscription) mayBecome(def store.Subscription) error {
	switch open := s.connections(); {
	case open > 0 && def.Webhook != nil:
		return wire.Refuse("Conflict", "subscription %s has %d open connections, and cannot get a "+
			"webhook before they are closed", def.Name, open)
	case open > 1 && def.Share == "":
		return wire.Refuse("Conflict", "subscription %s has %d open connections, and cannot "+
			"become %s before all but one are closed", def.Name, open, Exclusive)
	}
	return nil
}

// drop deletes the rows, and ends the connections. The deletion is durable on return.
func (s *Subscription) drop() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	b := s.store.NewBatch()
	b.DropSubscription(s.def.Name)
	if err := b.CommitSync(); err != nil {
		return err
	}
	s.dropped = true // the connections must not write the position again
	close(s.gone)
	s.unhook()
	return nil
}

// replay writes a position without outstanding events, for the Subscription that takes the place of
// this one. It is durable on return, and nothing of this one is written any more: an
// acknowledgement that is on its way is not one of an event that is sent again. The state of the
// webhook stays, and is returned, with the position that was written: numbers go on.
func (s *Subscription) replay(p store.SubscriptionPosition) (
	_ store.SubscriptionPosition, st store.WebhookState, err error,
) {
	s.saving.Lock()
	defer s.saving.Unlock()
	def := s.def
	def.Begun = nil
	b := s.store.NewBatch()
	b.PutSubscription(def)
	s.mu.Lock()
	p.Numbered = max(p.Numbered, s.window.number)
	b.PutSubscriptionPosition(s.def.Name, p)
	hook := s.hook
	if hook != nil {
		st = hook.state
		b.PutWebhookState(s.def.Name, st)
	}
	s.mu.Unlock()
	if err := b.CommitSync(); err != nil {
		return p, st, err
	}
	s.dropped = true
	s.replayed.Store(true)
	s.unhook()
	return p, st, nil
}
