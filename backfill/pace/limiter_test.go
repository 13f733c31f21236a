package pace_test

import (
	"net/http"
	"testing"
	"time"

	"cistern/backfill/pace"
)

// fresh returns the limiter of a host that was not asked yet.
func fresh(l pace.Limits) *pace.Limiter {
	h := &pace.Limiter{}
	h.Configure(l, false)
	return h
}

// TestOldNews: a request begun before the host was parked says nothing about it afterwards, and of
// many refusals at a time one counts.
func TestOldNews(t *testing.T) {
	t.Parallel()
	h, now := fresh(usual), epoch
	p := []pace.Permit{h.Begin(pace.Fetch, now), h.Begin(pace.Fetch, now), h.Begin(pace.Fetch, now)}
	if d := h.Note(pace.Outcome{Fault: pace.HardFault}, p[0], now); d != time.Second {
		t.Errorf("the first fault parks for %s", d)
	}
	h.Note(pace.Outcome{Fault: pace.HardFault}, p[1], now)
	if v := h.View(now); v.ParkedUntil != now.Add(time.Second) {
		t.Errorf("another of the same time parks until %s", v.ParkedUntil)
	}
	h.Note(pace.Outcome{Answered: true}, p[2], now)
	if v := h.View(now); v.FailingSince.IsZero() || v.Concurrency != 1 {
		t.Errorf("an answer to what was asked before leaves %+v", v)
	}
	h, p = fresh(usual), nil
	for range 4 {
		p = append(p, h.Begin(pace.Fetch, now))
	}
	for i := range p {
		h.Note(pace.Outcome{Congested: true}, p[i], now)
	}
	if n := h.Limit(); n != 2 {
		t.Errorf("four refusals of four at a time leave %d", n)
	}
}

// TestParks: a host is parked for the longest time asked for. One that breaks off is parked from
// the third time in a row on, or at once after it was parked.
func TestParks(t *testing.T) {
	t.Parallel()
	h, now := fresh(usual), epoch
	h.Note(pace.Outcome{Park: time.Hour}, h.Begin(pace.Fetch, now), now)
	h.Note(pace.Outcome{Park: time.Second}, h.Mark(), now)
	if at := h.Opens(pace.Fetch, now); at != now.Add(time.Hour) {
		t.Errorf("it opens at %s", at)
	}
	h = fresh(usual)
	for i, want := range []time.Duration{0, 0, time.Second, 2 * time.Second} {
		if d := h.Note(pace.Outcome{Fault: pace.SoftFault}, h.Begin(pace.Fetch, now), now); d != want {
			t.Errorf("soft fault %d parks for %s, not %s", i+1, d, want)
		}
		h.End()
		now = now.Add(time.Minute)
	}
	h = fresh(usual)
	h.Note(pace.Outcome{Fault: pace.HardFault}, h.Begin(pace.Fetch, now), now)
	h.End()
	if d := h.Note(pace.Outcome{Fault: pace.SoftFault}, h.Begin(pace.Fetch, now.Add(time.Minute)), now.Add(time.Minute)); d != 2*time.Second {
		t.Errorf("a soft fault of a host that was parked parks for %s", d)
	}
}

// TestRefund: a request that was not sent is not spent, and setting the same limits again forgets
// nothing.
func TestRefund(t *testing.T) {
	t.Parallel()
	limits := pace.Limits{Min: 1, Max: 10, PerSecond: 1}
	h, now := fresh(limits), epoch
	h.Begin(pace.Fetch, now)
	h.Configure(limits, false)
	if h.Open(pace.Fetch, now) {
		t.Error("a second request within a second")
	}
	h.Refund(pace.Fetch)
	if !h.Open(pace.Fetch, now) {
		t.Error("what was not sent is spent")
	}
	h.Heard(pace.Fetch, 0, pace.Quota{Limit: 10, Remaining: 2, Reset: now.Add(time.Hour)}, h.Mark(), now)
	h.Begin(pace.Fetch, now)
	h.Refund(pace.Fetch)
	if n := h.View(now).Told[0].Remaining; n != 2 {
		t.Errorf("%d are left of two", n)
	}
}

// TestSlower: a host whose answers take far longer than before gets fewer requests at a time.
func TestSlower(t *testing.T) {
	t.Parallel()
	h, now := fresh(usual), epoch
	p := h.Begin(pace.Fetch, now)
	for range 10 {
		h.Heard(pace.Fetch, 20*time.Millisecond, pace.Quota{}, p, now)
	}
	before := h.Limit()
	for range 8 {
		h.Heard(pace.Fetch, 2*time.Second, pace.Quota{}, p, now)
	}
	if n := h.Limit(); n != before/2 {
		t.Errorf("%d at a time, %d before", n, before)
	}
}

// TestOverride: an override below the minimum is the minimum. No header stops requests for more
// than an hour.
func TestOverride(t *testing.T) {
	t.Parallel()
	if l := (pace.Override{Concurrency: 2}).Over(pace.Limits{Min: 4, Max: 10}); l != (pace.Limits{Min: 2, Max: 2}) {
		t.Errorf("%+v", l)
	}
	for v, want := range map[string]time.Duration{
		"31536000": time.Hour, "99999999999999999999": time.Hour, "Fri, 20 Nov 2099 22:45:52 GMT": time.Hour, "0": time.Second,
		"-5": 0, "NaN": 0, "Fri, 20 Nov 1999 22:45:52 GMT": time.Second,
	} {
		if d := pace.AskedWait(http.Header{"Retry-After": {v}}, epoch); d != want {
			t.Errorf("Retry-After %s is %s, not %s", v, d, want)
		}
	}
}
