package backfill

import "cistern/backfill/hosts"

// HostStanding returns the current state of the host with an id. Safe for concurrent use.
func (r *Runner) HostStanding(id uint32) hosts.Standing { return r.hosts.Standing(id) }

// HostChanged has what is set for a host obeyed from now on.
func (r *Runner) HostChanged(id uint32) {
	r.hosts.Changed(id)
	r.mu.Lock()
	if q := r.queues[id]; q != nil {
		if r.hosts.Banned(id) {
			r.clearRoom(q)
		}
		r.push(q)
	}
	r.mu.Unlock()
	signal(r.kick)
	for _, c := range r.crawls.all() {
		c.look(id)
	}
}

// queuedAtBanned is how many wait for hosts that are not to be asked. It looks at all that have a
// queue.
func (r *Runner) queuedAtBanned() (n int64) {
	for _, id := range r.store.QueuedHosts() {
		if r.hosts.Banned(id) {
			h, _ := r.store.HostByID(id)
			n += h.Queued
		}
	}
	return n
}
