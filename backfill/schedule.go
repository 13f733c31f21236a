package backfill

import (
	"context"
	"errors"
	"net/http"
	"time"

	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/store"
)

// fault is what a failed attempt shows about its host.
type fault = pace.Fault

const (
	noFault   = pace.NoFault
	softFault = pace.SoftFault
	hardFault = pace.HardFault
)

// ending is how a task ends.
type ending uint8

const (
	endRetry ending = iota // the row waits in state resync
	endGone                // the repository is unavailable
	endStale               // another caller changed the row, and decides its state
	endStop                // ctx ended: the row stays as it is
	endLater               // the host must not be asked now: the row stays in its queue
	endFatal               // the store failed
)

// verdict is the consequence of the outcome of an attempt.
type verdict struct {
	ending ending
	kind   store.ErrorKind // endRetry
	status store.Status    // endGone
	park   time.Duration   // the pause that the host asked for
	fault  fault           // what the attempt shows about the host
	spoke  bool            // the host answered as expected
	wait   time.Duration   // the shortest delay before a retry
	lookup bool            // the lookup of the host failed, not the host

	absent    bool  // the directory has no document of the DID, or a tombstone
	noHost    bool  // no document names a host: retries fail until a document does
	refused   bool  // the host sent an invalid copy, and is likely to send it again
	congested bool  // the host received too many requests at a time
	err       error // the error of the attempt, nil for none
}

// classify maps the error of a task to a kind, a pause and a delay. It is the only code that does.
func classify(ctx context.Context, err error, now time.Time) verdict {
	v := verdictOf(ctx, err, now)
	v.err = err
	return v
}

func verdictOf(ctx context.Context, err error, now time.Time) verdict {
	var busy *hosts.BusyError
	var answer *hosts.AnswerError
	var resolve *hosts.ResolveError
	switch {
	case hosts.IsOfStore(err):
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
	case errors.Is(err, hosts.ErrRedirect), errors.Is(err, identity.ErrPrivateAddress),
		errors.Is(err, fetch.ErrSpool), errors.Is(err, fetch.ErrIndex):
		return verdict{kind: store.Generic}
	case errors.Is(err, fetch.ErrSlow), errors.Is(err, fetch.ErrSilent),
		errors.Is(err, fetch.ErrTimeout):
		return verdict{kind: store.Transport, fault: softFault, congested: true,
			refused: errors.Is(err, fetch.ErrTimeout)}
	case errors.Is(err, fetch.ErrCrowded):
		return verdict{kind: store.Transport}
	case fetch.Broken(err):
		return verdict{kind: store.Transport, fault: softFault}
	}
	return verdict{kind: store.Transport, fault: hardFault}
}

// classifyResolve maps the error of a lookup. Its consequences apply to later lookups, not to a
// host.
func classifyResolve(err error, now time.Time) verdict {
	var limited *identity.RateLimitError
	switch {
	case errors.As(err, &limited):
		d := min(max(limited.Until.Sub(now), parkMin), parkMax)
		return verdict{kind: store.RateLimited, park: d, wait: d, lookup: true}
	case errors.Is(err, identity.ErrRateLimited):
		return verdict{kind: store.RateLimited, park: parkMin, lookup: true}
	case errors.Is(err, identity.ErrNotFound):
		return verdict{kind: store.Generic, lookup: true, noHost: true, absent: true}
	case errors.Is(err, identity.ErrInvalid), errors.Is(err, identity.ErrPrivateAddress):
		return verdict{kind: store.Generic, lookup: true, noHost: true}
	}
	return verdict{kind: store.Transport, fault: hardFault, lookup: true}
}

// classifyAnswer maps an answer of the host that is not a repository. A 404 without the XRPC error
// comes from a server that is not a PDS (a proxy, a parked domain), and shows nothing about the
// account.
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

// delayMax returns the longest delay before a retry. It is most, or longer if an attempt is likely
// to fail again.
func (v verdict) delayMax(row *store.Repo, most time.Duration) time.Duration {
	switch {
	case v.noHost && row.Ordinal == 0:
		// Lists can invent names at no cost, and each attempt asks the shared directory.
		return max(most, goneRecheckMax)
	case v.refused:
		return max(most, goneRecheck)
	}
	return most
}

// outcome returns what the attempt shows about the host.
func (v verdict) outcome() pace.Outcome {
	return pace.Outcome{Fault: v.fault, Answered: v.spoke, Congested: v.congested, Park: v.park}
}

// failure returns the text that is shown as the last failure of the host, "" for none.
func (v verdict) failure() string {
	if v.err == nil || v.fault == noFault && v.park == 0 && (v.kind != store.RateLimited || v.lookup) {
		return ""
	}
	return v.err.Error()
}

// judge reports the verdict to the host of the claim. If a lookup failed, it reports to the limiter
// of lookups instead: lookups of did:plc share a directory, while a did:web depends on its own
// host.
func (d *dispatcher) judge(c *claim, v verdict) {
	switch {
	case v.lookup && sharesDirectory(c.it.did):
		d.noteLookup(c, v.outcome())
	case c.permit != nil:
		c.permit.Note(v.outcome(), v.failure())
	}
}

// delay returns how long to wait after count consecutive failures.
func (r *Runner) delay(count uint32) time.Duration { return r.delayUpTo(count, r.opts.RetryMax) }

func (r *Runner) delayUpTo(count uint32, most time.Duration) time.Duration {
	d := r.opts.RetryBase
	for i := uint32(1); i < count && d < most; i++ {
		d *= 2
	}
	return r.jitter.Vary(min(d, most))
}
