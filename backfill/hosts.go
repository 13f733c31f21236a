package backfill

import (
	"strings"
	"time"

	"cistern/backfill/pace"
)

// hostOf finds the entry of a host or makes one; nil when the table is full of hosts that are in
// use. Called with mu held.
func (r *Runner) hostOf(id uint32) *host {
	if h := r.hosts[id]; h != nil {
		return h
	}
	if len(r.hosts) >= hostsMax && !r.evict() {
		return nil
	}
	h := &host{}
	h.ID = id
	r.configure(h)
	r.hosts[id] = h
	return h
}

// configure has a host asked as much as is set for it. Called with mu held.
func (r *Runner) configure(h *host) {
	if h.ID == 0 { // lookups, which a directory of ours answers
		h.Configure(pace.Limits{Max: r.opts.Concurrency}, false)
		h.Trust()
		return
	}
	h.Configure(r.limitsOf(h.ID))
}

// limitsOf is what is set for a host: by its row, else by the first rule that matches, else the usual.
func (r *Runner) limitsOf(id uint32) (l pace.Limits, banned bool) {
	h, _ := r.store.HostByID(id) // from memory
	rule, banned := r.opts.HostRules.Of(h.Name)
	l = rule.Over(pace.Limits{Min: 1, Max: r.opts.PerHost})
	return pace.Override(h.Limits).Over(l), banned || h.Banned
}

// queuedAtBanned is how many wait for hosts that are not to be asked. It looks at all that have a queue.
func (r *Runner) queuedAtBanned() (n int64) {
	for _, id := range r.store.QueuedHosts() {
		if _, banned := r.limitsOf(id); banned {
			h, _ := r.store.HostByID(id)
			n += h.Queued
		}
	}
	return n
}

// evict forgets an idle host, one without faults if chance offers it. That there is none is found out by looking at all,
// and so not for each of the thousands that may want a place.
func (r *Runner) evict() bool {
	const tries = 64
	now := r.opts.Now()
	if since := now.Sub(r.full); since >= 0 && since < rescanEvery {
		return false
	}
	var found *host
	seen := 0
	for _, h := range r.hosts { // Go starts anywhere
		if h.ID != 0 && h.idle(now) {
			found = h
			if h.Blameless() {
				break
			}
		}
		if seen++; seen == tries && found != nil {
			break
		}
	}
	if found == nil {
		r.full = now
		return false
	}
	delete(r.hosts, found.ID)
	return true
}

// push makes the dispatcher consider a host, unless it stands for the unknown ones (id 0), which
// come when there is nobody else. Called with mu held.
func (r *Runner) push(h *host) {
	if h.ID != 0 && h.hasWork() {
		r.sched.Offer(&h.Host, r.opts.Now())
	}
}

// stall sets a host aside whose work needs lookups, while those are parked. Called with mu held.
func (r *Runner) stall(h *host) {
	if !h.stalled {
		h.stalled = true
		r.stalled = append(r.stalled, h)
	}
}

// unpark returns the hosts whose time has come to the dispatcher, and says when the next one's
// comes (zero: none). Called with mu held.
func (r *Runner) unpark(now time.Time) time.Time {
	if len(r.stalled) > 0 && !r.lookupsParked(now) {
		for _, h := range r.stalled {
			h.stalled = false
			r.push(h)
		}
		clear(r.stalled)
		r.stalled = r.stalled[:0]
	}
	next := r.sched.Wake(now)
	if r.lookupsParked(now) {
		if at := r.hosts[0].Opens(pace.Fetch, now); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// judge tells the host of a task what its attempt says of it, or the lookups what a failed one
// says of them: those of did:plc share a directory, those of did:web are up to the DID's own host.
func (r *Runner) judge(t *task, v verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, p := t.host, t.permit
	if v.lookup && !strings.HasPrefix(t.it.did, didWeb) {
		h, p = r.hostOf(0), t.lookPermit
	}
	if h != nil {
		r.blame(h, p, v)
	}
}

// blame has a host's limiter take over what a request says of it. Called with mu held.
func (r *Runner) blame(h *host, p pace.Permit, v verdict) {
	now := r.opts.Now()
	if h.Note(pace.Outcome{Fault: v.fault, Answered: v.spoke, Congested: v.congested, Park: v.park}, p, now) > 0 {
		r.metrics.parkings.Inc()
	}
	h.tally.noted(v, now)
}
