package pace_test

import (
	"testing"
	"time"

	"cistern/backfill/pace"
)

// TestQuota: a host that states its quota in each answer never has to refuse, and its quota is
// used.
func TestQuota(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 10, 300, 3000} {
		const span = 5 * time.Minute
		m := newSim(t, 32)
		h := m.add(1<<40, 0, usual)
		left, reset, refused := limit, epoch.Add(span), 0
		h.latency = func(int, time.Time) time.Duration { return 30 * time.Millisecond }
		h.tell = func(now time.Time) pace.Quota {
			for !now.Before(reset) {
				left, reset = limit, reset.Add(span)
			}
			if left--; left < 0 {
				refused++
			}
			return pace.Quota{Limit: limit, Remaining: max(left, 0), Reset: reset}
		}
		m.run(10 * span)
		if refused > 3 || h.served < limit*10*8/10 { // before anything is known of it, it gets a few at once
			t.Errorf("limit %d: %d were too many, %d of %d answered", limit, refused, h.served, 10*limit)
		}
		t.Logf("limit %d: %d were too many, %d of %d answered", limit, refused, h.served, 10*limit)
	}
}

// counted is a server that counts the kinds of requests in buckets of its own, in windows of five minutes.
type counted struct {
	limit, used [2]int
	ends        time.Time
	refused     int
}

const span = 5 * time.Minute

// ask counts a request of a kind, and gives what its answer says.
func (c *counted) ask(k pace.Kind, now time.Time) pace.Quota {
	for !now.Before(c.ends) {
		c.used, c.ends = [2]int{}, c.ends.Add(span)
	}
	if c.used[k]++; c.used[k] > c.limit[k] {
		c.refused++
	}
	return pace.Quota{Limit: c.limit[k], Remaining: max(0, c.limit[k]-c.used[k]), Reset: c.ends, Window: span}
}

// TestPolicies: a host that counts fetches and queries apart gets as many of each as it allows, however its answers alternate,
// and has to refuse none.
func TestPolicies(t *testing.T) {
	t.Parallel()
	host := &counted{limit: [2]int{600, 300}, ends: epoch.Add(span)}
	l, served := fresh(usual), [2]int{}
	for now := epoch; now.Before(epoch.Add(2 * span)); now = now.Add(100 * time.Millisecond) {
		for _, k := range []pace.Kind{pace.Fetch, pace.Query} {
			if !l.Open(k, now) {
				continue
			}
			p := l.Begin(k, now)
			served[k]++
			l.Heard(k, time.Millisecond, host.ask(k, now), p, now)
			l.Note(pace.Outcome{Answered: true}, p, now)
			l.End()
		}
	}
	if host.refused > 0 || served[pace.Fetch] < 1150 || served[pace.Query] < 575 {
		t.Errorf("%d fetches of 1200, %d queries of 600, %d refused", served[pace.Fetch], served[pace.Query], host.refused)
	}
	if n := len(l.View(epoch.Add(2*span - time.Second)).Told); n != 2 {
		t.Errorf("%d quotas are shown", n)
	}
}

// TestSpentQuota: a quota that is spent leaves the other open, unless both kinds count in it; what was spent on a fetch pays for a
// query when there is room for one.
func TestSpentQuota(t *testing.T) {
	t.Parallel()
	reset := epoch.Add(time.Minute)
	l := fresh(usual)
	l.Heard(pace.Query, 0, pace.Quota{Limit: 10, Reset: reset}, l.Mark(), epoch)
	if !l.Open(pace.Fetch, epoch) || l.Open(pace.Query, epoch) || l.Opens(pace.Query, epoch) != reset || l.Spare(pace.Query, epoch) {
		t.Errorf("queries are spent: %+v", l.View(epoch))
	}
	l.Begin(pace.Fetch, epoch)
	if at := l.Exchange(epoch); at != reset {
		t.Errorf("a query is paid with a fetch, or at %s", at)
	}
	l.Heard(pace.Fetch, 0, pace.Quota{Limit: 20, Remaining: 15, Reset: reset}, l.Mark(), epoch)
	l.Heard(pace.Query, 0, pace.Quota{Limit: 10, Remaining: 10, Reset: reset.Add(time.Minute)}, l.Mark(), epoch)
	l.Begin(pace.Fetch, epoch)
	if at := l.Exchange(epoch); !at.IsZero() || l.View(epoch).Told[0].Remaining != 9 || l.View(epoch).Told[1].Remaining != 15 {
		t.Errorf("at %s: %+v", at, l.View(epoch).Told)
	}

	one := fresh(usual) // both count in one quota
	for _, k := range []pace.Kind{pace.Fetch, pace.Query} {
		one.Heard(k, 0, pace.Quota{Limit: 10, Remaining: 1, Reset: reset}, one.Mark(), epoch)
	}
	one.Begin(pace.Fetch, epoch)
	if at := one.Exchange(epoch); !at.IsZero() || one.Open(pace.Fetch, epoch) || one.Open(pace.Query, epoch) {
		t.Errorf("at %s: %+v", at, one.View(epoch))
	}
}

// TestFormerPolicy: a policy that a host does not name any more binds it no longer, and no host has us keep many.
func TestFormerPolicy(t *testing.T) {
	t.Parallel()
	l := fresh(usual)
	l.Heard(pace.Fetch, 0, pace.Quota{Limit: 2, Remaining: 2, Reset: epoch.Add(time.Minute)}, l.Mark(), epoch)
	for i := range 20 {
		now := epoch.Add(time.Duration(i) * 10 * time.Minute)
		if !l.Open(pace.Fetch, now) {
			t.Fatalf("not open at %s: %+v", now, l.View(now))
		}
		p := l.Begin(pace.Fetch, now)
		l.Heard(pace.Fetch, 0, pace.Quota{Limit: 1000 + i/4, Remaining: 900, Reset: now.Add(time.Minute)}, p, now)
		l.End()
	}
	last := epoch.Add(190 * time.Minute)
	if told := l.View(last).Told; len(told) > 3 || len(told) == 0 {
		t.Errorf("%d policies are kept: %+v", len(told), told)
	}
	for i := range 100 {
		l.Heard(pace.Query, 0, pace.Quota{Limit: 1 + i, Remaining: 900, Reset: last.Add(time.Minute)}, l.Mark(), last)
	}
	if told := l.View(last).Told; len(told) > 4 {
		t.Errorf("%d policies are kept", len(told))
	}
}

// TestRefusalBeforeReset: a refusal closes its quota although its window ends before the one that
// was stated earlier. Servers behind one address may each have windows of their own.
func TestRefusalBeforeReset(t *testing.T) {
	t.Parallel()
	l := fresh(usual)
	l.Heard(pace.Fetch, 0, pace.Quota{Limit: 100, Remaining: 90, Reset: epoch.Add(time.Hour)}, l.Mark(), epoch)
	reset := epoch.Add(10 * time.Second)
	l.Heard(pace.Fetch, 0, pace.Quota{Limit: 100, Reset: reset}, l.Mark(), epoch)
	if l.Open(pace.Fetch, epoch) || l.Opens(pace.Fetch, epoch) != reset {
		t.Errorf("the host refused until %v, and is asked again at %v", reset, l.Opens(pace.Fetch, epoch))
	}
	if !l.Open(pace.Fetch, reset) {
		t.Errorf("the host is asked again at %v only", l.Opens(pace.Fetch, reset))
	}
}
