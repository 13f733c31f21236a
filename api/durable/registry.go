package durable

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"cistern/api/wire"
	"cistern/filter"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// Log is the log that subscriptions are about. Its methods may be called by any goroutine.
type Log interface {
	// Head returns the newest id that readers may see.
	Head() uint64
	// ReadLog checks a cursor if maxEvents is 0, and returns the id to begin at: for cursor 0, the
	// oldest event kept. If the cursor is outside the log, the error is store.ErrFutureCursor or
	// store.ErrOutdatedCursor.
	ReadLog(
		ctx context.Context, cursor uint64, maxEvents int, fn func(*store.Event) error,
	) (next uint64, err error)
	// FirstSince returns the id of the first event kept whose time, in unix microseconds, is t or
	// later, visible or not; Head+1 if all events are older.
	FirstSince(t int64) (id uint64, err error)
}

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Store has the rows of the subscriptions, and Log the events. Required.
	Store *store.Store
	Log   Log
	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
	// WindowEvents bounds the outstanding events of a subscription. Default 1,000.
	WindowEvents int
	// RetryTimeout is after how long an event that is not acknowledged is sent again. Default 60 s.
	RetryTimeout time.Duration
	// CheckURL refuses what cannot be the URL of a webhook. Default: there are no webhooks.
	CheckURL func(url string) error
}

// Registry has all durable subscriptions. It is the only owner of their rows.
type Registry struct {
	opts Options

	changing sync.Mutex // held while a subscription is put, replayed or dropped; taken before mu

	mu     sync.Mutex
	byName map[string]*Subscription // mu guards

	rehooked chan struct{} // mu guards: closed, and replaced, when a webhook may have changed
}

// New loads the subscriptions of a store.
func New(o Options) (*Registry, error) {
	o.WindowEvents = cmp.Or(o.WindowEvents, 1000)
	o.RetryTimeout = cmp.Or(o.RetryTimeout, time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.CheckURL == nil {
		o.CheckURL = func(string) error { return errors.New("webhooks are not supported here") }
	}
	if o.Store == nil || o.Log == nil || o.WindowEvents < 0 || o.RetryTimeout < 0 {
		return nil, fmt.Errorf("durable needs a store and a log; window %d and retry timeout %s "+
			"must not be negative", o.WindowEvents, o.RetryTimeout)
	}
	r := &Registry{opts: o, byName: map[string]*Subscription{}, rehooked: make(chan struct{})}
	all, err := o.Store.Subscriptions()
	if err != nil {
		return nil, err
	}
	for _, def := range all {
		p, err := o.Store.SubscriptionPosition(def.Name)
		if err != nil {
			return nil, err
		}
		f, err := filter.CompileEvents(def.Filter)
		if err != nil {
			return nil, fmt.Errorf("filter of subscription %s: %w", def.Name, err)
		}
		st, err := o.Store.WebhookState(def.Name)
		if err != nil {
			return nil, err
		}
		var begun *filter.Events
		if def.Begun != nil {
			if begun, err = filter.CompileEvents(*def.Begun); err != nil {
				return nil, fmt.Errorf("filter of subscription %s: %w", def.Name, err)
			}
		}
		r.byName[def.Name] = newSubscription(o, def, f, begun, p, r.retry(def), st)
	}
	return r, o.Registerer.Register(r)
}

// Save writes the positions of all subscriptions that have changed. It is called when the store is
// thawed: connections may have ended while nothing could be written.
func (r *Registry) Save() error {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.byName))
	r.mu.Unlock()
	for _, s := range all {
		if err := s.Save(); err != nil {
			return fmt.Errorf("save subscription %s: %w", s.def.Name, err)
		}
	}
	return nil
}

// writable refuses a change while the store is frozen.
func (r *Registry) writable() error {
	if r.opts.Store.Frozen() == nil {
		return nil
	}
	return wire.Refuse("Unavailable", "the daemon is suspended: no subscription can be changed "+
		"until it is resumed")
}

// retry returns the retry timeout of a subscription.
func (r *Registry) retry(def store.Subscription) time.Duration {
	if def.Webhook != nil {
		return webhookRetry
	}
	return r.opts.RetryTimeout
}

// Find returns a subscription. Without one of that name the error is a refusal.
func (r *Registry) Find(name string) (*Subscription, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.byName[name]; s != nil {
		return s, nil
	}
	return nil, wire.Refuse("NotFound", "there is no subscription %s", wire.Echo(name))
}

// All returns the subscriptions, in order of name.
func (r *Registry) All() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	out, head, now := make([]Status, 0, len(r.byName)), r.opts.Log.Head(), time.Now()
	for _, name := range slices.Sorted(maps.Keys(r.byName)) {
		out = append(out, r.byName[name].status(head, now))
	}
	return out
}

// Status returns one subscription. Without one of that name the error is a refusal.
func (r *Registry) Status(name string) (Status, error) {
	s, err := r.Find(name)
	if err != nil {
		return Status{}, err
	}
	return s.status(r.opts.Log.Head(), time.Now()), nil
}

// Ensure returns a subscription, and makes it if none has the name. The error is a refusal if it
// cannot be made.
func (r *Registry) Ensure(ctx context.Context, name string, wanted Wanted) (*Subscription, error) {
	if s, err := r.Find(name); err == nil {
		return s, nil
	}
	r.changing.Lock()
	defer r.changing.Unlock()
	if s, err := r.Find(name); err == nil {
		return s, nil
	}
	if _, _, err := r.put(ctx, name, wanted); err != nil {
		return nil, err
	}
	return r.Find(name)
}

// Put makes a subscription, or replaces the filter and the share of the one with that name, whose
// position stays. It is durable on return. The new filter holds for the events from Next of the
// status on, and the new share for new connections. made is false if the subscription existed. The
// error is a refusal if a value is invalid, or if several connections share what is to be
// exclusive.
func (r *Registry) Put(
	ctx context.Context, name string, wanted Wanted,
) (st Status, made bool, err error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	return r.put(ctx, name, wanted)
}

// put is Put while changing is held.
func (r *Registry) put(
	ctx context.Context, name string, wanted Wanted,
) (st Status, made bool, err error) {
	if err := r.writable(); err != nil {
		return st, false, err
	}
	def := store.Subscription{Name: name, Filter: wanted.Filter.config()}
	f, err := filter.CompileEvents(def.Filter)
	if err != nil {
		return st, false, wire.Invalid("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if def.Share, err = wanted.share(); err != nil {
		return st, false, err
	}
	if err := checkName(name); err != nil {
		return st, false, err
	}
	s, missing := r.Find(name)
	var old *store.Webhook
	if missing == nil {
		old = s.def.Webhook // changing guards it too
	}
	secret := ""
	if def.Webhook, secret, err = wanted.Webhook.webhook(old, r.opts.CheckURL); err != nil {
		return st, false, err
	}
	if missing != nil {
		def.Created = time.Now().Unix()
		st, err = r.add(ctx, def, f, wanted.Start)
	} else {
		st, err = r.replace(s, def, f)
	}
	if err != nil {
		return Status{}, false, err
	}
	if st.Webhook != nil {
		st.Webhook.NewSecret = secret
	}
	r.signal()
	return st, missing != nil, nil
}

// replace changes a subscription. changing is held.
func (r *Registry) replace(
	s *Subscription, def store.Subscription, f *filter.Events,
) (st Status, err error) {
	next, err := s.replace(def, f, r.retry(def))
	st = s.status(r.opts.Log.Head(), time.Now())
	st.Next = next
	return st, err
}

// add makes a subscription. changing is held.
func (r *Registry) add(
	ctx context.Context, def store.Subscription, f *filter.Events, at Start,
) (st Status, err error) {
	if n := len(r.All()); n >= subscriptionsMax {
		return st, wire.Invalid("there are %d subscriptions, the maximum", n)
	}
	defer r.opts.Store.KeepTail()()
	p, err := r.begin(ctx, def.Name, f, at)
	if err != nil {
		return st, err
	}
	b := r.opts.Store.NewBatch()
	b.PutSubscription(def)
	b.PutSubscriptionPosition(def.Name, p)
	if err := b.CommitSync(); err != nil {
		return st, err
	}
	s := newSubscription(r.opts, def, f, nil, p, r.retry(def), store.WebhookState{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byName[def.Name] = s
	return s.status(r.opts.Log.Head(), time.Now()), nil
}

// begin returns the position at a start. The log from there on stays if the caller holds KeepTail
// until the position is written. The error is a refusal, or that of the log.
func (r *Registry) begin(
	ctx context.Context, name string, f *filter.Events, at Start,
) (p store.SubscriptionPosition, err error) {
	if !at.Snapshot {
		p.Next, err = at.in(ctx, r.opts.Log)
		return p, err
	}
	switch {
	case r.opts.Store.Ephemeral():
		return p, wire.EventsOnly()
	case name == Tap:
		return p, wire.Invalid("start snapshot: the protocol of %s has no snapshots; add the "+
			"repositories again to have all their records sent", Tap)
	case !WantsSnapshot(f):
		return p, wire.Invalid("start snapshot: the filter leaves out all records of a snapshot, " +
			"which are creates that are not live: change kinds, actions or live")
	}
	pass := r.opts.Store.BeginSnapshot(f)
	return store.SubscriptionPosition{Next: pass.Head + 1, Numbered: store.NumbersFrom,
		Snapshot: &store.SubscriptionSnapshot{End: pass.End}}, nil
}

// Replay has a subscription go on at another place of the log, back or forward, or with a snapshot.
// What is outstanding is dropped, and its connections end. It is durable on return. The error is a
// refusal if no subscription has the name, or that of the log if the place is outside it.
func (r *Registry) Replay(ctx context.Context, name string, at Start) (st Status, err error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	if err := r.writable(); err != nil {
		return st, err
	}
	old, err := r.Find(name)
	if err != nil {
		return st, err
	}
	defer r.opts.Store.KeepTail()()
	p, err := r.begin(ctx, name, old.filter, at) // Put, which sets the filter, must wait
	if err != nil {
		return st, err
	}
	p, state, err := old.replay(p)
	if err != nil {
		return st, err
	}
	def := old.def
	def.Begun = nil
	s := newSubscription(r.opts, def, old.filter, nil, p, r.retry(def), state)
	s.redelivered.Store(old.redelivered.Load())
	r.mu.Lock()
	r.byName[name] = s
	r.mu.Unlock()
	close(old.gone) // a connection that comes back finds the new one
	r.signal()
	return s.status(r.opts.Log.Head(), time.Now()), nil
}

// Drop deletes a subscription and ends its connections. It is durable on return. The error is a
// refusal if no subscription has the name.
func (r *Registry) Drop(name string) error {
	r.changing.Lock()
	defer r.changing.Unlock()
	if err := r.writable(); err != nil {
		return err
	}
	s, err := r.Find(name)
	if err != nil {
		return err
	}
	if err := s.drop(); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.byName, name)
	r.mu.Unlock()
	r.signal()
	return nil
}

// checkName refuses what cannot be the name of a subscription.
func checkName(name string) error {
	const chars = "abcdefghijklmnopqrstuvwxyz0123456789._-"
	if name == "" || len(name) > nameBytesMax || strings.Trim(name, chars) != "" {
		return wire.Invalid("name %s: want 1 to %d of a to z, 0 to 9, '.', '_' and '-'",
			wire.Echo(name), nameBytesMax)
	}
	return nil
}
