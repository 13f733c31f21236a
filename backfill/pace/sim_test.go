package pace_test

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"

	"cistern/backfill/pace"
)

// simHost is a simulated server, and what waits for it.
type simHost struct {
	pace.Host
	work    int
	latency func(running int, now time.Time) time.Duration
	refuse  func(running int, now time.Time) (pace.Outcome, bool) // what it says instead of an answer

	tell func(now time.Time) pace.Quota // in its answers

	inflight int
	begun    []time.Time // of requests, if kept
	keep     bool
	served   int
	most     int // requests at a time
}

// sim is a fleet under a virtual clock.
type sim struct {
	t      testing.TB
	now    time.Time
	s      *pace.Scheduler
	hosts  []*simHost
	events events
	picks  int
}

type event struct {
	at   time.Time
	n    int
	h    *simHost
	p    pace.Permit
	out  pace.Outcome
	took time.Duration
	told pace.Quota
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].n < q[j].n
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

var epoch = time.Unix(1_750_000_000, 0)

func newSim(t testing.TB, permits int) *sim {
	return &sim{t: t, now: epoch, s: pace.NewScheduler(permits)}
}

// add makes a host with work that answers after a time.
func (m *sim) add(work int, latency time.Duration, limits pace.Limits) *simHost {
	h := &simHost{work: work, latency: func(int, time.Time) time.Duration { return latency }}
	h.ID = uint32(len(m.hosts) + 1)
	h.Configure(limits, false)
	m.hosts = append(m.hosts, h)
	if work > 0 {
		m.s.Offer(&h.Host, m.now)
	}
	return h
}

// run lets time pass, and everything be picked that may be.
func (m *sim) run(d time.Duration) {
	end := m.now.Add(d)
	for {
		for h := m.s.Pick(m.now); h != nil; h = m.s.Pick(m.now) {
			m.begin(m.hosts[h.ID-1])
		}
		next := m.s.Wake(m.now)
		if len(m.events) > 0 && (next.IsZero() || m.events[0].at.Before(next)) {
			next = m.events[0].at
		}
		if next.IsZero() || next.After(end) {
			m.now = end
			return
		}
		m.now = next
		for len(m.events) > 0 && !m.events[0].at.After(m.now) {
			m.end(heap.Pop(&m.events).(event))
		}
	}
}

func (m *sim) begin(h *simHost) {
	m.picks++
	if h.work == 0 {
		return // it was taken from the queue
	}
	if h.Parked(m.now) || h.Banned() {
		m.t.Fatalf("host %d was picked while it is to be left alone", h.ID)
	}
	h.work--
	p := m.s.Begin(&h.Host, m.now)
	h.inflight++
	h.most = max(h.most, h.inflight)
	if h.keep {
		h.begun = append(h.begun, m.now)
	}
	e := event{n: m.picks, h: h, p: p, took: h.latency(h.inflight, m.now), out: pace.Outcome{Answered: true}}
	if h.refuse != nil {
		if out, refused := h.refuse(h.inflight, m.now); refused {
			e.out = out
		}
	}
	if h.tell != nil {
		e.told = h.tell(m.now)
	}
	e.at = m.now.Add(e.took)
	heap.Push(&m.events, e)
	if h.work > 0 {
		m.s.Offer(&h.Host, m.now)
	}
}

func (m *sim) end(e event) {
	h := e.h
	h.inflight--
	if e.out.Answered {
		h.served++
		h.Heard(pace.Fetch, e.took, e.told, e.p, m.now)
	} else {
		h.work++ // it comes again
	}
	h.Note(e.out, e.p, m.now)
	m.s.Leave(&h.Host, m.now)
	m.s.Return(&h.Host, e.p, m.now)
	if h.work > 0 {
		m.s.Offer(&h.Host, m.now)
	}
}

var usual = pace.Limits{Min: 1, Max: 10}

// TestFairness: a host with 95 % of the queue at 200 ms an answer takes less than a tenth of the others'
// throughput, whether there are few of them or many, each fast.
func TestFairness(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for _, others := range []int{1, 2, 3, 5, 8, 20, 100, 1000} {
		throughput := func(slow bool) int {
			m := newSim(t, 32)
			const each = 1 << 30 // never empty
			for i := range others {
				m.add(each/others, time.Duration(2+i%7)*time.Millisecond, usual)
			}
			if slow {
				m.add(each*19, 200*time.Millisecond, usual)
			}
			m.run(5 * time.Second) // until all are known
			before := 0
			for _, h := range m.hosts[:others] {
				before += h.served
			}
			m.run(20 * time.Second)
			after := 0
			for _, h := range m.hosts[:others] {
				after += h.served
			}
			if slow && m.hosts[others].served < 20 {
				t.Errorf("beside %d others the slow host got %d answers in 25 s", others, m.hosts[others].served)
			}
			return after - before
		}
		without, with := throughput(false), throughput(true)
		t.Logf("%d others: %d answers, with the slow host %d (%.1f %%)", others, without, with, 100*float64(with)/float64(without))
		if float64(with) < 0.9*float64(without) {
			t.Errorf("%d others: %d answers, with the slow host %d", others, without, with)
		}
	}
}

// TestNoStarvation: among thousands of hosts of all kinds each with work is served, and nothing is
// left in the end.
func TestNoStarvation(t *testing.T) {
	t.Parallel()
	const seed = 7
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	m := newSim(t, 64)
	for i := range 3000 {
		work := 1 + int(300/float64(1+r.IntN(300)))
		if i < 5 {
			work = 20_000
		}
		h := m.add(work, time.Duration(1+r.IntN(300))*time.Millisecond, usual)
		switch r.IntN(20) {
		case 0: // it breaks off now and then
			h.refuse = func(int, time.Time) (pace.Outcome, bool) { return pace.Outcome{Fault: pace.SoftFault}, r.IntN(4) == 0 }
		case 1:
			h.Configure(pace.Limits{Min: 1, Max: 3, PerSecond: 5, PerHour: 20_000}, false)
		case 2: // down for some minutes
			back := epoch.Add(time.Duration(r.IntN(600)) * time.Second)
			h.refuse = func(_ int, now time.Time) (pace.Outcome, bool) {
				return pace.Outcome{Fault: pace.HardFault}, now.Before(back)
			}
		}
	}
	m.run(3 * time.Minute)
	for _, h := range m.hosts {
		if h.served == 0 && h.refuse == nil {
			t.Errorf("host %d has not been served in three minutes", h.ID)
		}
	}
	m.run(2 * time.Hour)
	for _, h := range m.hosts {
		if h.work > 0 || h.inflight > 0 || !h.Idle(m.now) {
			t.Errorf("host %d: %d left, %d under way, %+v", h.ID, h.work, h.inflight, h.View(m.now))
		}
	}
	if m.s.Free() != 64 || m.s.Timed() != 0 {
		t.Errorf("%d permits are free, %d hosts wait", m.s.Free(), m.s.Timed())
	}
}

// TestAdapts: what a host is asked at a time stays below what it refuses, most of the time, and near it.
func TestAdapts(t *testing.T) {
	t.Parallel()
	for _, bears := range []int{1, 2, 5, 9, 20} {
		m := newSim(t, 256)
		h := m.add(1<<40, 50*time.Millisecond, pace.Limits{Min: 1, Max: 64})
		refused := 0
		h.refuse = func(running int, _ time.Time) (pace.Outcome, bool) {
			if running > bears {
				refused++
				return pace.Outcome{Congested: true}, true
			}
			return pace.Outcome{}, false
		}
		m.run(time.Minute)
		h.most, refused, h.served = 0, 0, 0
		m.run(time.Minute)
		ideal := bears * int(time.Minute/(50*time.Millisecond))
		t.Logf("bears %d: %d answers of %d, %d refused, at most %d at a time", bears, h.served, ideal, refused, h.most)
		if h.served < ideal*6/10 || refused > h.served/5 || h.most > bears+1 {
			t.Errorf("bears %d: %d answers of %d, %d refused, at most %d at a time", bears, h.served, ideal, refused, h.most)
		}
	}
}

// TestLatency: a host that answers ever later the more it is asked is asked less.
func TestLatency(t *testing.T) {
	t.Parallel()
	m := newSim(t, 256)
	h := m.add(1<<40, 0, pace.Limits{Min: 1, Max: 200})
	h.latency = func(running int, _ time.Time) time.Duration { // it works on four at a time
		return 100 * time.Millisecond * time.Duration(max(running, 4)) / 4
	}
	m.run(5 * time.Minute)
	served := h.served
	h.most = 0
	m.run(time.Minute)
	if h.most > 40 || h.served-served < 60*40*9/10 {
		t.Errorf("asked %d at a time, %d answers in a minute", h.most, h.served-served)
	}
	t.Logf("asked %d at a time, %d answers in a minute", h.most, h.served-served)
}

// TestDeadHosts: attempts follow the backoff, one at a time, and cost the others nothing.
func TestDeadHosts(t *testing.T) {
	t.Parallel()
	m := newSim(t, 32)
	for range 500 {
		h := m.add(1000, time.Millisecond, usual)
		h.keep = true
		h.refuse = func(int, time.Time) (pace.Outcome, bool) { return pace.Outcome{Fault: pace.HardFault}, true }
	}
	good := m.add(100_000, 10*time.Millisecond, usual)
	m.run(2 * time.Minute)
	if good.served < 100_000 {
		t.Errorf("the good host was served %d times", good.served)
	}
	m.run(time.Hour)
	for _, h := range m.hosts[:500] {
		// 1, 2, 4, ... 256 s and then 300 s.
		if n := len(h.begun); n > 4+8+13 || n < 15 || h.View(m.now).State() != "parked" {
			t.Fatalf("host %d: %d attempts in an hour", h.ID, n)
		}
		wait := time.Second
		var last time.Time
		for i, at := range h.begun {
			if at.Sub(h.begun[0]) < 5*time.Millisecond {
				last = at // begun before the first fault was known
				continue
			}
			if d := at.Sub(last); d < wait {
				t.Fatalf("host %d: attempt %d came after %s, not %s", h.ID, i, d, wait)
			}
			wait, last = min(2*wait, 5*time.Minute), at
		}
	}
}

// TestAsked: a host that names a time is left alone until then, and is asked one at a time after it.
func TestAsked(t *testing.T) {
	t.Parallel()
	m := newSim(t, 32)
	h := m.add(10_000, 20*time.Millisecond, usual)
	h.keep = true
	limited, until := 0, time.Time{}
	h.refuse = func(_ int, now time.Time) (pace.Outcome, bool) {
		if h.served > 200 && limited == 0 {
			limited, until = 1, now.Add(90*time.Second)
		}
		if now.Before(until) {
			return pace.Outcome{Congested: true, Park: until.Sub(now)}, true
		}
		return pace.Outcome{}, false
	}
	m.run(5 * time.Minute)
	within, first := 0, 0
	for _, at := range h.begun {
		if at.After(until.Add(-89*time.Second)) && at.Before(until) {
			within++
		}
		if !at.Before(until) && at.Before(until.Add(25*time.Millisecond)) {
			first++
		}
	}
	if within != 0 || first == 0 || first > 2 || h.work != 0 {
		t.Errorf("%d requests while it was to be left alone, %d at once after; %d left", within, first, h.work)
	}
}

// TestWindows: in no stretch of a second, an hour or a day there begin more requests than are allowed, and
// nearly as many do.
func TestWindows(t *testing.T) {
	t.Parallel()
	cases := []struct {
		limits pace.Limits
		n      int
		span   time.Duration
	}{
		{pace.Limits{Max: 10, PerSecond: 1}, 1, time.Second},
		{pace.Limits{Max: 10, PerSecond: 7}, 7, time.Second},
		{pace.Limits{Max: 10, PerHour: 1}, 1, time.Hour},
		{pace.Limits{Max: 10, PerHour: 1000}, 1000, time.Hour},
		{pace.Limits{Max: 10, PerDay: 3000}, 3000, 24 * time.Hour},
		{pace.Limits{Max: 10, PerSecond: 2, PerHour: 100, PerDay: 500}, 100, time.Hour},
		{pace.Limits{Max: 10, PerSecond: 2, PerHour: 100, PerDay: 500}, 500, 24 * time.Hour},
	}
	for _, c := range cases {
		m := newSim(t, 32)
		h := m.add(0, 20*time.Millisecond, c.limits)
		h.keep = true
		for range 20 { // it has work now and then
			h.work += 2 * c.n
			m.s.Offer(&h.Host, m.now)
			m.run(c.span)
			h.work = 0
			m.run(c.span / 3)
		}
		most := 0
		for i, j := 0, 0; i < len(h.begun); i++ {
			for j < len(h.begun) && h.begun[j].Sub(h.begun[i]) < c.span {
				j++
			}
			most = max(most, j-i)
		}
		if most > c.n || len(h.begun) < 20*c.n*85/100 && c.limits.PerDay != 500 {
			t.Errorf("%+v: %d began in %s, %d in all", c.limits, most, c.span, len(h.begun))
		}
	}
}

// TestHangers: hosts that answer in order now and then, and hang until they are given up on else, leave most to those that
// do not, also to new ones, and are served.
func TestHangers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for _, c := range []struct{ hangers, every int }{{100, 3}, {500, 2}, {500, 10}} { // of ten times it hangs once, else it answers once
		m := newSim(t, 32)
		count := func(hosts []*simHost) (served int) {
			for _, h := range hosts {
				served += h.served
			}
			return served
		}
		const good = 40
		for i := range good {
			m.add(1<<40, time.Duration(20+i%7)*time.Millisecond, usual)
		}
		m.run(time.Minute)
		before := count(m.hosts)
		m.run(time.Minute)
		without := count(m.hosts) - before
		for range c.hangers {
			n, hangs := 0, false
			h := m.add(1<<40, 0, usual)
			h.latency = func(int, time.Time) time.Duration {
				n++
				if hangs = n > 20 && (n%c.every == 0) == (c.every == 10); hangs {
					return 30 * time.Second
				}
				return 20 * time.Millisecond
			}
			h.refuse = func(int, time.Time) (pace.Outcome, bool) {
				return pace.Outcome{Fault: pace.SoftFault, Congested: true}, hangs
			}
		}
		m.run(20 * time.Minute) // until all are known
		before = count(m.hosts[:good])
		fresh := m.add(1<<40, 20*time.Millisecond, usual)
		m.run(10 * time.Minute)
		with := (count(m.hosts[:good]) - before) / 10
		t.Logf("%d that hang of %d times: %d answers a minute of %d, %d of a new one", c.hangers, c.every, with, without, fresh.served/10)
		if with < without/10 || fresh.served < with/good {
			t.Errorf("%d that hang of %d times: %d answers a minute of %d, %d of a new one", c.hangers, c.every, with, without, fresh.served/10)
		}
		for _, h := range m.hosts {
			if h.served == 0 {
				t.Errorf("%d that hang of %d times: host %d was not served", c.hangers, c.every, h.ID)
			}
		}
	}
}

// TestUnprovenHostsHang: a host that answers is not restricted for answering less quickly than at
// first, and gets its share of the permits while unproven hosts hang.
func TestUnprovenHostsHang(t *testing.T) {
	t.Parallel()
	m := newSim(t, 8)
	h := m.add(1<<40, 3*time.Millisecond, usual)
	m.run(100 * time.Millisecond)
	h.latency = func(int, time.Time) time.Duration { return 300 * time.Millisecond }
	for range 100 {
		s := m.add(1<<40, 10*time.Second, usual)
		s.refuse = func(int, time.Time) (pace.Outcome, bool) {
			return pace.Outcome{Fault: pace.SoftFault, Congested: true}, true
		}
	}
	before := h.served
	m.run(10 * time.Minute)
	if n := h.served - before; n < 2*600*1000/300*9/10 {
		t.Errorf("%d answers in ten minutes", n)
	}
}
