package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"cistern/backfill/discover"
	"cistern/backup"
	"cistern/ingest/firehose"
	"cistern/maintain"
	"cistern/store"
	"cistern/verify"

	"golang.org/x/sync/errgroup"
)

// newMaintain makes the coordinator of all maintenance. Nothing else prunes or collects garbage.
func (d *daemon) newMaintain() (err error) {
	all, err := d.operations()
	if err != nil {
		return err
	}
	// The store serializes what two of them do to the same rows. A checkpoint keeps tables on the
	// disk, so none is made or copied while compact replaces them all.
	together := []maintain.Pair{{"prune", "gc"}, {"prune", "compact"}, {"gc", "compact"},
		{"prune", "checkpoint"}, {"gc", "checkpoint"},
		{"prune", "backup"}, {"gc", "backup"}, {"checkpoint", "backup"},
		{"verify", "prune"}, {"verify", "gc"}, {"verify", "compact"}, {"verify", "checkpoint"},
		{"verify", "backup"}, {"reconcile", "prune"}, {"reconcile", "gc"}, {"reconcile", "compact"},
		{"reconcile", "checkpoint"}, {"reconcile", "backup"}, {"reconcile", "verify"},
		{"offload", "prune"}, {"offload", "gc"}, {"offload", "compact"}, {"offload", "verify"},
		{"offload", "checkpoint"}, {"offload", "backup"}, {"offload", "reconcile"}}
	// An export reads with short views, and so delays nothing.
	for _, op := range all {
		if op.Name != "export" {
			together = append(together, maintain.Pair{"export", op.Name})
		}
	}
	d.maintain, err = maintain.New(maintain.Options{Operations: all,
		Together: amongst(all, together), Keeper: operationRows{d.store}, Logger: d.log,
		Registerer: d.metrics})
	return err
}

// amongst returns the pairs of operations that exist.
func amongst(all []maintain.Operation, pairs []maintain.Pair) []maintain.Pair {
	return slices.DeleteFunc(pairs, func(p maintain.Pair) bool {
		return slices.ContainsFunc(p[:], func(name string) bool {
			return !slices.ContainsFunc(all, func(op maintain.Operation) bool { return op.Name == name })
		})
	})
}

// operations returns what the coordinator runs.
func (d *daemon) operations() ([]maintain.Operation, error) {
	// A run saves its row twice, and waits for the disk each time: four syncs a minute.
	every := d.store.PruneEvery()
	prune := func(ctx context.Context, p *maintain.Progress) error {
		return d.store.Prune(ctx, p.Set)
	}
	gc := func(ctx context.Context, p *maintain.Progress) error {
		return d.store.CollectGarbage(ctx, p.Set)
	}
	compact := func(ctx context.Context, p *maintain.Progress) error {
		return d.store.Compact(ctx, func(space string, done, total int) {
			p.Set(int64(done), int64(total))
			p.Item(space, 0, 0)
		})
	}
	check, err := d.newVerify()
	if err != nil {
		return nil, err
	}
	all := []maintain.Operation{
		{Name: "prune", Space: maintain.Frees, Every: every, Run: d.watched(prune)},
		{Name: "gc", Space: maintain.Frees, Every: every, Run: d.watched(gc)},
		{Name: "compact", Space: maintain.Consumes, Run: d.watched(compact)},
		{Name: "verify", Run: d.watched(check)},
		{Name: "reconcile", Run: d.watched(d.newReconcile())},
		{Name: "checkpoint", Space: maintain.Consumes,
			Run: func(ctx context.Context, _ *maintain.Progress) error { return d.lender.Run(ctx) }},
	}
	if d.backups != nil {
		all = append(all, maintain.Operation{Name: "backup", Space: maintain.Consumes,
			Every: d.cfg.BackupEvery, Last: d.backups.Last, Run: d.backup})
	}
	if d.archive != nil {
		all = append(all, maintain.Operation{Name: "offload", Space: maintain.Frees,
			Every: offloadEvery,
			Run: d.watched(func(ctx context.Context, p *maintain.Progress) error {
				return d.archive.Offload(ctx, p.Set)
			})})
	}
	if d.exports != nil {
		all = append(all, exportOperation(d))
	}
	return scheduled(all, d.cfg.Schedules, d.cfg.QuietHours), nil
}

// backup is the operation backup. It makes its own checkpoint, which goes when it returns.
func (d *daemon) backup(ctx context.Context, p *maintain.Progress) error {
	return d.backups.Make(ctx, func(b backup.Progress) {
		p.Set(b.Bytes, b.BytesTotal)
		p.Item("files", int64(b.Files), int64(b.FilesTotal))
	})
}

// newVerify returns the operation that compares the store with itself.
func (d *daemon) newVerify() (func(context.Context, *maintain.Progress) error, error) {
	v, err := verify.New(verify.Options{Store: d.store, Share: d.cfg.VerifyShare,
		// newBackfill makes what wake wakes later. Operations run after that.
		Queued: func() { d.wake() }, Logger: d.log, Registerer: d.metrics})
	return func(ctx context.Context, p *maintain.Progress) error {
		return v.Run(ctx, func(did string, done, total int64) {
			p.Set(done, total)
			p.Item(did, 0, 0)
		})
	}, err
}

// newReconcile returns the operation that compares the listings of all hosts and sources with what
// is held. A run that was interrupted continues with what it had not compared, unless the daemon
// was restarted.
func (d *daemon) newReconcile() func(context.Context, *maintain.Progress) error {
	var of *maintain.Progress // of the run that c belongs to
	var c *discover.Comparison
	return func(ctx context.Context, p *maintain.Progress) error {
		if of != p {
			of, c = p, d.discover.NewComparison(d.listings())
		}
		return c.Run(ctx, func(done, total int, waits string) {
			p.Set(int64(done), int64(total))
			p.Item(waits, 0, 0)
		})
	}
}

// listings returns the base URLs at which the listings of sources of events are read.
func (d *daemon) listings() (urls []string) {
	for _, src := range d.sources.Status() {
		urls = append(urls, firehose.Listing(src.URL))
	}
	return urls
}

// watched has the daemon stop when an operation finds the store damaged. Other errors are tried
// again.
func (d *daemon) watched(
	run func(context.Context, *maintain.Progress) error,
) func(context.Context, *maintain.Progress) error {
	return func(ctx context.Context, p *maintain.Progress) error {
		err := run(ctx, p)
		if errors.Is(err, store.ErrCorrupt) {
			select {
			case d.damage <- err:
			default:
			}
		}
		return err
	}
}

func (d *daemon) runMaintenance(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.maintain.Run(ctx) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.damage:
			return err
		}
	})
	return g.Wait()
}

// operationRows keeps the state of operations in the store.
type operationRows struct{ store *store.Store }

func (r operationRows) Load() (rows []maintain.Row, err error) {
	all, err := r.store.Maintenance()
	for _, m := range all {
		rows = append(rows, maintain.Row{Name: m.Name, Began: m.Began, Needs: m.Needs,
			Behind: m.Behind, Next: m.Next, Waiting: m.Waiting, Ended: fromMillis(m.Ended),
			Succeeded: fromMillis(m.Succeeded), Error: m.Error, Failures: m.Failures,
			Due: fromMillis(m.Due)})
	}
	return rows, err
}

func (r operationRows) Save(row maintain.Row) error {
	b := r.store.NewBatch()
	b.PutMaintenance(store.Maintenance{Name: row.Name, Began: row.Began, Needs: row.Needs,
		Behind: row.Behind, Next: row.Next, Waiting: row.Waiting, Ended: millis(row.Ended),
		Succeeded: millis(row.Succeeded), Error: row.Error, Failures: row.Failures,
		Due: millis(row.Due)})
	return b.CommitSync()
}

// millis returns unix milliseconds, 0 for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
