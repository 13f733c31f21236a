package backfill

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/store"
)

// What a failed attempt says about its host.
type fault = pace.Fault

const (
	noFault   = pace.NoFault
	softFault = pace.SoftFault
	hardFault = pace.HardFault
)

// ending is how a task ends.
type ending uint8

const (
	endRetry ending = iota // resync row, due later
	endGone                // not to be had
	endStale               // others have changed the row: theirs to say
	endStop                // told to end: the row stays as it is
	endLater               // the host is not to be asked now: it stays in its queue
	endFatal               // the store failed
)

// verdict is what follows from the outcome of an attempt.
type verdict struct {
	ending ending
	kind   store.ErrorKind // endRetry
	status store.Status    // endGone
	park   time.Duration   // the host asked for that much
	fault  fault           // what it says of the host
	spoke  bool            // the host answered in order
	wait   time.Duration   // not to be retried earlier
	lookup bool            // it was no host that failed, but the way to find out which

	absent    bool  // the directory has no document of the DID, or a tombstone
	nobody    bool  // no document says where the repository is: only a change of that helps
	refused   bool  // the host sent a copy that is of no use, and is likely to send it again
	congested bool  // the host was asked too much at a time
	err       error // what it follows from, nil for none
}

// classify is the one place where a failure becomes a kind, a parking and a delay.
func classify(ctx context.Context, err error, now time.Time) verdict {
	v := verdictOf(ctx, err, now)
	v.err = err
	return v
}

func verdictOf(ctx context.Context, err error, now time.Time) verdict {
	var busy *hosts.BusyError
	var answer *hosts.AnswerError
	var resolve *hosts.ResolveError
	var failure *storeError
	switch {
	case errors.As(err, &failure):
		if ctx.Err() != nil {
			return verdict{ending: endStop}
		}
		return verdict{ending: endFatal}
	case errors.Is(err, store.ErrStale):
		return verdict{ending: endStale}
	case ctx.Err() != nil:
		return verdict{ending: endStop}
	case errors.As(err, &busy), errors.Is(err, hosts.ErrBanned):
		return verdict{ending: endLater}
	case errors.As(err, &resolve):
		return classifyResolve(err, now)
	case errors.As(err, &answer):
		return classifyAnswer(answer)
	case errors.Is(err, fetch.ErrNotCAR):
		return verdict{kind: store.Generic, spoke: true}
	case errors.Is(err, repo.ErrInvalid) && !fetch.Broken(err):
		return verdict{kind: store.Generic, spoke: true, refused: true}
	case errors.Is(err, hosts.ErrRedirect), errors.Is(err, identity.ErrPrivateAddress), errors.Is(err, fetch.ErrSpool), errors.Is(err, fetch.ErrIndex):
		return verdict{kind: store.Generic}
	case errors.Is(err, fetch.ErrSlow), errors.Is(err, fetch.ErrSilent), errors.Is(err, fetch.ErrTimeout):
		return verdict{kind: store.Transport, fault: softFault, congested: true, refused: errors.Is(err, fetch.ErrTimeout)}
	case errors.Is(err, fetch.ErrCrowded):
		return verdict{kind: store.Transport}
	case fetch.Broken(err):
		return verdict{kind: store.Transport, fault: softFault}
	}
	return verdict{kind: store.Transport, fault: hardFault}
}

// classifyResolve: the DID's host could not be found out. What follows, follows for other lookups.
func classifyResolve(err error, now time.Time) verdict {
	var limited *identity.RateLimitError
	switch {
	case errors.As(err, &limited):
		d := min(max(limited.Until.Sub(now), parkMin), parkMax)
		return verdict{kind: store.RateLimited, park: d, wait: d, lookup: true}
	case errors.Is(err, identity.ErrRateLimited):
		return verdict{kind: store.RateLimited, park: parkMin, lookup: true}
	case errors.Is(err, identity.ErrNotFound):
		return verdict{kind: store.Generic, lookup: true, nobody: true, absent: true}
	case errors.Is(err, identity.ErrInvalid), errors.Is(err, identity.ErrPrivateAddress):
		return verdict{kind: store.Generic, lookup: true, nobody: true}
	}
	return verdict{kind: store.Transport, fault: hardFault, lookup: true}
}

// classifyAnswer: the host answered, but not with a repository. A 404 without the XRPC error
// comes from something that is no PDS (a proxy, a parked domain) and says nothing about the account.
func classifyAnswer(e *hosts.AnswerError) verdict {
	o := e.Outcome()
	v := verdict{fault: o.Fault, spoke: o.Answered, park: o.Park, wait: e.Delay()}
	switch {
	case e.Code == http.StatusTooManyRequests:
		v.kind = store.RateLimited
		return v
	case e.Code >= http.StatusInternalServerError:
		v.kind = store.Transport
		return v
	}
	switch e.Name {
	case "RepoNotFound":
		return verdict{ending: endGone, status: store.StatusNotFound, spoke: true}
	case "RepoTakendown":
		return verdict{ending: endGone, status: store.StatusTakendown, spoke: true}
	case "RepoSuspended":
		return verdict{ending: endGone, status: store.StatusSuspended, spoke: true}
	case "RepoDeactivated":
		return verdict{ending: endGone, status: store.StatusDeactivated, spoke: true}
	}
	return verdict{kind: store.Generic, spoke: true}
}

// outcome is what a request shows about its host.
func (v verdict) outcome() pace.Outcome {
	return pace.Outcome{Fault: v.fault, Answered: v.spoke, Congested: v.congested, Park: v.park}
}

// failure is what is shown as the last failure of the host, "" for none.
func (v verdict) failure() string {
	if v.err == nil || v.fault == noFault && v.park == 0 && (v.kind != store.RateLimited || v.lookup) {
		return ""
	}
	return v.err.Error()
}

// judge tells the host of a task what its attempt says of it, or the lookups what a failed one
// says of them: those of did:plc share a directory, those of did:web are up to the DID's own host.
func (r *Runner) judge(t *task, v verdict) {
	switch {
	case v.lookup && !strings.HasPrefix(t.it.did, didWeb):
		r.mu.Lock()
		defer r.mu.Unlock()
		r.lookups.Note(v.outcome(), t.lookPermit, r.opts.Now())
	case t.permit != nil:
		t.permit.Note(v.outcome(), v.failure())
	}
}

// delay is how long to wait after so many failures in a row.
func (r *Runner) delay(count uint32) time.Duration { return r.delayUpTo(count, r.opts.RetryMax) }

func (r *Runner) delayUpTo(count uint32, most time.Duration) time.Duration {
	d := r.opts.RetryBase
	for i := uint32(1); i < count && d < most; i++ {
		d *= 2
	}
	return r.jitter(min(d, most))
}

// jitter moves d by up to a tenth either way, so that what failed together does not return together.
func (r *Runner) jitter(d time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Duration(float64(d) * (0.9 + 0.2*r.rand.Float64()))
}
