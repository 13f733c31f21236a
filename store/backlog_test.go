package store_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"
)

// TestBacklogIsLogged: a subscription that keeps events, or loses some, is logged once a day.
func TestBacklogIsLogged(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := newClock()
	s := storetest.Open(t, store.Options{Now: c.now, SubscriptionRetention: 10 * 24 * time.Hour,
		Logger: slog.New(slog.NewTextHandler(&out, nil))})
	imported(t, s, storetest.DID(1), storetest.Records{"app.test.a/0": storetest.Text("first")})
	write(t, s, func(b *store.Batch) {
		b.PutSubscription(store.Subscription{Name: "a"})
		b.PutSubscriptionPosition("a", store.SubscriptionPosition{Next: 1})
	})
	pass := func(days, keeps, prunes int, held bool) {
		t.Helper()
		out.Reset()
		for i := range days * 24 {
			if i%24 == 0 {
				one(t, s, storetest.DID(1), "app.test.a/0", c.now().String())
			}
			retain(t, s, c, time.Hour)
		}
		k, p := strings.Count(out.String(), "keeps events"), strings.Count(out.String(), "are pruned")
		if age, ok := s.Backlog("a"); k != keeps || p != prunes || ok != held || ok && age < retention {
			t.Errorf("kept %d times, want %d, pruned %d times, want %d, age %v (%t), tail %d of %d:\n%s",
				k, keeps, p, prunes, age, ok, s.Tail(), s.Head(), &out)
		}
	}
	pass(3, 0, 0, false)
	pass(7, 7, 0, true)
	pass(3, 3, 3, true)
	write(t, s, func(b *store.Batch) {
		b.PutSubscriptionPosition("a", store.SubscriptionPosition{Next: s.Head() + 1})
	})
	pass(2, 0, 0, false)
}
