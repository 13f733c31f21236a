package backfill

import "cistern/backfill/hosts"

// HostStanding returns the current state of the host with an id. Safe for concurrent use.
func (r *Runner) HostStanding(id uint32) hosts.Standing { return r.hosts.Standing(id) }

// HostChanged applies changed settings of a host from now on.
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
}
