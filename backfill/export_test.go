package backfill

import (
	"context"
	"errors"
	"net/http"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/filter"
	"cistern/store"
)

// Permits returns the number of free global permits, and of all permits held.
func Permits(r *Runner) (free, taken int) {
	all, _, err := r.store.Hosts("", 1<<20, func(h *store.Host) bool { return h.ID != 0 })
	if err != nil {
		panic(err)
	}
	for _, h := range all {
		taken += r.hosts.Standing(h.ID).Running
	}
	r.dispatcher.mu.Lock()
	defer r.dispatcher.mu.Unlock()
	free = r.hosts.Free()
	return free, taken + r.opts.Concurrency - free + r.dispatcher.lookups.running
}

// LookupsParked returns how long no lookup may begin.
func LookupsParked(r *Runner) time.Duration {
	now := r.opts.Now()
	r.dispatcher.mu.Lock()
	defer r.dispatcher.mu.Unlock()
	return r.dispatcher.lookups.limiter.Opens(pace.Fetch, now).Sub(now)
}

// Memory returns the bytes in use of the budgets.
func Memory(r *Runner) (bodies, spools int64) {
	bodies, spools, indexes := r.copier.Taken()
	return bodies + indexes, spools
}

// ScannedAll returns when the dispatcher last scanned all queues.
func ScannedAll(r *Runner) time.Time {
	r.dispatcher.mu.Lock()
	defer r.dispatcher.mu.Unlock()
	return r.dispatcher.queues.scannedAll
}

// Delay returns the time until the next attempt after so many failures.
func Delay(r *Runner, count uint32) time.Duration { return r.delay(count) }

// Refuse makes a host answer a request with a pause.
func Refuse(r *Runner, host uint32, wait time.Duration) error {
	p, _ := r.hosts.Acquire(host)
	if p == nil {
		return errors.New("no permit")
	}
	defer p.Close()
	e := &hosts.AnswerError{Code: http.StatusTooManyRequests, Wait: wait}
	p.Note(e.Outcome(), e.Error())
	return nil
}

// Scan scans the queues that are due for a scan.
func Scan(r *Runner) { r.dispatcher.scan() }

// Rescan scans all queues.
func Rescan(r *Runner) {
	r.dispatcher.mu.Lock()
	r.dispatcher.queues.rescanAll, r.dispatcher.queues.scannedAll = true, time.Time{}
	r.dispatcher.mu.Unlock()
	r.dispatcher.scan()
}

// GoneDelay returns how long the host of an account is not asked that has been gone for some time.
func GoneDelay(gone time.Duration) time.Duration { return goneDelay(gone) }

// Look makes the loops that start tasks look at all queues and due rows, whenever they last did.
// When it returns, they have begun the work that they found.
func Look(ctx context.Context, r *Runner) error {
	if err := goRound(ctx, r.retries.kick); err != nil {
		return err
	}
	return LookAtQueues(ctx, r)
}

// LookAtQueues is Look without the due rows.
func LookAtQueues(ctx context.Context, r *Runner) error {
	r.dispatcher.mu.Lock()
	r.dispatcher.queues.rescan, r.dispatcher.queues.scanned = true, time.Time{}
	r.dispatcher.queues.rescanAll, r.dispatcher.queues.scannedAll = true, time.Time{}
	r.dispatcher.mu.Unlock()
	return goRound(ctx, r.dispatcher.kick)
}

// goRound wakes a loop until one whole round has passed. The channel holds one signal: when a third
// is accepted, the loop has received the first and the second, and a round lay between them.
func goRound(ctx context.Context, kick chan<- struct{}) error {
	for range 3 {
		select {
		case kick <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Idles returns how long the dispatcher would wait now.
func Idles(r *Runner) time.Duration { return r.dispatcher.idles(r.opts.Now()) }

// Blame returns the kind of a failure, and whether it counts against the host.
func Blame(ctx context.Context, err error) (kind store.ErrorKind, blamed bool) {
	v := classify(ctx, err, time.Now())
	return v.kind, v.fault != noFault || v.park > 0
}

// PlanOf returns what an attempt asks the host for, in order.
func PlanOf(row *store.Repo, by store.FilterVersion,
	filterAt func(selection uint32) (*filter.Filter, error), whole func(did string) bool) []string {
	p := planOf(row, by, filterAt, whole)
	if p.status {
		return []string{"status"}
	}
	var asks []string
	if p.latest {
		asks = append(asks, "latest")
	}
	if p.collections {
		asks = append(asks, "collections")
	}
	return append(asks, "copy")
}

// Decision is a decision without its text.
type Decision struct {
	Hidden, Wiped bool
	Status        store.Status
	Origin        store.Origin
}

// DecideMissing returns what is done about an account whose repository is not found.
func DecideMissing(row *store.Repo, absent bool, age time.Duration) Decision {
	d := decideMissing(row, absent, age)
	return Decision{d.hidden, d.wiped, d.status, d.origin}
}
