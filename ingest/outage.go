package ingest

import (
	"context"
	"errors"
	"sync"
	"time"

	"cistern/ingest/identity"
	"cistern/store"
)

const (
	// outageFailures is how many lookups in a row must fail before the directories count as not
	// answering. A single DID whose lookup always fails does not reach it while other lookups
	// succeed.
	outageFailures = 8
	// outageFor is how long no further lookup is made after that. Queued lookups fail at once, so
	// that their events do not each wait for a timeout of some seconds.
	outageFor = 5 * time.Second
	// heldKeyMax is the greatest age of a row's key that is used while no directory answers. A
	// former key that was stolen is of no use for longer than that, even if its thief keeps the
	// directories from answering.
	heldKeyMax = 7 * 24 * time.Hour
)

// errOutage is the error of lookups while the directories do not answer.
var errOutage = errors.New("the directories have not answered for a while")

// outage is a circuit breaker for lookups of did:plc: after outageFailures failures in a row it
// opens for outageFor, again and again until a lookup is answered.
type outage struct {
	// mu guards:
	mu       sync.Mutex
	failures int
	until    time.Time
}

// lasts reports whether lookups fail at once now.
func (o *outage) lasts(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return now.Before(o.until)
}

// note counts the result of a lookup.
func (o *outage) note(err error, now time.Time) {
	if errors.Is(err, context.Canceled) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !passing(err) {
		o.failures, o.until = 0, time.Time{}
		return
	}
	if o.failures++; o.failures >= outageFailures {
		o.until = now.Add(outageFor)
	}
}

// signedByHeld reports whether the event is signed by the key that the row holds, which was read
// within heldKeyMax. While no directory answers, such a commit is applied (stale-if-error). The key
// does not count if an #identity came after it whose document could not be read: it may be of a new
// key.
func (c *check) signedByHeld(row *store.Repo) bool {
	if row.Resolved == 0 || c.now.Sub(time.Unix(row.Resolved, 0)).Abs() > heldKeyMax {
		return false
	}
	key, err := identity.ParseKey(row.Key)
	return err == nil && c.proof.signed(key) == nil
}

// accept uses the held key until the document can be read.
func (c *check) accept() need {
	c.l.shard.refreshLater(c.l.did, 1, c.now)
	return needNothing
}

// wantKey decides what an event waits for when the key in its row is old. If that key verifies the
// event, one failed lookup suffices to use it, and none is made while the directories do not
// answer. Otherwise the key may have been rotated: the event waits for the directory longer, since
// the alternative is to fetch the whole repository.
func (c *check) wantKey(row *store.Repo) need {
	l := c.l
	l.held = c.signedByHeld(row)
	l.mismatch = !l.held
	if l.held && !l.web() && c.l.shard.r.outage.lasts(c.now) {
		return c.accept()
	}
	return needKey
}
