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
	// answering. A single DID whose lookup always fails does not reach this number while other
	// lookups succeed.
	outageFailures = 8
	// outageFor is how long no lookup is made then. Queued lookups fail at once, so that their
	// events do not each wait for a timeout of some seconds.
	outageFor = 5 * time.Second
	// heldKeyMax is the maximum age of a row's key that is used while no directory answers. A
	// stolen former key cannot be used longer than that, even by a thief who keeps the directories
	// from answering.
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

// lasts reports whether the breaker is open: lookups fail at once.
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
// does not count if the document could not be read for a later #identity, which may have announced
// a new key.
func (c *check) signedByHeld(row *store.Repo) bool {
	if row.Resolved == 0 || c.now.Sub(time.Unix(row.Resolved, 0)).Abs() > heldKeyMax {
		return false
	}
	key, err := identity.ParseKey(row.Key)
	return err == nil && c.proof.signed(key) == nil
}

// accept verifies the event by the held key until the document can be read.
func (c *check) accept() need {
	c.l.shard.refreshLater(c.l.did, 1, c.now)
	return needNothing
}

// wantKey decides for which lookup an event waits if the key in its row is old. If the old key
// verifies the event, the key is used after one failed lookup, or without a lookup while the
// directories do not answer. Otherwise the key may have been rotated: the event waits longer for
// the directory, since the alternative is to fetch the whole repository.
func (c *check) wantKey(row *store.Repo) need {
	l := c.l
	l.held = c.signedByHeld(row)
	l.mismatch = !l.held
	if l.held && !l.web() && c.l.shard.r.outage.lasts(c.now) {
		return c.accept()
	}
	return needKey
}
