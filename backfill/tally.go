package backfill

import "time"

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
	case v.err != nil && (v.fault != noFault || v.park > 0):
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
