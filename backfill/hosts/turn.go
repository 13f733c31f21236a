package hosts

import (
	"time"

	"cistern/backfill/pace"
)

// Offer reports that repositories wait for a host. The host stays in the table until Pick returns
// it in its turn. False means that the table is full of hosts that are in use.
func (t *Table) Offer(id uint32) bool {
	now := t.opts.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hostOf(id)
	if h == nil {
		return false
	}
	t.sched.Offer(&h.Host, now)
	return true
}

// Pick returns the next host in turn that may be asked now, 0 if there is none, and a permit of it
// if take finds a repository for it. The host counts as having no repositories until it is offered
// again. take is called with the table locked, and must not call it.
func (t *Table) Pick(now time.Time, take func(id uint32) bool) (id uint32, p *Permit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	picked := t.sched.Pick(now)
	if picked == nil {
		return 0, nil
	}
	if take(picked.ID) {
		p = t.begin(t.hosts[picked.ID], now)
	}
	return picked.ID, p
}

// Acquire returns a permit of a host out of turn, or nil. Then soon reports whether one may be had
// soon: a banned host, and one that is parked or has spent a window, cannot be asked for some time.
func (t *Table) Acquire(id uint32) (p *Permit, soon bool) {
	now := t.opts.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hostOf(id)
	switch {
	case h == nil || h.Banned() || h.Opens(pace.Fetch, now).Sub(now) > admitMax:
		return nil, false
	case t.sched.Free() > 0 && h.Open(pace.Fetch, now) && t.sched.Trusts(&h.Host):
		return t.begin(h, now), true
	}
	return nil, true
}

// Next returns the time at which Pick may find a host: not after now if it may find one at once,
// zero if first a host must be offered or a permit given back.
func (t *Table) Next(now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.sched.Wake(now)
	if t.sched.Ready() {
		return now
	}
	return next
}

// Free returns the number of permits of all hosts that are free.
func (t *Table) Free() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sched.Free()
}

// Crowded reports whether no permit is free while repositories wait for hosts that may be asked.
func (t *Table) Crowded() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sched.Crowded()
}
