package webhook_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"cistern/api/webhook"
	"cistern/store"
	"cistern/store/storetest"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func half() float64 { return 0.5 }

// fail has the next request fail, as soon as it may be made. It returns when it was made, and what
// changed.
func fail(t *testing.T, e webhook.Endpoint, now time.Time, o webhook.Outcome) (time.Time, any) {
	t.Helper()
	round, at, ok := e.Begin(now)
	if !ok {
		if now = at; !at.IsZero() {
			round, _, ok = e.Begin(now)
		}
		if !ok {
			t.Fatalf("no request at %s: %+v", now, e.Kept())
		}
	}
	return now, e.End(round, o, now)
}

// An endpoint that fails is tried ten times, with the waits of Standard Webhooks, and parked then.
func TestRetries(t *testing.T) {
	t.Parallel()
	e := webhook.NewEndpoint(4, store.WebhookState{}, half, epoch)
	now := epoch
	for i, wait := range webhook.Retries {
		was := now
		at, c := fail(t, e, now, webhook.NewOutcome(webhook.Failed, 0))
		if now = at; now.Sub(was) != wait {
			t.Errorf("attempt %d comes after %s, want %s", i, now.Sub(was), wait)
		}
		want := webhook.Worsened
		switch i {
		case 0:
			want = webhook.Faltered
		case len(webhook.Retries) - 1:
			want = webhook.Parked
		}
		if c != want {
			t.Errorf("attempt %d: change %v, want %v", i, c, want)
		}
	}
	if now.Sub(epoch) != webhook.Patience() {
		t.Errorf("parked after %s, want %s", now.Sub(epoch), webhook.Patience())
	}
	if k := e.Kept(); e.Phase() != "parked" || k.Reason != "failing" || k.Error != "it failed" || k.Failed != 10 || k.Parked != now.UnixMilli() {
		t.Errorf("%s: %+v", e.Phase(), k)
	}
	if _, at, ok := e.Begin(now.Add(1000 * time.Hour)); ok || !at.IsZero() {
		t.Error("it is tried again after it was parked")
	}
}

// An endpoint that asks for less and less is parked only when nothing succeeded for as long.
func TestSlowedPatience(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, 10 * time.Second, 48 * time.Hour} {
		e := webhook.NewEndpoint(4, store.WebhookState{}, half, epoch)
		now := epoch
		for e.Phase() != "parked" {
			last := now
			now, _ = fail(t, e, now, webhook.NewOutcome(webhook.SlowDown, after))
			if gap := now.Sub(last); gap > 66*time.Minute {
				t.Fatalf("waits for %s", gap)
			}
		}
		if d := now.Sub(epoch); d < webhook.Patience() || d > webhook.Patience()+66*time.Minute {
			t.Errorf("asked for %s: parked after %s", after, d)
		}
		if e.Limit() != 1 {
			t.Errorf("limit %d", e.Limit())
		}
	}
}

// Answers that ask for fewer requests halve what is in flight, and successes bring it back.
func TestSlowDown(t *testing.T) {
	t.Parallel()
	e := webhook.NewEndpoint(16, store.WebhookState{}, half, epoch)
	var rounds []uint64
	for range 16 {
		round, _, ok := e.Begin(epoch)
		if !ok {
			t.Fatal("refused")
		}
		rounds = append(rounds, round)
	}
	if _, at, ok := e.Begin(epoch); ok || !at.IsZero() {
		t.Fatal("17 are in flight")
	}
	for i, round := range rounds { // all of one round count once
		after := 10 * time.Second
		if i == 3 {
			after = 70 * time.Second // which is honoured even so
		}
		e.End(round, webhook.NewOutcome(webhook.SlowDown, after), epoch)
	}
	if e.Limit() != 8 || e.Kept().Slowed != 1 {
		t.Fatalf("limit %d, %+v", e.Limit(), e.Kept())
	}
	now := epoch.Add(70 * time.Second)
	if _, at, ok := e.Begin(now.Add(-time.Millisecond)); ok || !at.Equal(now) {
		t.Fatalf("begins before %s, or is to at %s", now, at)
	}
	round, _, ok := e.Begin(now)
	if _, _, second := e.Begin(now); !ok || second {
		t.Fatal("want one request that tries")
	}
	if c := e.End(round, webhook.NewOutcome(webhook.Succeeded, 0), now); c != webhook.Recovered || e.Kept() != (store.WebhookState{}) {
		t.Fatalf("change %v, %+v", c, e.Kept())
	}
	successes := 0
	for ; e.Limit() < 16; successes++ {
		round, _, _ := e.Begin(now)
		e.End(round, webhook.NewOutcome(webhook.Succeeded, 0), now)
	}
	if successes != 8+9+10+11+12+13+14+15 {
		t.Errorf("%d successes for 16 in flight", successes)
	}
}

// 410 parks at once, and a late success does not undo it.
func TestGone(t *testing.T) {
	t.Parallel()
	e := webhook.NewEndpoint(2, store.WebhookState{}, half, epoch)
	a, _, _ := e.Begin(epoch)
	b, _, _ := e.Begin(epoch)
	if c := e.End(a, webhook.NewOutcome(webhook.Gone, 0), epoch); c != webhook.Parked {
		t.Errorf("change %v", c)
	}
	if c := e.End(b, webhook.NewOutcome(webhook.Succeeded, 0), epoch); c != webhook.Nothing || e.Kept().Reason != "gone" {
		t.Errorf("change %v, %+v", c, e.Kept())
	}
	if _, _, ok := e.Begin(epoch.Add(time.Hour)); ok {
		t.Error("a request was made")
	}
}

// A state that a wrong clock wrote makes nothing wait for ever.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	future := epoch.AddDate(30, 0, 0).UnixMilli()
	e := webhook.NewEndpoint(1, store.WebhookState{Failed: 2, Since: future, Next: future, Error: "x"}, half, epoch)
	if _, at, ok := e.Begin(epoch); ok || at.Sub(epoch) > 27*time.Hour {
		t.Errorf("%t, waits until %s", ok, at)
	}
}

// TestEndpointRandom: whatever comes, the limits and waits hold, through restarts.
func TestEndpointRandom(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := &endpointModel{Endpoint: webhook.NewEndpoint(1+rng.IntN(16), store.WebhookState{}, rng.Float64, epoch), now: epoch}
		m.most = m.Limit()
		for range 500 {
			if err := m.step(rng); err != nil {
				t.Fatalf("seed %d: %v at %s: %+v", seed, err, m.now.Sub(epoch), m.Kept())
			}
		}
	}
}

// endpointModel knows what an endpoint must not do.
type endpointModel struct {
	webhook.Endpoint
	most      int
	now       time.Time
	flying    []uint64
	notBefore time.Time
	failing   bool
}

func (m *endpointModel) step(rng *rand.Rand) error {
	switch rng.IntN(8) {
	case 0:
		m.now = m.now.Add(time.Duration(rng.Int64N(int64(time.Hour) << rng.IntN(5))))
	case 1, 2:
		m.now = m.now.Add(time.Duration(rng.Int64N(int64(20 * time.Second))))
	case 3, 4, 5:
		return m.begin()
	case 6, 7:
		if len(m.flying) > 0 {
			return m.end(rng)
		}
		if rng.IntN(10) == 0 && m.Kept().Since != 0 { // a restart
			m.Endpoint = webhook.NewEndpoint(m.most, m.Kept(), rng.Float64, m.now)
		}
	}
	return nil
}

func (m *endpointModel) begin() error {
	was := m.Kept()
	round, at, ok := m.Begin(m.now)
	switch {
	case ok && was.Parked != 0:
		return fmt.Errorf("begins while parked")
	case ok && m.failing && len(m.flying) > 0:
		return fmt.Errorf("%d requests while it fails", len(m.flying)+1)
	case ok && len(m.flying) >= m.most:
		return fmt.Errorf("%d requests in flight", len(m.flying)+1)
	case ok && m.now.Before(m.notBefore):
		return fmt.Errorf("begins before %s", m.notBefore.Sub(epoch))
	case !ok && was.Parked == 0 && len(m.flying) == 0 && (at.IsZero() || !at.After(m.now)):
		return fmt.Errorf("nothing is in flight, and nothing may be at %s", at)
	case !ok && !at.IsZero() && at.Before(m.notBefore.Truncate(time.Millisecond)):
		return fmt.Errorf("is to begin at %s, before %s", at.Sub(epoch), m.notBefore.Sub(epoch))
	}
	if ok {
		m.flying = append(m.flying, round)
	}
	if m.InFlight() != len(m.flying) {
		return fmt.Errorf("%d in flight, not %d", len(m.flying), m.InFlight())
	}
	return nil
}

func (m *endpointModel) end(rng *rand.Rand) error {
	i := rng.IntN(len(m.flying))
	round := m.flying[i]
	m.flying = append(m.flying[:i], m.flying[i+1:]...)
	was := m.Kept()
	var o webhook.Outcome
	var after time.Duration
	switch rng.IntN(12) {
	case 0:
		m.Cancel()
		return nil
	case 1, 2, 3:
		o = webhook.NewOutcome(webhook.Failed, 0)
	case 4, 5:
		if after = time.Duration(rng.IntN(2)) * time.Duration(rng.Int64N(int64(2*time.Hour))); after > 0 {
			m.notBefore = m.now.Add(min(after, time.Hour)).Add(-time.Millisecond)
		}
		o = webhook.NewOutcome(webhook.SlowDown, after)
	case 6:
		if rng.IntN(20) == 0 {
			o = webhook.NewOutcome(webhook.Gone, 0)
		}
	}
	c := m.End(round, o, m.now)
	k := m.Kept()
	switch {
	case was.Parked != 0 && (k != was || c != webhook.Nothing):
		return fmt.Errorf("change %v of a parked one", c)
	case c == webhook.Recovered && (k != store.WebhookState{} || was.Since == 0):
		return fmt.Errorf("recovered from %+v", was)
	case (c == webhook.Parked) != (was.Parked == 0 && k.Parked != 0):
		return fmt.Errorf("change %v", c)
	case k.Failed+k.Slowed > was.Failed+was.Slowed+1:
		return fmt.Errorf("counts %d more", k.Failed+k.Slowed-was.Failed-was.Slowed)
	case k.Parked == 0 && k.Since != 0 && m.now.Sub(time.UnixMilli(k.Since)) > webhook.Patience()+25*time.Hour && c == webhook.Worsened:
		return fmt.Errorf("is not parked")
	}
	m.failing = k.Since != 0
	return nil
}
