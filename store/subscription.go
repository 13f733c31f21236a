package store

import (
	"errors"
	"fmt"

	"cistern/filter"
)

// Subscription is what a durable subscription wants. Its position is a row of its own, which is
// written much more often.
type Subscription struct {
	Name    string
	Filter  filter.EventsConfig
	Created int64 // unix seconds
	// Share is how several connections divide it: by "did"; "" means that it has one at a time.
	Share string
	// Webhook is how its events are posted; nil means that consumers connect.
	Webhook *Webhook
}

// subscriptionV1 is a Subscription on disk, under its name.
type subscriptionV1 struct {
	Collections []string `cbor:"1,keyasint,omitempty"`
	DIDs        []string `cbor:"2,keyasint,omitempty"`
	Kinds       []string `cbor:"3,keyasint,omitempty"`
	Actions     []string `cbor:"4,keyasint,omitempty"`
	Live        string   `cbor:"5,keyasint,omitempty"`
	Created     int64    `cbor:"6,keyasint,omitempty"`
	Share       string   `cbor:"7,keyasint,omitempty"`

	Webhook *webhookV1 `cbor:"8,keyasint,omitempty"`
}

// SubscriptionPosition is what the consumer of a subscription has acknowledged: every event before
// Next except the outstanding ones. Next is at most the head plus one.
type SubscriptionPosition struct {
	Next        uint64
	Outstanding []uint64 // in rising order; the first may be below the tail of the log
}

// positionV1 is a SubscriptionPosition on disk. Steps are differences of ids, which are shorter
// than the ids: the first outstanding one, each to the one before it, and Next to the last.
type positionV1 struct {
	Steps []uint64 `cbor:"1,keyasint"`
}

func (p SubscriptionPosition) row() positionV1 {
	steps, last := make([]uint64, 0, len(p.Outstanding)+1), uint64(0)
	for _, id := range append(p.Outstanding[:len(p.Outstanding):len(p.Outstanding)], p.Next) {
		steps, last = append(steps, id-last), id
	}
	return positionV1{steps}
}

// position returns the position; ok is false if the ids do not rise, or there are none.
func (row positionV1) position() (p SubscriptionPosition, ok bool) {
	id := uint64(0)
	for i, step := range row.Steps {
		if id+step <= id { // zero, or beyond the last number
			return p, false
		}
		if id += step; i < len(row.Steps)-1 {
			p.Outstanding = append(p.Outstanding, id)
		}
	}
	p.Next = id
	return p, len(row.Steps) > 0
}

// PutSubscription writes a subscription, replacing the one with the same name. A new one needs a
// position in the same batch.
func (b *control) PutSubscription(sub Subscription) {
	if sub.Name == "" {
		b.fail(errors.New("a subscription has no name"))
		return
	}
	if !shareKnown(sub.Share) {
		b.fail(fmt.Errorf("share %q of subscription %s is unknown", sub.Share, sub.Name))
		return
	}
	if err := sub.Webhook.check(); err != nil {
		b.fail(fmt.Errorf("subscription %s: %w", sub.Name, err))
		return
	}
	f := sub.Filter
	b.put(subscriptionKey(b.key[:0], spaceSubscribed, sub.Name), subscriptionV1{
		f.Collections, f.DIDs, f.Kinds, f.Actions, f.Live, sub.Created, sub.Share,
		sub.Webhook.row()})
}

// shareKnown reports whether a subscription may be shared in that way.
func shareKnown(share string) bool { return share == "" || share == "did" }

// PutSubscriptionPosition writes the position of a subscription.
func (b *control) PutSubscriptionPosition(name string, p SubscriptionPosition) {
	row := p.row()
	if _, ok := row.position(); !ok || name == "" {
		b.fail(fmt.Errorf("position %d of subscription %q: its ids do not rise", p.Next, name))
		return
	}
	b.put(subscriptionKey(b.key[:0], spacePosition, name), row)
}

// DropSubscription deletes a subscription, its position and the state of its webhook.
func (b *control) DropSubscription(name string) {
	b.delete(subscriptionKey(b.key[:0], spaceSubscribed, name))
	b.delete(subscriptionKey(b.key[:0], spacePosition, name))
	b.delete(subscriptionKey(b.key[:0], spaceWebhook, name))
}

// Subscriptions returns all subscriptions, in order of name.
func (s *Store) Subscriptions() (all []Subscription, err error) {
	lower, upper := []byte{spaceSubscribed}, spaceEnd(spaceSubscribed)
	err = scan(s.db, lower, upper, func(key, value []byte) (bool, error) {
		sub, err := s.parseSubscription(key, value)
		all = append(all, sub)
		return true, err
	})
	return all, err
}

func (s *Store) parseSubscription(key, value []byte) (sub Subscription, err error) {
	if sub.Name, err = parseSubscriptionKey(spaceSubscribed, key); err != nil {
		return sub, err
	}
	var row subscriptionV1
	if err := s.codec.decode(value, &row); err != nil {
		return sub, fmt.Errorf("subscription %s: %w", sub.Name, err)
	}
	sub.Created, sub.Share = row.Created, row.Share
	if !shareKnown(sub.Share) {
		return sub, fmt.Errorf("share %q of subscription %s: %w", sub.Share, sub.Name, ErrCorrupt)
	}
	sub.Webhook = row.Webhook.webhook()
	if err := sub.Webhook.check(); err != nil {
		return sub, fmt.Errorf("subscription %s: %w: %w", sub.Name, err, ErrCorrupt)
	}
	sub.Filter = filter.EventsConfig{Collections: row.Collections, DIDs: row.DIDs, Kinds: row.Kinds,
		Actions: row.Actions, Live: row.Live}
	if _, err := filter.CompileEvents(sub.Filter); err != nil {
		return sub, fmt.Errorf("filter of subscription %s: %w: %w", sub.Name, err, ErrCorrupt)
	}
	return sub, nil
}

// SubscriptionPosition returns the position of a subscription as last written. The error is
// ErrNotFound if there is none.
func (s *Store) SubscriptionPosition(name string) (p SubscriptionPosition, err error) {
	err = get(s.db, subscriptionKey(nil, spacePosition, name), func(v []byte) error {
		p, err = s.parsePosition(v)
		return err
	})
	if err != nil {
		err = fmt.Errorf("position of subscription %s: %w", name, err)
	}
	return p, err
}

func (s *Store) parsePosition(v []byte) (p SubscriptionPosition, err error) {
	var row positionV1
	if err = s.codec.decode(v, &row); err != nil {
		return p, err
	}
	p, ok := row.position()
	if !ok {
		err = fmt.Errorf("steps %d do not rise: %w", row.Steps, ErrCorrupt)
	}
	return p, err
}
