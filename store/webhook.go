package store

import (
	"errors"
	"fmt"
)

// Webhook is where the events of a subscription are posted, and how.
type Webhook struct {
	URL string
	// Secrets are the keys that sign each request, the newest first.
	Secrets [][]byte
	// Events is how many a request has at most, and Requests how many requests are in flight.
	Events, Requests int
}

// webhookV1 is a Webhook in the row of its subscription.
type webhookV1 struct {
	URL      string   `cbor:"1,keyasint"`
	Secrets  [][]byte `cbor:"2,keyasint"`
	Events   int      `cbor:"3,keyasint"`
	Requests int      `cbor:"4,keyasint"`
}

func (w *Webhook) row() *webhookV1 {
	if w == nil {
		return nil
	}
	return &webhookV1{w.URL, w.Secrets, w.Events, w.Requests}
}

// webhook returns the Webhook of the row; nil without a row.
func (row *webhookV1) webhook() *Webhook {
	if row == nil {
		return nil
	}
	return &Webhook{row.URL, row.Secrets, row.Events, row.Requests}
}

// check refuses a webhook that could not be delivered.
func (w *Webhook) check() error {
	if w != nil && (w.URL == "" || len(w.Secrets) == 0 || w.Events <= 0 || w.Requests <= 0) {
		return fmt.Errorf("webhook with %d bytes of URL, %d secrets, %d events and %d requests",
			len(w.URL), len(w.Secrets), w.Events, w.Requests)
	}
	return nil
}

// WebhookState is what has become of the requests of a webhook since the last one that succeeded.
// The zero value means that none has failed.
type WebhookState struct {
	Failed int    // requests that failed
	Slowed int    // answers that asked for fewer requests
	Since  int64  // when the first of these came, unix milliseconds
	Next   int64  // when the next request may be made, unix milliseconds
	Error  string // of the last of these requests
	Parked int64  // since when no requests are made, unix milliseconds; 0: they are
	Reason string // why no requests are made
}

// webhookStateV1 is a WebhookState on disk, under the name of the subscription.
type webhookStateV1 struct {
	Failed int    `cbor:"1,keyasint,omitempty"`
	Slowed int    `cbor:"2,keyasint,omitempty"`
	Since  int64  `cbor:"3,keyasint,omitempty"`
	Next   int64  `cbor:"4,keyasint,omitempty"`
	Error  string `cbor:"5,keyasint,omitempty"`
	Parked int64  `cbor:"6,keyasint,omitempty"`
	Reason string `cbor:"7,keyasint,omitempty"`
}

// PutWebhookState writes the state of the webhook of a subscription. The zero value deletes the
// row.
func (b *control) PutWebhookState(name string, st WebhookState) {
	key := subscriptionKey(b.key[:0], spaceWebhook, name)
	switch {
	case name == "":
		b.fail(errors.New("the state of a webhook has no name"))
	case st == WebhookState{}:
		b.delete(key)
	default:
		b.put(key, webhookStateV1(st))
	}
}

// WebhookState returns the state of the webhook of a subscription, the zero value if there is no
// row.
func (s *Store) WebhookState(name string) (st WebhookState, err error) {
	err = get(s.db, subscriptionKey(nil, spaceWebhook, name), func(v []byte) error {
		st, err = s.parseWebhookState(v)
		return err
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return st, nil
	case err != nil:
		return st, fmt.Errorf("webhook of subscription %s: %w", name, err)
	}
	return st, nil
}

func (s *Store) parseWebhookState(v []byte) (WebhookState, error) {
	var row webhookStateV1
	err := s.codec.decode(v, &row)
	return WebhookState(row), err
}
