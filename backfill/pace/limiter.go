package pace

import "time"

// Fault is what a failed request says about its host.
type Fault uint8

const (
	// NoFault: the host answered, or we do not know.
	NoFault Fault = iota
	// SoftFault: it broke off or answered 500, which may be about one repository.
	SoftFault
	// HardFault: it cannot be reached, or says itself that it is out of order.
	HardFault
)

// Outcome is what a request that has ended says about its host.
type Outcome struct {
	Fault     Fault
	Answered  bool          // in order
	Congested bool          // it was too much at a time: 429, 503, a timeout
	Park      time.Duration // the host asked to be left alone for that long
}

const (
	// A host that cannot be reached is left alone for a second, doubling to five minutes; one that
	// breaks off or says 500 only from the third time in a row, for one broken repository says
	// nothing about the others.
	faultParkBase = time.Second
	faultParkMax  = 5 * time.Minute
	softFaultsMax = 3

	// firstWindow is how much a host is asked at a time before anything is known of it.
	firstWindow = 4

	// Answers are sane up to sane times the shortest, and a blow-up from blown times on. The floors are
	// for hosts that answer in a millisecond, and for our own delays.
	sane, saneFloor   = 2, 100 * time.Millisecond
	blown, blownFloor = 4, 400 * time.Millisecond
	// forget is how long the shortest answer counts as what a host can do, of the time in which it is asked as little
	// as may be: that answers take longer while it is asked more is what we want to see.
	forget = time.Minute

	// nearRefusal is how much slower a window grows that is about to be what was refused before.
	nearRefusal = 16
)

// Permit is what a request that began has to show when it ends.
type Permit struct {
	epoch, cuts uint64
	stranger    bool
	since       time.Time
}

// Limiter says how much one host is asked. Configure it before use.
type Limiter struct {
	limits Limits
	banned bool

	running int
	window  float64 // requests at a time that it seems to bear
	refused float64 // what the window was when it refused last, 0: never. Up to there it grows by one a round, and then slowly
	cuts    uint64  // rises with each halving: refusals of requests begun before it are old news

	base, usual time.Duration // until an answer begins: the shortest, lately, and the mean
	heard       time.Time     // when one began last

	second, hour, day window
	told              quotas

	until   time.Time // parked until then
	failing time.Time // since when it has not answered in order, zero if it does
	faults  int       // parkings in a row without a success between
	soft    int       // soft faults in a row
	trying  bool      // parked lately: one request at a time until it succeeds
	proven  bool      // has answered in order since we remember it
	epoch   uint64    // rises with each parking: failures of requests begun before it are old news
}

// Configure sets the limits, now or anew. What was learnt of the host stays.
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

// Trust begins with all that the limits allow at a time, for a host that is known to bear it.
func (l *Limiter) Trust() { l.window = float64(l.limits.Max) }

func (l *Limiter) clamp() {
	l.window = min(max(l.window, float64(l.limits.Min)), float64(l.limits.Max))
}

// Limit is how many requests it may get at a time.
func (l *Limiter) Limit() int {
	if l.trying {
		return 1
	}
	return int(l.window)
}

// Running is how many it is answering.
func (l *Limiter) Running() int { return l.running }

// Banned says whether it is not to be asked at all.
func (l *Limiter) Banned() bool { return l.banned }

// Parked says whether it is left alone now.
func (l *Limiter) Parked(now time.Time) bool { return now.Before(l.until) }

// Blameless says whether forgetting the host loses no memory of a fault.
func (l *Limiter) Blameless() bool { return l.faults == 0 && l.failing.IsZero() }

// Opens is from when on another request of a kind may begin as far as time decides: parking and windows.
func (l *Limiter) Opens(k Kind, now time.Time) time.Time {
	at := l.until
	for _, t := range [...]time.Time{l.second.opens(), l.hour.opens(), l.day.opens(), l.told.opens(k, now)} {
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

// Mark is what a request that begins now without a permit has to show when it ends.
func (l *Limiter) Mark() Permit { return Permit{epoch: l.epoch, cuts: l.cuts} }

func (l *Limiter) permit(now time.Time) Permit {
	return Permit{epoch: l.epoch, cuts: l.cuts, since: now}
}

// Spend notes that a request begins for which a permit is held already.
func (l *Limiter) Spend(k Kind, now time.Time) {
	l.second.spend(now)
	l.hour.spend(now)
	l.day.spend(now)
	l.told.spend(k, now)
}

// Refund takes back what was spent on a request that was not sent.
func (l *Limiter) Refund(k Kind) {
	l.second.refund()
	l.hour.refund()
	l.day.refund()
	l.told.refund(k)
}

// Exchange turns what was spent on a Fetch that was not sent into what a Query costs. While the quotas of queries do not
// allow one it changes nothing, and gives the time from when on they do; else it gives the zero time.
func (l *Limiter) Exchange(now time.Time) time.Time { return l.told.exchange(Fetch, Query, now) }

// Spare reports whether the host's quotas of a kind are less than half spent, as far as it told of any.
func (l *Limiter) Spare(k Kind, now time.Time) bool { return l.told.spare(k, now) }

// End gives a permit back.
func (l *Limiter) End() { l.running-- }

// Heard notes that the answer to a request of a kind began after some time, and what it told of the host's own limits.
func (l *Limiter) Heard(k Kind, took time.Duration, q Quota, p Permit, now time.Time) {
	l.told.told(k, q, now, l.running)
	if took <= 0 {
		return
	}
	if l.base == 0 {
		l.base, l.usual, l.heard = took, took, now
	}
	l.usual += (took - l.usual) / 8
	if took < l.base {
		l.base = took
	} else if l.running <= l.limits.Min { // it may have become slower for good
		since := min(max(now.Sub(l.heard), 0), forget)
		l.base += time.Duration(float64(took-l.base) * (float64(since) / float64(forget)))
	}
	l.heard = now
	if l.usual > blown*l.base+blownFloor {
		l.halve(p)
	}
}

// Note takes over what a request that has ended says, and gives for how long the host is parked because of it.
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

// succeeded clears what failures built up, and asks for more at a time while answers are in time.
func (l *Limiter) succeeded() {
	l.faults, l.soft, l.trying, l.proven, l.failing = 0, 0, false, true, time.Time{}
	if l.running < int(l.window) || l.usual > sane*l.base+saneFloor {
		return // it bears what it gets, and what more would do cannot be known
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

// halve answers a refusal of a request begun with p.
func (l *Limiter) halve(p Permit) {
	if p.cuts != l.cuts {
		return
	}
	l.cuts++
	l.refused = l.window
	l.window /= 2
	l.clamp()
	l.usual = l.base // as it will be, if this was enough
}

// failed notes a fault of a request begun in an epoch, and says how long to leave the host alone.
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

// park leaves the host alone until then, or as long as it is already.
func (l *Limiter) park(until time.Time) {
	l.epoch++
	l.trying = true
	if until.After(l.until) {
		l.until = until
	}
}

// View is a limiter as an operator sees it.
type View struct {
	Limits       Limits
	Running      int
	Concurrency  int // how many requests at a time it would be given now
	Banned       bool
	ParkedUntil  time.Time // zero: it is not
	FailingSince time.Time // zero: it is not
	Opens        time.Time // when its windows allow the next fetch; zero: now
	Told         []Quota   // what the host said itself of windows that have not ended
	Latency      time.Duration
}

// State is the word for how a host stands.
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

// States are the words that State gives.
var States = [...]string{"ok", "parked", "failing", "banned"}

// View is how the limiter stands.
func (l *Limiter) View(now time.Time) View {
	v := View{Limits: l.limits, Running: l.running, Concurrency: l.Limit(), Banned: l.banned, FailingSince: l.failing, Latency: l.usual}
	if l.Parked(now) {
		v.ParkedUntil = l.until
	}
	if at := l.Opens(Fetch, now); at.After(now) {
		v.Opens = at
	}
	v.Told = l.told.in(now)
	return v
}
