package store_test

import (
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// TestWebhooks: a webhook and its state are kept by name, and end with their subscription.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	want := store.Subscription{Name: "a", Webhook: &store.Webhook{URL: "https://a.test/b?c", Secrets: [][]byte{{1, 2}, {3}}, Events: 100, Requests: 4}}
	state := store.WebhookState{Failed: 3, Slowed: 2, Since: 1, Next: 2, Error: "HTTP 500", Parked: 3, Reason: "failing"}
	write(t, s, func(b *store.Batch) {
		b.PutSubscription(want)
		b.PutSubscriptionPosition("a", store.SubscriptionPosition{Next: 1})
		b.PutWebhookState("a", state)
	})
	got, err := s.Subscriptions()
	if d := cmp.Diff([]store.Subscription{want}, got); d != "" || err != nil {
		t.Error(d, err)
	}
	is := func(want store.WebhookState) {
		t.Helper()
		if got, err := s.WebhookState("a"); got != want || err != nil {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	is(state)
	write(t, s, func(b *store.Batch) { b.PutWebhookState("a", store.WebhookState{}) })
	is(store.WebhookState{})
	write(t, s, func(b *store.Batch) { b.PutWebhookState("a", state) })
	write(t, s, func(b *store.Batch) { b.DropSubscription("a") })
	is(store.WebhookState{})
	for _, bad := range []store.Webhook{{}, {URL: "a", Events: 1, Requests: 1}, {URL: "a", Secrets: [][]byte{{1}}, Requests: 1},
		{URL: "a", Secrets: [][]byte{{1}}, Events: 1}, {Secrets: [][]byte{{1}}, Events: 1, Requests: 1}} {
		b := s.NewBatch()
		b.PutSubscription(store.Subscription{Name: "a", Webhook: &bad})
		if err := b.CommitSync(); err == nil {
			t.Errorf("%+v was written", bad)
		}
	}
}
