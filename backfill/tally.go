package backfill

import (
	"context"
	"time"

	"cistern/backfill/pace"
	"cistern/store"
)

// tally is what we have learnt of a host since it was written last.
type tally struct {
	dirty bool
	bytes int64     // received
	repos int64     // fetched
	err   string    // of the last failure
	seen  time.Time // when it answered in order last
}

// noted keeps what a request says of its host.
func (y *tally) noted(v verdict, now time.Time) {
	switch {
	case v.err != nil && (v.fault != noFault || v.park > 0 || v.kind == store.RateLimited && !v.lookup):
		y.err, y.dirty = clipped(v.err.Error()), true
	case v.spoke:
		y.seen, y.dirty = now, true
	}
}

func (y *tally) received(bytes int64) {
	if bytes > 0 {
		y.bytes += bytes
		y.dirty = true
	}
}

// fetched counts what a request of the task has brought.
func (t *task) fetched(bytes, repos int64) {
	if t.host == nil {
		return
	}
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	t.host.tally.received(bytes)
	t.host.tally.repos += repos
}

// noteHosts writes what was learnt of hosts now and then, and at the end.
func (r *Runner) noteHosts(ctx context.Context) error {
	for ctx.Err() == nil {
		sleep(ctx, hostsNoted, nil)
		if err := r.writeTallies(); err != nil {
			return quiet(ctx, ours(err))
		}
	}
	return nil
}

func (r *Runner) writeTallies() error {
	dirty := map[uint32]tally{}
	var ids []uint32
	failing := map[uint32]time.Time{}
	now := r.opts.Now()
	r.mu.Lock()
	for id, h := range r.hosts {
		if h.tally.dirty && id != 0 {
			ids = append(ids, id)
			dirty[id], failing[id] = h.tally, h.View(now).FailingSince
			h.tally = tally{}
		}
	}
	r.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	return r.store.NoteHosts(ids, func(id uint32, row *store.HostRow) {
		y := dirty[id]
		row.Bytes += y.bytes
		row.Repos += y.repos
		row.Error = defaultTo(y.err, row.Error)
		row.LastSeen = max(row.LastSeen, unixSeconds(y.seen))
		row.Failing = unixSeconds(failing[id])
	})
}

// HostStanding is how a host stands right now.
type HostStanding struct {
	pace.View
	Bytes, Repos int64  // learnt since they were written last
	Error        string // "" for none since
}

// HostStanding is how the host with that id stands. Safe for concurrent use.
func (r *Runner) HostStanding(id uint32) HostStanding {
	now := r.opts.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.hosts[id]; h != nil {
		return HostStanding{View: h.View(now), Bytes: h.tally.bytes, Repos: h.tally.repos, Error: h.tally.err}
	}
	var l pace.Limiter // of a host that nothing is asked of
	l.Configure(r.limitsOf(id))
	return HostStanding{View: l.View(now)}
}

// HostChanged has what is set for a host obeyed from now on.
func (r *Runner) HostChanged(id uint32) {
	now := r.opts.Now()
	r.mu.Lock()
	if h := r.hosts[id]; h != nil {
		r.configure(h)
		if h.Banned() {
			r.clearRoom(h)
		}
		r.serve(h, now)
		r.push(h)
		r.sched.Reconsider(&h.Host, now)
	}
	r.mu.Unlock()
	signal(r.kick)
	for _, c := range r.crawls.all() {
		c.look(id)
	}
}
