package refilter

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"cistern/loop"
	"cistern/store"
)

// pass reads all rows in order of DID, in as many rounds as it takes. The first round makes the
// changes that are possible at once, and queues fetches while the backlog is not full; later rounds
// wait for the backlog. The last round is one that leaves nothing to do, and during which no task
// uses an older filter.
type pass struct {
	r         *Runner
	filter    store.FilterVersion
	relations map[uint32]Relation // differences between the selections that rows name and filter's
	unrelated error               // why relation failed
	named     map[uint32]bool     // selections that rows named in this round
	oldest    uint32              // rows that name an older selection are moved to filter's
	left      int                 // repositories left to the next round
	patient   bool                // waits while the backlog is full
	backlog   backlog
	rounds    int
	waits     waits
	counts    counts
	counted   counts // the counts that the metrics include
}

type counts struct {
	scanned, swept, queued, dropped int64
}

// cursor returns the position of the pass; asked is false if no pass is requested or running.
func (p *pass) cursor() (at store.RefilterCursor, asked bool, err error) {
	return p.r.store.RefilterCursor()
}

// run continues from the cursor until the pass is over.
func (p *pass) run(ctx context.Context) error {
	*p = pass{r: p.r, backlog: newBacklog()}
	log := p.r.opts.Logger
	for resumed := true; p.r.opts.Gate.Pass(ctx); resumed = false {
		at, asked, err := p.cursor()
		if err != nil || !asked {
			return err
		}
		anew := !at.Begun
		if anew {
			// The changed filter is in force only after SetFilter releases the lock that move
			// takes.
			if _, err := p.move(at, "", false); err != nil {
				return err
			}
			*p = pass{r: p.r, backlog: p.backlog}
			at.Begun = true
		}
		if resumed || at.After == "" {
			p.begin()
		}
		switch {
		case anew:
			log.Log(ctx, p.level(), "refiltering begins", "version", p.filter.Version)
		case resumed:
			p.left++ // the round may have left work before the restart
			log.Info("refiltering goes on", "version", p.filter.Version, "cursor", at.After)
		}
		ended, err := p.page(ctx, at)
		if err != nil {
			return err
		}
		if ended {
			log.Log(ctx, p.level(), "refiltering ended", "version", p.filter.Version,
				"scanned", p.counts.scanned, "swept", p.counts.swept,
				"queued", p.counts.queued, "dropped", p.counts.dropped)
			return nil
		}
	}
	return nil
}

// level returns the level of log lines: Debug for a pass over an empty store, as when the first
// filter is set.
func (p *pass) level() slog.Level {
	if p.counts.scanned == 0 && p.r.store.Counts()["repos"] == 0 {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// begin starts a round.
func (p *pass) begin() {
	p.filter, p.left = p.r.store.Filter(), 0
	p.relations, p.unrelated, p.named = map[uint32]Relation{}, nil, map[uint32]bool{}
	p.oldest = 0
	if kept := p.r.store.Selections(); len(kept) > selectionsKept {
		p.oldest = kept[len(kept)-selectionsKept]
	}
	p.backlog.reset()
	if p.r.opts.WorksBefore(p.filter.Version) {
		p.left++
	}
}

// page handles one page of rows, and reports whether the pass is over.
func (p *pass) page(ctx context.Context, at store.RefilterCursor) (ended bool, err error) {
	rows, next, err := p.r.store.Repos(at.After, pageRows, p.concerns)
	if err := errors.Join(err, p.unrelated); err != nil {
		return false, err
	}
	for i := range rows {
		if !p.r.opts.Gate.Pass(ctx) || p.r.store.Filter().Version != p.filter.Version {
			return false, p.settle(nil) // paused until ctx ended, or the filter was changed
		}
		if err := errors.Join(p.visit(ctx, rows[i].DID), p.waits.bound()); err != nil {
			return false, p.settle(err)
		}
	}
	p.count()
	if err := p.settle(nil); err != nil {
		return false, err
	}
	switch {
	case next != "":
		_, err = p.move(at, next, false)
	case p.left == 0:
		if err := p.dropSelections(); err != nil {
			return false, err
		}
		return p.move(at, "", true)
	default:
		p.r.opts.Logger.Debug("a round of refiltering is over",
			"version", p.filter.Version, "left", p.left)
		p.patient = true
		if _, err = p.move(at, "", false); err == nil {
			p.pause(ctx)
		}
	}
	return false, err
}

// dropSelections deletes the selections that no row names. It follows a round that read all rows
// and left none for later: tasks have used the filter in force since that round began, so no row
// can begin to name an older selection. After a crash the next pass deletes them.
func (p *pass) dropSelections() error {
	dropped, err := p.r.store.DropSelections(p.filter.Selection, p.named)
	if dropped > 0 {
		p.r.opts.Logger.Debug("earlier filters that no repository names were deleted", "filters", dropped)
	}
	return err
}

// count adds the results of a page to the metrics.
func (p *pass) count() {
	p.r.metrics.repos.WithLabelValues(resultSwept).Add(float64(p.counts.swept - p.counted.swept))
	p.r.metrics.repos.WithLabelValues(resultQueued).Add(float64(p.counts.queued - p.counted.queued))
	p.r.metrics.repos.WithLabelValues(resultDropped).Add(float64(p.counts.dropped - p.counted.dropped))
	p.counted = p.counts
}

// settle waits until all changes are durable.
func (p *pass) settle(err error) error {
	return errors.Join(err, p.waits.settle())
}

// move advances the cursor once the changes of its page are durable: repeating a page after a crash
// changes nothing. If the filter was changed meanwhile, the store has a new cursor, and the pass
// begins anew.
func (p *pass) move(at store.RefilterCursor, after string, drop bool) (ended bool, err error) {
	defer p.r.store.LockRefilterCursor()()
	now, asked, err := p.cursor()
	if err != nil || !asked || now != at {
		return false, err
	}
	b := p.r.store.NewBatch()
	if drop {
		b.DropRefilterCursor()
	} else {
		b.PutRefilterCursor(store.RefilterCursor{Begun: true, After: after})
	}
	return drop, b.CommitSync()
}

// pause waits between two rounds, longer after each round, until the filter is changed.
func (p *pass) pause(ctx context.Context) {
	d := min(roundPause<<min(p.rounds, 16), roundPauseMax)
	p.rounds++
	for until := time.Now().Add(d); ctx.Err() == nil && time.Now().Before(until); {
		loop.Sleep(ctx, time.Until(until), p.r.kick)
		if at, _, err := p.cursor(); err != nil || !at.Begun {
			return
		}
	}
}

// visit adapts one repository to the filter.
func (p *pass) visit(ctx context.Context, did string) error {
	v, err := p.look(did)
	switch {
	case err != nil:
		return err
	case v.later:
		p.left++
	case v.drop:
		return p.drop(ctx, did)
	}
	if v.sweep {
		if err := p.sweep(ctx, &v.row); err != nil {
			return err
		}
	}
	if !v.fetch {
		return nil
	}
	switch host := v.row.Pending.Host; {
	case v.row.State != store.StateSynced:
	case p.mayQueue(ctx, host):
		return p.enqueue(did, false)
	case p.backlog.dead(host, p.r.opts.Now()):
		return p.enqueue(did, true)
	}
	p.left++
	return nil
}

// look finds out what a repository needs, and records it in the row.
func (p *pass) look(did string) (v revision, err error) {
	err = p.update(did, func(b *store.Batch, row *store.Repo) (err error) {
		if !row.Known() {
			return nil
		}
		v, err = p.revise(row)
		p.named[row.Filter] = true
		if v.write {
			b.PutRepo(row)
		}
		return err
	})
	return v, err
}

// drop forgets a repository that is no longer followed.
func (p *pass) drop(ctx context.Context, did string) error {
	f := &Forget{Store: p.r.store, DID: did, Version: p.filter.Version,
		Due: func(row *store.Repo) (bool, error) {
			v, err := p.revise(row)
			return v.drop && !v.later, err
		}}
	wait, err := f.Run(ctx)
	if err != nil {
		return err
	}
	if wait == nil {
		p.left++ // the row has changed
		return nil
	}
	p.counts.dropped++
	p.waits.add(wait, forgottenBytes)
	return nil
}
