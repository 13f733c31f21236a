package durable

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"cistern/api/wire"
	"cistern/store"
)

// ErrChanged means that a webhook was changed, resumed or removed, or that its subscription was.
var ErrChanged = errors.New("the webhook has changed")

// secretPrefix is before the base64 of a secret, as in Standard Webhooks.
const secretPrefix = "whsec_"

// WantedWebhook is a webhook as PUT has it.
type WantedWebhook struct {
	URL string `json:"url"`
	// Secrets sign each request. Without any the webhook keeps its secrets; a new one gets one.
	Secrets  []string `json:"secrets"`
	Events   int      `json:"events"`   // of a request, at most. Default 1
	Requests int      `json:"requests"` // in flight, at most. Default 4
}

// ParseSecret returns the key of a secret in the form of Standard Webhooks. The error says what is
// wanted, and does not repeat the secret.
func ParseSecret(text string) (key []byte, err error) {
	key, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(text, secretPrefix))
	if err != nil || !strings.HasPrefix(text, secretPrefix) || len(key) < secretBytesMin ||
		len(key) > secretBytesMax {
		return nil, fmt.Errorf("want %s and the base64 of %d to %d bytes", secretPrefix,
			secretBytesMin, secretBytesMax)
	}
	return key, nil
}

// webhook returns what the store has of it. made is a secret that was made for it, if any. The
// error is a refusal, which does not repeat secrets.
func (w *WantedWebhook) webhook(
	old *store.Webhook, checkURL func(string) error,
) (def *store.Webhook, made string, err error) {
	if w == nil {
		return nil, "", nil
	}
	def = &store.Webhook{URL: w.URL, Events: w.Events, Requests: w.Requests}
	if def.Events == 0 {
		def.Events = 1
	}
	if def.Requests == 0 {
		def.Requests = webhookRequests
	}
	switch err := checkURL(def.URL); {
	case err != nil:
		return nil, "", wire.Invalid("webhook.url %s: %v", wire.Echo(def.URL), err)
	case def.Events < 1 || def.Events > webhookEventsMax:
		return nil, "", wire.Invalid("webhook.events %d: want 1 to %d", w.Events, webhookEventsMax)
	case def.Requests < 1 || def.Requests > webhookRequestsMax:
		return nil, "", wire.Invalid("webhook.requests %d: want 1 to %d", w.Requests,
			webhookRequestsMax)
	case len(w.Secrets) > secretsMax:
		return nil, "", wire.Invalid("webhook.secrets has %d: want %d at most", len(w.Secrets),
			secretsMax)
	}
	for i, text := range w.Secrets {
		key, err := ParseSecret(text)
		if err != nil {
			return nil, "", wire.Invalid("webhook.secrets[%d]: %v", i, err)
		}
		def.Secrets = append(def.Secrets, key)
	}
	if len(def.Secrets) == 0 && old != nil {
		def.Secrets = old.Secrets
	}
	if len(def.Secrets) == 0 {
		key := make([]byte, secretBytes)
		_, _ = rand.Read(key) // it never fails
		def.Secrets = [][]byte{key}
		made = secretPrefix + base64.StdEncoding.EncodeToString(key)
	}
	return def, made, nil
}

// WebhookStatus is a webhook as the operator sees it.
type WebhookStatus struct {
	URL      string `json:"url"`
	Events   int    `json:"events"`
	Requests int    `json:"requests"`
	Secrets  int    `json:"secrets"` // how many; they are never shown
	// NewSecret is a secret that was made for the webhook. Only the answer to that PUT has it.
	NewSecret string `json:"new_secret,omitempty"`

	State       string     `json:"state"`        // WebhookPhase
	Attempts    int        `json:"attempts"`     // requests that failed since one succeeded
	NextAttempt *time.Time `json:"next_attempt"` // null: at once, or not at all
	LastError   string     `json:"last_error,omitempty"`
	ParkedSince *time.Time `json:"parked_since"`
	Reason      string     `json:"reason,omitempty"` // why it is parked
}

// WebhookPhase returns what a webhook with that many requests in flight is doing: idle, sending,
// backing_off or parked.
func WebhookPhase(st store.WebhookState, inFlight int) string {
	switch {
	case st.Parked != 0:
		return "parked"
	case st.Since != 0:
		return "backing_off"
	case inFlight > 0:
		return "sending"
	}
	return "idle"
}

// Hook is the webhook of a subscription until it is changed, for the package that makes its
// requests. It may be used by any goroutine.
type Hook struct {
	// Name is that of the subscription, and Webhook is what was put. Neither changes.
	Name    string
	Webhook store.Webhook

	subscription *Subscription
	done         chan struct{} // closed once it is no longer the subscription's

	// guarded by the mu of the subscription:
	state    store.WebhookState
	unsaved  bool // the state has changed since it was written
	inFlight int
}

// newHook returns the hook of a definition; nil if that has no webhook.
func (s *Subscription) newHook(st store.WebhookState) *Hook {
	if s.def.Webhook == nil {
		return nil
	}
	return &Hook{Name: s.def.Name, Webhook: *s.def.Webhook, subscription: s,
		done: make(chan struct{}), state: st}
}

// Done returns a channel that is closed once the webhook is changed, resumed or removed.
func (h *Hook) Done() <-chan struct{} { return h.done }

// State returns what has become of the requests.
func (h *Hook) State() store.WebhookState {
	h.subscription.mu.Lock()
	defer h.subscription.mu.Unlock()
	return h.state
}

// Attach adds a sender of requests, as a member of the subscription. The error is ErrChanged.
func (h *Hook) Attach() (*Member, error) {
	s := h.subscription
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hook != h {
		return nil, ErrChanged
	}
	m := s.join()
	m.sends = true
	return m, nil
}

// Report states what has become of the requests, and how many are in flight. The state is durable
// with the next Save.
func (h *Hook) Report(st store.WebhookState, inFlight int) {
	h.subscription.mu.Lock()
	defer h.subscription.mu.Unlock()
	h.inFlight = inFlight
	if h.state != st {
		h.state, h.unsaved = st, true
	}
}

// status returns the status. mu of the subscription is held.
func (h *Hook) status() *WebhookStatus {
	if h == nil {
		return nil
	}
	at := func(ms int64) *time.Time {
		if ms == 0 {
			return nil
		}
		t := time.UnixMilli(ms).UTC()
		return &t
	}
	return &WebhookStatus{URL: h.Webhook.URL, Events: h.Webhook.Events,
		Requests: h.Webhook.Requests, Secrets: len(h.Webhook.Secrets),
		State: WebhookPhase(h.state, h.inFlight), Attempts: h.state.Failed + h.state.Slowed,
		NextAttempt: at(h.state.Next), LastError: h.state.Error, ParkedSince: at(h.state.Parked),
		Reason: h.state.Reason}
}

// Webhooks returns the webhooks, and a channel that is closed once there are others.
func (r *Registry) Webhooks() (all []*Hook, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.byName {
		s.mu.Lock()
		if s.hook != nil {
			all = append(all, s.hook)
		}
		s.mu.Unlock()
	}
	return all, r.rehooked
}

// signal has the reader of Webhooks read them again.
func (r *Registry) signal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.rehooked)
	r.rehooked = make(chan struct{})
}

// Resume has the webhook of a subscription send again at once, whatever has failed before. It is
// durable on return. The error is a refusal if there is no such subscription, or no webhook.
func (r *Registry) Resume(name string) (Status, error) {
	r.changing.Lock()
	defer r.changing.Unlock()
	if err := r.writable(); err != nil {
		return Status{}, err
	}
	s, err := r.Find(name)
	if err != nil {
		return Status{}, err
	}
	if err := s.resume(); err != nil {
		return Status{}, err
	}
	r.signal()
	return s.status(r.opts.Log.Head(), time.Now()), nil
}

// resume begins a hook anew.
func (s *Subscription) resume() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	if s.hook == nil {
		s.mu.Unlock()
		return wire.Invalid("subscription %s has no webhook", s.def.Name)
	}
	s.rehook()
	s.mu.Unlock()
	b := s.store.NewBatch()
	b.PutWebhookState(s.def.Name, store.WebhookState{})
	return b.CommitSync()
}

// unhook ends the hook, if there is one.
func (s *Subscription) unhook() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hook != nil {
		close(s.hook.done)
		s.hook = nil
	}
}

// rehook replaces the hook by that of def. mu and saving are held. The caller writes the empty
// state.
func (s *Subscription) rehook() {
	if s.hook != nil {
		close(s.hook.done)
	}
	s.hook = s.newHook(store.WebhookState{})
}
