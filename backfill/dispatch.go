package backfill

import (
	"context"
	"sync"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/gate"
	"cistern/loop"
	"cistern/store"
)

// dispatcher decides which repository is fetched next. It owns the queues, the DIDs in flight and
// the lookups, and gives out a claim whenever package hosts gives a permit.
type dispatcher struct {
	store       *store.Store
	hosts       *hosts.Table
	gate        *gate.Gate
	concurrency int
	now         func() time.Time

	kick     chan struct{} // wakes run
	kickIdle chan struct{} // imports may be the only work left
	fatal    chan error    // a failure of the store in a callback

	// mu guards:
	mu      sync.Mutex
	queues  queues
	lookups lookups
}

func newDispatcher(opts Options, table *hosts.Table, kick chan struct{}) *dispatcher {
	return &dispatcher{
		store:       opts.Store,
		hosts:       table,
		gate:        opts.Gate,
		concurrency: opts.Concurrency,
		now:         opts.Now,
		kick:        kick,
		kickIdle:    make(chan struct{}, 1),
		fatal:       make(chan error, 1),
		queues:      newQueues(opts.Store, table, kick),
		lookups:     newLookups(opts.Concurrency),
	}
}

// run starts a task whenever there are permits for one, until ctx ends.
func (d *dispatcher) run(ctx context.Context, start func(*claim)) error {
	d.mu.Lock()
	// Tasks of an earlier run that were stopped left their rows pending.
	d.queues.rescanAll, d.queues.scannedAll = true, time.Time{}
	d.mu.Unlock()
	for {
		d.scan()
		for {
			c, err := d.next(ctx)
			if err != nil {
				return loop.Quiet(ctx, err)
			}
			if c == nil {
				break
			}
			start(c)
		}
		if done, err := d.await(ctx); done {
			return err
		}
	}
}

// await waits until a task may be able to start. done means that Run ends.
func (d *dispatcher) await(ctx context.Context) (done bool, err error) {
	t := time.NewTimer(d.idles(d.now()))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return true, nil
	case err := <-d.fatal:
		return true, err
	case <-d.kick:
	case <-t.C:
	}
	return false, nil
}

// stop makes run return an error from a callback.
func (d *dispatcher) stop(err error) {
	select {
	case d.fatal <- err:
	default:
	}
}

// idles returns how long run may sleep if nothing wakes it.
func (d *dispatcher) idles(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unstall(now)
	wait := d.queues.scanIn(now)
	if at := d.hosts.Next(now); !at.IsZero() && !d.gate.IsShut() {
		wait = min(wait, at.Sub(now))
	}
	if d.lookups.limiter.Parked(now) {
		wait = min(wait, d.lookups.limiter.Opens(pace.Fetch, now).Sub(now))
	}
	if debt := d.lookups.moveDebt(now); debt > 0 {
		wait = min(wait, debt)
	}
	return max(wait, 0)
}

// scan offers the queues with rows to pick, as often as it is due (queues.scan).
func (d *dispatcher) scan() {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues.scan(now)
}

// next returns a claim with its permits, or nil if no task can start now.
func (d *dispatcher) next(ctx context.Context) (*claim, error) {
	for ctx.Err() == nil {
		c, refill := d.pick()
		if c != nil || refill == nil {
			return c, nil
		}
		if err := d.refill(ctx, refill); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// pick claims the next repository and takes its permits. If the queue of a host must be read first,
// pick returns that queue instead. Hosts take turns. Repositories whose host is unknown come after
// the repositories of known hosts.
func (d *dispatcher) pick() (c *claim, refill *queue) {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unstall(now)
	if d.gate.IsShut() {
		return nil, nil
	}
	parked := d.lookups.limiter.Parked(now)
	for {
		var it item
		id, permit := d.hosts.Pick(now, func(id uint32) (ok bool) {
			it, ok = d.queues.take(d.queues.of[id], parked)
			return ok
		})
		if id == 0 {
			break
		}
		q := d.queues.of[id]
		switch {
		case permit != nil:
			d.queues.push(q)
			return &claim{it: it, holder: q, permit: permit, lookPermit: d.lookups.limiter.Mark()}, nil
		case q == nil:
		case parked:
			d.queues.stall(q)
		case q.more:
			return nil, q
		default:
			d.queues.drop(q)
		}
	}
	return d.pickUnresolved(now)
}

// pickUnresolved starts a lookup for a repository whose host is unknown. There may be more lookups
// than free permits, but not many more: a repository whose host turns out to be busy must be
// written to the queue of that host. Called with mu held.
func (d *dispatcher) pickUnresolved(now time.Time) (c *claim, refill *queue) {
	q := d.queues.of[0]
	if q == nil || !d.lookups.limiter.Open(pace.Fetch, now) || d.lookups.moveDebt(now) > 0 {
		return nil, nil
	}
	if d.hosts.Free() == 0 && d.lookups.running+d.queues.waiting >= d.concurrency {
		return nil, nil
	}
	it, ok := d.queues.take(q, false)
	if ok {
		return &claim{it: it, holder: q, lookPermit: d.lookups.begin(now), looking: true}, nil
	}
	if q.more {
		return nil, q
	}
	d.queues.drop(q)
	return nil, nil
}

// unstall returns stalled hosts to pick once lookups are no longer parked. Called with mu held.
func (d *dispatcher) unstall(now time.Time) {
	if !d.lookups.limiter.Parked(now) {
		d.queues.unstall()
	}
}

// refill reads the next rows of a host's queue. Rows in flight come first in the queue, so the more
// are in flight, the more rows are read at once.
func (d *dispatcher) refill(ctx context.Context, q *queue) error {
	d.mu.Lock()
	q.more, q.reading = false, true // a row that is enqueued after this sets more again
	ahead := q.claimed
	if q.host == 0 {
		// Repositories whose host was found stay in this queue until they are done.
		ahead = len(d.queues.flights.inflight)
	}
	n := min(max(ahead/2, readyMin), readyMax)
	d.mu.Unlock()
	ready := q.ready[:0:0]
	full := false
	err := d.store.ScanPending(ctx, q.host, func(k store.PendingKey, did string) bool {
		if k.Host != q.host {
			return false
		}
		if d.busy(did, k) {
			return true
		}
		if len(ready) == n {
			full = true
			return false
		}
		ready = append(ready, item{did: did, key: k})
		return true
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	q.ready, q.reading = ready, false
	q.more = q.more || full
	d.queues.push(q)
	d.queues.drop(q)
	return hosts.OfStore(err)
}

// busy reports whether a row of the queue is in flight (flights.busy).
func (d *dispatcher) busy(did string, k store.PendingKey) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queues.flights.busy(did, k)
}

// idle reports whether imports that wait to be flipped are the only work left.
func (d *dispatcher) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.onlyImports()
}

// onlyImports is idle for callers that hold mu.
func (d *dispatcher) onlyImports() bool {
	return d.hosts.Free() == d.concurrency && d.lookups.running == 0 && d.queues.syncing() > 0
}

// enqueued makes the next scan read the front of each queue.
func (d *dispatcher) enqueued() {
	d.mu.Lock()
	d.queues.rescan, d.queues.rescanAll = true, true
	d.mu.Unlock()
	loop.Wake(d.kick)
}

// note wakes run because the queue of a host received rows, or kept the row of a task that ended.
func (d *dispatcher) note(id uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queues.lookInto(id)
}

// hostChanged applies changed settings of a host to its queue.
func (d *dispatcher) hostChanged(id uint32) {
	d.mu.Lock()
	if q := d.queues.of[id]; q != nil {
		if d.hosts.Banned(id) {
			d.queues.returnResolved(q)
		}
		d.queues.push(q)
	}
	d.mu.Unlock()
	loop.Wake(d.kick)
}

// syncing returns the number of DIDs in flight that do not wait for a permit.
func (d *dispatcher) syncing() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queues.syncing()
}

// waiting returns the number of resolved repositories that wait in memory for a permit.
func (d *dispatcher) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queues.waiting
}

// inFlight reports whether a task of did is in flight.
func (d *dispatcher) inFlight(did string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queues.flights.has(did)
}

// fetchedBy returns the filter in force, and records that a DID in flight is fetched by it.
func (d *dispatcher) fetchedBy(did string) store.FilterVersion {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.store.Filter() // under mu, so that worksBefore sees every task that read an older filter
	d.queues.flights.versions[did] = f.Version
	return f
}

// worksBefore reports whether a task in flight uses a filter older than version.
func (d *dispatcher) worksBefore(version uint32) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range d.queues.flights.versions {
		if v < version {
			return true
		}
	}
	return false
}
