package backfill

import (
	"time"

	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"
)

// item is a pending repository on its way to a task.
type item struct {
	did    string
	key    store.PendingKey
	ident  *identity.Identity // looked up for this place in the queue; nil: not yet
	looked time.Time          // when
	marks  identityMarks      // of the row, before
}

// What a failed attempt says about its host.
type fault = pace.Fault

const (
	noFault   = pace.NoFault
	softFault = pace.SoftFault
	hardFault = pace.HardFault
)

// host is what waits for a PDS, and what we know of it. Runner.mu guards it, except where the dispatcher owns it.
type host struct {
	pace.Host
	claimed int       // DIDs in flight, those that only wait for their import to be flipped too
	room    []item    // resolved, waiting for a permit; in flight already
	more    bool      // its queue may hold rows that are not in ready
	reading bool      // its queue is being read
	stalled bool      // is in Runner.stalled
	waiters []*waiter // for a permit of the host alone
	tally   tally     // what is to be written of it

	ready []item // owned by the dispatcher: read ahead from its queue
}

func (h *host) hasWork() bool { return len(h.room) > 0 || len(h.ready) > 0 || h.more }

// idle says whether forgetting it loses nothing but its history.
func (h *host) idle(now time.Time) bool {
	return h.Idle(now) && h.claimed == 0 && !h.hasWork() && !h.reading && !h.stalled && len(h.waiters) == 0 && !h.tally.dirty
}
