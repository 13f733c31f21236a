package ingest

import (
	"context"
	"time"

	"cistern/ingest/firehose"
	"cistern/store"
)

// RunFeeds is Run without sockets: it rewinds the feeds and calls started once Send may be called.
func (r *Runner) RunFeeds(ctx context.Context, started func(), feeds ...*firehose.Feed) error {
	return r.runWith(ctx, func(ctx context.Context) error {
		for _, f := range feeds {
			if err := f.Rewind(); err != nil {
				return err
			}
		}
		started()
		<-ctx.Done()
		return nil
	})
}

// Submit hands an event to its shard, as the firehose does.
func (r *Runner) Submit(ctx context.Context, e *firehose.Event) error { return r.submit(ctx, e) }

// Parked is the number of DIDs that wait for tasks.
func (r *Runner) Parked() int { return int(r.parked()) }

// HeavyRecords, ParkedShare and others are limits.
const (
	HeavyRecords   = heavyRecords
	StatusBurst    = statusBurst
	StatusAsk      = statusAsk
	StatusRate     = statusRate
	ParkedShare    = parkedShare
	CollectionsMax = collectionsMax
)

// Budget is that of refetches.
type Budget struct{ b *budget }

// NewBudget makes a budget.
func NewBudget(base time.Duration) Budget { return Budget{newBudget(base)} }

// Spend is the budget's.
func (b Budget) Spend(row *store.Repo, host string, now time.Time) time.Time {
	return b.b.spend(row, host, now)
}

// Hosts is how many hosts it remembers.
func (b Budget) Hosts() int { return len(b.b.hosts.byKey) }

// RefetchHostsMax and RefetchBurst are limits.
const (
	RefetchHostsMax = refetchHostsMax
	RefetchBurst    = refetchBurst
)
