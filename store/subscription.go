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
	// Begun is the filter with which the snapshot in progress began, if it is not Filter: only the
	// collections and the accounts, which decide about its order.
	Begun *filter.EventsConfig
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
	Begun   *begunV1   `cbor:"9,keyasint,omitempty"`
}

// begunV1 is the filter with which a snapshot began.
type begunV1 struct {
	Collections []string `cbor:"1,keyasint,omitempty"`
	DIDs        []string `cbor:"2,keyasint,omitempty"`
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
	row := subscriptionV1{f.Collections, f.DIDs, f.Kinds, f.Actions, f.Live, sub.Created, sub.Share,
		sub.Webhook.row(), nil}
	if sub.Begun != nil {
		row.Begun = &begunV1{sub.Begun.Collections, sub.Begun.DIDs}
	}
	b.put(subscriptionKey(b.key[:0], spaceSubscribed, sub.Name), row)
}

// shareKnown reports whether a subscription may be shared in that way.
func shareKnown(share string) bool { return share == "" || share == "did" }

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
	_, err = filter.CompileEvents(sub.Filter)
	if row.Begun != nil && err == nil {
		sub.Begun = &filter.EventsConfig{Collections: row.Begun.Collections, DIDs: row.Begun.DIDs}
		_, err = filter.CompileEvents(*sub.Begun)
	}
	if err != nil {
		return sub, fmt.Errorf("filter of subscription %s: %w: %w", sub.Name, err, ErrCorrupt)
	}
	return sub, nil
}
