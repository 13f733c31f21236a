package pace

import "time"

// Fault is what a failed request shows about its host.
type Fault uint8

const (
	// NoFault: the host answered, or the failure was not the host's.
	NoFault Fault = iota
	// SoftFault: the host broke off an answer or answered 500, perhaps because of one repository.
	SoftFault
	// HardFault: the host cannot be reached, or answers that it is out of service.
	HardFault
)

// Outcome is what a request that has ended shows about its host.
type Outcome struct {
	Fault     Fault
	Answered  bool          // as expected
	Congested bool          // too many requests at a time: 429, 503, a timeout
	Park      time.Duration // for how long the host asked to wait
}

const (
	// A host that cannot be reached is parked for a second, doubling to five minutes. A host that
	// breaks off or answers 500 is parked from the third time in a row on, since a single broken
	// repository shows nothing about other repositories.
	faultParkBase = time.Second
	faultParkMax  = 5 * time.Minute
	softFaultsMax = 3

	// firstWindow is the number of requests at a time to an unknown host.
	firstWindow = 4

	// The window may widen while the mean answer takes up to sane times the shortest, and is halved
	// from blown times on. The floors allow for hosts that answer in a millisecond, and for our own
	// delays.
	sane, saneFloor   = 2, 100 * time.Millisecond
	blown, blownFloor = 4, 400 * time.Millisecond
	// forget is how long answers are compared with the shortest answer of a host. Time counts only
	// while the host gets at most Limits.Min requests: with more requests, slower answers are the
	// signal to look for.
	forget = time.Minute

	// nearRefusal is how much slower a window grows close to the window at the last refusal.
	nearRefusal = 16
)

// Permit is the state of a limiter when a request began. The request hands it back when it ends.
type Permit struct {
	epoch, cuts uint64
	restricted  bool
	since       time.Time
}

// Limiter bounds the requests to one host. Configure it before use.
type Limiter struct {
	limits Limits
	banned bool

	running int
	window  float64 // requests at a time that the host seems to accept
	// the window at the last refusal, 0: never. The window grows by one a round up to it, then
	// slowly
	refused float64
	cuts    uint64 // counts halvings: a refusal of a request begun before the last one is ignored

	base, usual time.Duration // time until an answer begins: the shortest of late, and the mean
	heard       time.Time     // when an answer began last

	second, hour, day window
	stated            quotas

	until   time.Time // parked until then
	failing time.Time // since when the host has failed, zero if it answers as expected
	faults  int       // parkings in a row without a success between
	soft    int       // soft faults in a row
	trying  bool      // parked lately: one request at a time until it succeeds
	proven  bool      // has answered as expected
	// counts parkings: a failure of a request begun before the last one is ignored
	epoch uint64
}

// Configure sets the limits. It may be called again: the limiter keeps what it has learnt.
func (l *Limiter) Configure(to Limits, banned bool) {
	to.Max = max(to.Max, 1)
	to.Min = min(max(to.Min, 1), to.Max)
	was := l.limits
	l.limits, l.banned = to, banned
	if l.window == 0 {
		l.window = firstWindow
	}
	l.clamp()
	if was.PerSecond != to.PerSecond {
		l.second = newWindow(to.PerSecond, 1, time.Second)
	}
	if was.PerHour != to.PerHour {
		l.hour = newWindow(to.PerHour, to.PerHour/10, time.Hour)
	}
	if was.PerDay != to.PerDay {
		l.day = newWindow(to.PerDay, to.PerDay/10, 24*time.Hour)
	}
}

// Trust sets the number of requests at a time to the maximum, for a host that is known to accept
// it.
func (l *Limiter) Trust() { l.window = float64(l.limits.Max) }

func (l *Limiter) clamp() {
	l.window = min(max(l.window, float64(l.limits.Min)), float64(l.limits.Max))
}

// Limit returns the number of requests that the host may get at a time.
func (l *Limiter) Limit() int {
	if l.trying {
		return 1
	}
	return int(l.window)
}

// Running returns the number of requests under way.
func (l *Limiter) Running() int { return l.running }

// Banned reports whether the host must not be asked.
func (l *Limiter) Banned() bool { return l.banned }

// Parked reports whether no request may begin now because of a fault or a refusal.
func (l *Limiter) Parked(now time.Time) bool { return now.Before(l.until) }

// Blameless reports whether the limiter remembers no fault of the host.
func (l *Limiter) Blameless() bool { return l.faults == 0 && l.failing.IsZero() }

// Opens returns the earliest time at which parking, windows and quotas allow a request of a kind.
func (l *Limiter) Opens(k Kind, now time.Time) time.Time {
	at := l.until
	for _, t := range [...]time.Time{l.second.opens(), l.hour.opens(), l.day.opens(),
		l.stated.opens(k, now)} {
		if t.After(at) {
			at = t
		}
	}
	return at
}

// Open reports whether another request of a kind may begin now.
func (l *Limiter) Open(k Kind, now time.Time) bool {
	return !l.banned && l.running < l.Limit() && !l.Opens(k, now).After(now)
}

// Begin takes a permit and spends the windows. The host is Open for the kind.
func (l *Limiter) Begin(k Kind, now time.Time) Permit {
	l.running++
	l.Spend(k, now)
	return l.permit(now)
}

// Mark returns the Permit of a request that begins now and takes no permit.
func (l *Limiter) Mark() Permit { return Permit{epoch: l.epoch, cuts: l.cuts} }

func (l *Limiter) permit(now time.Time) Permit {
	return Permit{epoch: l.epoch, cuts: l.cuts, since: now}
}

// Spend counts a request that begins under a permit that is already held.
func (l *Limiter) Spend(k Kind, now time.Time) {
	l.second.spend(now)
	l.hour.spend(now)
	l.day.spend(now)
	l.stated.spend(k, now)
}

// Refund takes back what was spent on a request that was not sent.
func (l *Limiter) Refund(k Kind) {
	l.second.refund()
	l.hour.refund()
	l.day.refund()
	l.stated.refund(k)
}

// Exchange refunds a Fetch that was not sent and spends a Query. If the quotas of queries do not
// allow a query yet, it changes nothing and returns the time at which they do. Otherwise it returns
// zero.
func (l *Limiter) Exchange(now time.Time) time.Time { return l.stated.exchange(Fetch, Query, now) }

// Spare reports whether less than half of each quota known of a kind is spent.
func (l *Limiter) Spare(k Kind, now time.Time) bool { return l.stated.spare(k, now) }

// End releases a permit.
func (l *Limiter) End() { l.running-- }

// Heard records how long the answer to a request of a kind took to begin, and the quota that it
// states.
func (l *Limiter) Heard(k Kind, took time.Duration, q Quota, p Permit, now time.Time) {
	l.stated.record(k, q, now, l.running)
	if took <= 0 {
		return
	}
	if l.base == 0 {
		l.base, l.usual, l.heard = took, took, now
	}
	l.usual += (took - l.usual) / 8
	if took < l.base {
		l.base = took
	} else if l.running <= l.limits.Min { // the host may have become slower permanently
		since := min(max(now.Sub(l.heard), 0), forget)
		l.base += time.Duration(float64(took-l.base) * (float64(since) / float64(forget)))
	}
	l.heard = now
	if l.usual > blown*l.base+blownFloor {
		l.halve(p)
	}
}

// Note applies the outcome of a request, and returns for how long the host is parked because of it.
func (l *Limiter) Note(o Outcome, p Permit, now time.Time) time.Duration {
	if o.Congested || o.Park > 0 || o.Fault == HardFault {
		l.halve(p)
	}
	if o.Fault == NoFault && o.Park == 0 {
		if o.Answered && p.epoch == l.epoch {
			l.succeeded()
		}
		return 0
	}
	if l.failing.IsZero() {
		l.failing = now
	}
	d := max(o.Park, l.failed(o.Fault, p.epoch))
	if d > 0 {
		l.park(now.Add(d))
	}
	return d
}

// succeeded resets the counts of failures, and widens the window while answers are in time.
func (l *Limiter) succeeded() {
	l.faults, l.soft, l.trying, l.proven, l.failing = 0, 0, false, true, time.Time{}
	if l.running < int(l.window) || l.usual > sane*l.base+saneFloor {
		return // the window is not used up, so it is unknown whether the host accepts more
	}
	step := 1.0
	if l.refused > 0 {
		step /= l.window
	}
	if l.refused > 0 && int(l.window+1) >= int(l.refused) {
		step /= nearRefusal
	}
	l.window += step
	l.clamp()
}

// halve halves the window after a refusal of a request begun with p.
func (l *Limiter) halve(p Permit) {
	if p.cuts != l.cuts {
		return
	}
	l.cuts++
	l.refused = l.window
	l.window /= 2
	l.clamp()
	l.usual = l.base // otherwise the next answers would halve the window again at once
}

// failed counts a fault of a request begun in an epoch, and returns for how long to park the host.
func (l *Limiter) failed(f Fault, epoch uint64) time.Duration {
	if f == NoFault || epoch != l.epoch {
		return 0
	}
	if f == SoftFault {
		if l.soft++; l.soft < softFaultsMax && !l.trying {
			return 0
		}
	}
	d := faultParkBase
	for i := 0; i < l.faults && d < faultParkMax; i++ {
		d *= 2
	}
	l.faults++
	return min(d, faultParkMax)
}

// park parks the host at least until a time.
func (l *Limiter) park(until time.Time) {
	l.epoch++
	l.trying = true
	if until.After(l.until) {
		l.until = until
	}
}

// View is the state of a limiter for the operator.
type View struct {
	Limits       Limits
	Running      int
	Concurrency  int // requests at a time that the limiter allows now
	Banned       bool
	ParkedUntil  time.Time // zero: not parked
	FailingSince time.Time // zero: not failing
	Faults       int       // parkings in a row without a success between
	Opens        time.Time // when its windows allow the next fetch; zero: now
	Told         []Quota   // quotas stated by the host whose windows have not ended
	Latency      time.Duration
}

// State returns the state of the host, one of States.
func (v View) State() string {
	switch {
	case v.Banned:
		return "banned"
	case !v.ParkedUntil.IsZero():
		return "parked"
	case !v.FailingSince.IsZero():
		return "failing"
	}
	return "ok"
}

// States are the values of View.State.
var States = [...]string{"ok", "parked", "failing", "banned"}

// View returns the state of the limiter.
func (l *Limiter) View(now time.Time) View {
	v := View{Limits: l.limits, Running: l.running, Concurrency: l.Limit(), Banned: l.banned,
		FailingSince: l.failing, Faults: l.faults, Latency: l.usual}
	if l.Parked(now) {
		v.ParkedUntil = l.until
	}
	if at := l.Opens(Fetch, now); at.After(now) {
		v.Opens = at
	}
	v.Told = l.stated.in(now)
	return v
}
