package ingest

import (
	"context"
	"fmt"
	"hash/maphash"

	"cistern/ingest/firehose"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// Runner applies the events of firehoses.
type Runner struct {
	opts   Options
	store  *store.Store
	budget *budget
	tally  *tally
	shards []*shard
	seed   maphash.Seed

	lookups   tasks // for DIDs whose documents a directory has
	rereading tasks // the same, because of an #identity
	webs      tasks // for DIDs whose documents are at hosts that anyone may run (did:web)
	heavy     tasks // account events that change many records
	rereads   *rereads
	outage    outage
}

// New makes a Runner. Nothing happens before Run.
func New(opts Options) (*Runner, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("ingest options: %w", err)
	}
	r := &Runner{opts: opts, store: opts.Store, budget: newBudget(opts.RefetchBase),
		rereads: newRereads(opts.RefetchBase), seed: maphash.MakeSeed()}
	for _, e := range []*tasks{&r.lookups, &r.rereading, &r.webs, &r.heavy} {
		e.kick = make(chan struct{}, 1)
	}
	for range opts.Shards {
		r.shards = append(r.shards, newShard(r))
	}
	var err error
	if r.tally, err = newTally(opts.Registerer, r); err != nil {
		return nil, fmt.Errorf("register ingest metrics: %w", err)
	}
	return r, nil
}

// Run works until ctx ends, and returns when all goroutines that it started have returned. Events
// read before that have been handled by then, or will be read again. An error means that the store
// failed. Run may be called again.
//
// It stops in the order in which events pass: sources stop reading, shards handle what was read,
// and the last batches become durable. Events that wait for the network are dropped: no cursor has
// passed them.
func (r *Runner) Run(ctx context.Context) error {
	return r.runWith(ctx,
		func(ctx context.Context) error { return r.opts.Firehose.Run(ctx, r.submit) })
}

func (r *Runner) runWith(ctx context.Context, read func(context.Context) error) error {
	err := r.run(ctx, read)
	r.lookups.clear()
	r.rereading.clear()
	r.webs.clear()
	r.heavy.clear()
	for _, s := range r.shards {
		s.abandon()
	}
	if err == nil {
		err = r.opts.Firehose.Save()
	}
	return err
}

func (r *Runner) run(ctx context.Context, read func(context.Context) error) error {
	if err := r.findDraining(nil); err != nil {
		return err
	}
	g, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	reading, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(failed, stop)()
	ended := make(chan struct{})
	g.Go(func() error {
		defer close(ended)
		return read(reading)
	})
	for _, s := range r.shards {
		waits := make(chan func() error, waitsMax)
		g.Go(func() error {
			defer close(waits)
			return s.run(failed, ended, waits)
		})
		g.Go(func() error { return settle(failed, waits) })
	}
	for range r.opts.Lookups {
		g.Go(func() error { return r.lookups.work(reading, r.lookUp) })
	}
	for range max(1, r.opts.Lookups/rereadShare) {
		g.Go(func() error { return r.rereading.work(reading, r.lookUp) })
	}
	for range max(1, r.opts.Lookups/websShare) {
		g.Go(func() error { return r.webs.work(reading, r.lookUp) })
	}
	for range heavyMax {
		g.Go(func() error { return r.heavy.work(reading, r.doHeavy) })
	}
	return g.Wait()
}

// settle waits for batches to be durable, in their order. Readers see their events from then on.
func settle(ctx context.Context, waits <-chan func() error) error {
	for {
		select {
		case wait, ok := <-waits:
			if !ok {
				return nil
			}
			if err := wait(); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// submit hands an event to the shard of its DID. It waits while the shard's queue is full, and
// fails only when ctx ends.
func (r *Runner) submit(ctx context.Context, e *firehose.Event) error {
	select {
	case r.shardOf(e.Frame.DID).queue <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Runner) shardOf(did string) *shard {
	return r.shards[maphash.String(r.seed, did)%uint64(len(r.shards))]
}

// Drain reports to the shard that did's row became draining. It never blocks; without it the next
// event or the next Run finds the row.
func (r *Runner) Drain(did string) { r.shardOf(did).drainSoon(did) }

// findDraining reports all draining rows to the shards, or to one of them.
func (r *Runner) findDraining(only *shard) error {
	dids, err := r.store.Draining()
	if err != nil {
		return err
	}
	for _, did := range dids {
		if s := r.shardOf(did); only == nil || only == s {
			s.drainSoon(did)
		}
	}
	return nil
}

// queued returns the number of events that wait in shards.
func (r *Runner) queued() float64 {
	n := 0
	for _, s := range r.shards {
		n += len(s.queue)
	}
	return float64(n)
}

// parked returns the number of DIDs whose events wait for the network.
func (r *Runner) parked() float64 {
	n := int64(0)
	for _, s := range r.shards {
		n += s.parked.Load()
	}
	return float64(n)
}
