package durable_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"cistern/api/durable"
	"cistern/api/wire"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

func secret(n int) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", n)))
}

// checkURL takes what begins with https.
func checkURL(url string) error {
	if !strings.HasPrefix(url, "https://") {
		return errors.New("is not https")
	}
	return nil
}

// TestWebhookPut: what PUT takes and refuses, and what is shown of it. No answer but that which
// makes a secret has one, and no error repeats one.
func TestWebhookPut(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	r, err := durable.New(durable.Options{Store: s, Log: s, CheckURL: checkURL})
	if err != nil {
		t.Fatal(err)
	}
	long := secret(64)
	for text, want := range map[string]string{
		`{"url":"http://a.test"}`: `webhook.url "http://a.test": is not https`, `{}`: `webhook.url "": is not https`,
		`{"url":"https://a.test","events":101}`: "webhook.events 101: want 1 to 100", `{"url":"https://a.test","events":-1}`: "webhook.events -1",
		`{"url":"https://a.test","requests":17}`: "webhook.requests 17: want 1 to 16", `{"url":"https://a.test","requests":-1}`: "webhook.requests -1",
		`{"url":"https://a.test","secrets":["` + secret(23) + `"]}`:                           "webhook.secrets[0]: want whsec_",
		`{"url":"https://a.test","secrets":["` + long + `","` + secret(65) + `"]}`:            "webhook.secrets[1]: want whsec_",
		`{"url":"https://a.test","secrets":["` + strings.TrimPrefix(long, "whsec_") + `"]}`:   "webhook.secrets[0]",
		`{"url":"https://a.test","secrets":["` + strings.Repeat(long+`","`, 4) + long + `"]}`: "webhook.secrets has 5",
	} {
		var w durable.Wanted
		if err := json.Unmarshal([]byte(`{"webhook":`+text+`}`), &w); err != nil {
			t.Fatal(err)
		}
		_, _, err := r.Put(t.Context(), "a", w)
		var refusal *wire.Refusal
		if !errors.As(err, &refusal) || refusal.Name != "InvalidRequest" || !strings.Contains(refusal.Message, want) ||
			strings.Contains(refusal.Message, "a2tr") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, _, err := r.Put(t.Context(), "a", durable.Wanted{Share: durable.ByDID, Webhook: &durable.WantedWebhook{URL: "https://a.test"}}); err == nil ||
		!strings.Contains(err.Error(), `share "did"`) {
		t.Error(err)
	}
	put := func(w durable.WantedWebhook, made bool) string {
		t.Helper()
		w.URL = "https://a.test/in"
		st, m, err := r.Put(t.Context(), "a", durable.Wanted{Webhook: &w})
		if err != nil || m != made {
			t.Fatal(m, err)
		}
		return st.Webhook.NewSecret
	}
	keys := func() [][]byte {
		t.Helper()
		all, err := s.Subscriptions()
		if err != nil {
			t.Fatal(err)
		}
		return all[0].Webhook.Secrets
	}
	made := put(durable.WantedWebhook{}, true)
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(made, "whsec_"))
	if err != nil || len(key) != 32 || string(keys()[0]) != string(key) {
		t.Fatalf("made %q, has %x", made, keys())
	}
	if again := put(durable.WantedWebhook{}, false); again != "" || len(keys()) != 1 || string(keys()[0]) != string(key) {
		t.Errorf("made %q, has %x", again, keys())
	}
	if again := put(durable.WantedWebhook{Secrets: []string{long, made}, Events: 100, Requests: 16}, false); again != "" || len(keys()) != 2 ||
		string(keys()[1]) != string(key) || len(keys()[0]) != 64 {
		t.Errorf("made %q, has %x", again, keys())
	}
	st, err := r.Status("a")
	want := &durable.WebhookStatus{URL: "https://a.test/in", Events: 100, Requests: 16, Secrets: 2, State: "idle"}
	if d := cmp.Diff(want, st.Webhook); d != "" || err != nil {
		t.Error(d, err)
	}
	text, err := json.Marshal(r.All())
	if err != nil || strings.Contains(string(text), "whsec") || strings.Contains(string(text), "a2tr") || strings.Contains(string(text), "new_secret") {
		t.Errorf("%s, %v", text, err)
	}
}

// TestResume: only a webhook can be resumed.
func TestResume(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	r, err := durable.New(durable.Options{Store: s, Log: s, CheckURL: checkURL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resume("a"); err == nil || !strings.Contains(err.Error(), "NotFound") {
		t.Error(err)
	}
	if _, _, err := r.Put(t.Context(), "a", durable.Wanted{}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Resume("a"); err == nil || !strings.Contains(err.Error(), "has no webhook") {
		t.Error(err)
	}
	if _, _, err := r.Put(t.Context(), "a", durable.Wanted{Webhook: &durable.WantedWebhook{URL: "https://a.test"}}); err != nil {
		t.Fatal(err)
	}
	hooks, changed := r.Webhooks()
	if len(hooks) != 1 {
		t.Fatal(hooks)
	}
	hooks[0].Report(store.WebhookState{Failed: 3, Since: 1, Error: "HTTP 500", Parked: 2, Reason: "failing"}, 0)
	m, err := hooks[0].Attach()
	if err != nil || m.Save() != nil {
		t.Fatal(err)
	}
	m.Detach()
	if st, err := s.WebhookState("a"); err != nil || st.Failed != 3 {
		t.Errorf("%+v, %v", st, err)
	}
	st, err := r.Resume("a")
	if err != nil || st.Webhook.State != "idle" || st.Webhook.Attempts != 0 {
		t.Errorf("%+v, %v", st.Webhook, err)
	}
	<-changed
	<-hooks[0].Done()
	if _, err := hooks[0].Attach(); !errors.Is(err, durable.ErrChanged) {
		t.Error(err)
	}
	hooks[0].Report(store.WebhookState{Failed: 9}, 0) // it is not the subscription's any more
	if err := m.Save(); err != nil {
		t.Fatal(err)
	}
	if st, err := s.WebhookState("a"); err != nil || st != (store.WebhookState{}) {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestConnectionBesideSender: a sender that finishes its request after its webhook was removed does
// not count as the connection that an exclusive subscription has.
func TestConnectionBesideSender(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	r, err := durable.New(durable.Options{Store: s, Log: s, CheckURL: checkURL})
	if err != nil {
		t.Fatal(err)
	}
	put := func(w *durable.WantedWebhook) *durable.Subscription {
		t.Helper()
		if _, _, err := r.Put(t.Context(), "a", durable.Wanted{Webhook: w}); err != nil {
			t.Fatal(err)
		}
		sub, err := r.Find("a")
		if err != nil {
			t.Fatal(err)
		}
		return sub
	}
	put(&durable.WantedWebhook{URL: "https://a.test"})
	hooks, _ := r.Webhooks()
	sender, err := hooks[0].Attach()
	if err != nil {
		t.Fatal(err)
	}
	sub := put(nil)
	member, err := sub.Attach()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Attach(); err == nil {
		t.Error("a second connection is attached to an exclusive subscription")
	}
	if st, err := r.Status("a"); err != nil || len(st.Connections) != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	member.Detach()
	sender.Detach()
}
