package backfill

import (
	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/loop"
)

// claim is a repository that was taken from its queue, with the permits that its task holds. While
// a task holds the claim, only that task uses it.
type claim struct {
	it     item
	holder *queue        // the queue that counts the task as claimed
	permit *hosts.Permit // nil while the host is unknown

	lookPermit pace.Permit // of lookups, when the task began
	looking    bool        // counted in lookups.running; dispatcher.mu guards
}

// acquire takes a permit of a host for a repository that was resolved. If no permit is free, the
// item waits in memory for a permit, a later task continues with it, and passed is true. If there
// is no place to wait either, ok is false: the repository must be moved to its host's stored queue.
func (d *dispatcher) acquire(c *claim, host uint32, waits item) (passed, ok bool) {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.looking {
		d.endLookup(c)
	}
	permit, soon := d.hosts.Acquire(host)
	if !soon {
		d.lookups.moved(now)
		return false, false
	}
	q := d.queues.open(host)
	if permit == nil && (len(q.resolved) >= resolvedMax || d.queues.waiting >= resolvedAllMax) {
		d.queues.drop(q)
		d.lookups.moved(now)
		return false, false
	}
	q.claimed++
	d.queues.unclaim(c.holder)
	if permit != nil {
		c.holder, c.permit = q, permit
		return false, true
	}
	q.resolved = append(q.resolved, waits)
	d.queues.waiting++
	d.queues.push(q)
	loop.Wake(d.kick)
	return true, true
}

// endLookup ends the lookup of a claim. Called with mu held.
func (d *dispatcher) endLookup(c *claim) {
	c.looking = false
	d.lookups.end()
}

// noteLookup reports the outcome of a lookup in the directory that all DIDs share.
func (d *dispatcher) noteLookup(c *claim, o pace.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookups.limiter.Note(o, c.lookPermit, d.now())
}

// release returns the permit of a claim. Unless all is set, it returns only the host's share,
// because only the transfer has ended.
func (d *dispatcher) release(c *claim, all bool) {
	switch {
	case c.permit == nil:
	case all:
		c.permit.Close()
	default:
		c.permit.Leave()
	}
	d.mu.Lock()
	if c.looking {
		d.endLookup(c)
	}
	if d.onlyImports() {
		loop.Wake(d.kickIdle)
	}
	d.mu.Unlock()
	loop.Wake(d.kick)
}

// end removes the DID of a claim from the DIDs in flight. Its permits are already released.
func (d *dispatcher) end(c *claim) {
	d.mu.Lock()
	d.queues.land(c.it.did)
	d.queues.unclaim(c.holder)
	d.mu.Unlock()
	loop.Wake(d.kick)
}
