package backfill

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"cistern/store"
)

// refilter brings every repository to the filter in force, whenever that was changed.
func (r *Runner) refilter(ctx context.Context) error {
	p := &refiltering{r: r}
	for r.tasksGate.pass(ctx) {
		_, asked, err := p.cursor()
		if err == nil && asked {
			err = p.run(ctx)
		}
		if err != nil {
			return quiet(ctx, err)
		}
		sleep(ctx, sleepMax, r.kickFilter)
	}
	return nil
}

// Refilter says whether repositories are being brought to a filter that was changed, and the last DID that
// the round under way is done with. When it says no, each is there that could be had.
func (r *Runner) Refilter() (cursor string, running bool, err error) {
	at, running, err := (&refiltering{r: r}).cursor()
	return at.After, running, err
}

// refiltering goes through all rows, in order of DID, as often as it takes. In its first round it changes what can be
// changed at once, and fetches what there is room for; in the others it waits for room too. It ends behind a
// round that left nothing to another, in which no task worked by an older filter either.
type refiltering struct {
	r         *Runner
	filter    store.FilterVersion
	relations map[uint32]relation // of the versions that rows name, to that of filter
	unrelated error               // why one is not known
	named     map[uint32]bool     // the versions that rows name, as the round has met them
	oldest    uint32              // rows that name a version before it are to name that of filter
	left      int                 // what the round leaves to another
	patient   bool                // waits for room
	room      room
	rounds    int
	waits     waits
	counts    refilterCounts
	counted   refilterCounts // of them, by the metrics
}

type refilterCounts struct {
	scanned, swept, queued, dropped int64
}

// cursor is where the pass stands; asked is false when every repository is as the filter wants it.
func (p *refiltering) cursor() (at store.RefilterCursor, asked bool, err error) {
	at, asked, err = p.r.store.RefilterCursor()
	return at, asked, ours(err)
}

// run goes on where the cursor stands until it is gone.
func (p *refiltering) run(ctx context.Context) error {
	*p = refiltering{r: p.r, room: newRoom()}
	log := p.r.opts.Logger
	for resumed := true; p.r.tasksGate.pass(ctx); resumed = false {
		at, asked, err := p.cursor()
		if err != nil || !asked {
			return err
		}
		anew := !at.Begun
		if anew {
			// SetFilter holds the lock that move takes until the filter is in force.
			if _, err := p.move(at, "", false); err != nil {
				return err
			}
			*p = refiltering{r: p.r, room: p.room}
			at.Begun = true
		}
		if resumed || at.After == "" {
			p.begin()
		}
		switch {
		case anew:
			log.Log(ctx, p.level(), "refiltering begins", "version", p.filter.Version)
		case resumed:
			p.left++ // what it left before is not known
			log.Info("refiltering goes on", "version", p.filter.Version, "cursor", at.After)
		}
		ended, err := p.page(ctx, at)
		if err != nil {
			return err
		}
		if ended {
			log.Log(ctx, p.level(), "refiltering ended", "version", p.filter.Version, "scanned", p.counts.scanned, "swept", p.counts.swept,
				"queued", p.counts.queued, "dropped", p.counts.dropped)
			return nil
		}
	}
	return nil
}

// level is of log lines: a store without repositories, as it is when the first filter is set, is no news.
func (p *refiltering) level() slog.Level {
	if p.counts.scanned == 0 && p.r.store.Counts()["repos"] == 0 {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// begin starts a round.
func (p *refiltering) begin() {
	p.filter, p.left = p.r.store.Filter(), 0
	p.relations, p.unrelated, p.named = map[uint32]relation{}, nil, map[uint32]bool{}
	p.oldest = 0
	if kept := p.r.store.Selections(); len(kept) > selectionsKept {
		p.oldest = kept[len(kept)-selectionsKept]
	}
	p.room.reset()
	if p.r.worksBefore(p.filter.Version) {
		p.left++
	}
}

// page handles one page, and says whether the pass is over.
func (p *refiltering) page(ctx context.Context, at store.RefilterCursor) (ended bool, err error) {
	rows, next, err := p.r.store.Repos(at.After, refilterPage, p.concerns)
	if err := errors.Join(ours(err), p.unrelated); err != nil {
		return false, err
	}
	for i := range rows {
		if !p.r.tasksGate.pass(ctx) || p.r.store.Filter().Version != p.filter.Version {
			return false, p.settle(nil) // told to end, or to begin anew
		}
		if err := errors.Join(p.visit(ctx, rows[i].DID), ours(p.waits.bound())); err != nil {
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
		p.patient = true
		if _, err = p.move(at, "", false); err == nil {
			p.pause(ctx)
		}
	}
	return false, err
}

// dropSelections deletes the selections that no row names. It follows a round that read all rows and
// left none for later: since that round began, tasks work by the filter in force, so that no row can
// come to name an older selection. After a crash the next pass deletes them.
func (p *refiltering) dropSelections() error {
	dropped, err := p.r.store.DropSelections(p.filter.Selection, p.named)
	if dropped > 0 {
		p.r.opts.Logger.Debug("earlier filters that no repository names were deleted", "filters", dropped)
	}
	return ours(err)
}

// count tells the metrics what a page led to.
func (p *refiltering) count() {
	for result, n := range map[string]int64{
		refilterSwept:   p.counts.swept - p.counted.swept,
		refilterQueued:  p.counts.queued - p.counted.queued,
		refilterDropped: p.counts.dropped - p.counted.dropped,
	} {
		p.r.metrics.refiltered.WithLabelValues(result).Add(float64(n))
	}
	p.counted = p.counts
}

// settle waits until what was written is durable.
func (p *refiltering) settle(err error) error {
	return errors.Join(err, ours(p.waits.settle()))
}

// move takes the cursor on, behind what its page led to: after a crash the page is either done or done again, which
// changes nothing. If the filter was changed meanwhile, the store has another cursor, and the pass
// begins anew.
func (p *refiltering) move(at store.RefilterCursor, after string, drop bool) (ended bool, err error) {
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
	return drop, ours(b.CommitSync())
}

// pause lets some time pass between two rounds, the more the more there were. A filter that is changed ends it.
func (p *refiltering) pause(ctx context.Context) {
	d := min(roundPause<<min(p.rounds, 16), roundPauseMax)
	p.rounds++
	for until := time.Now().Add(d); ctx.Err() == nil && time.Now().Before(until); {
		sleep(ctx, time.Until(until), p.r.kickFilter)
		if at, _, err := p.cursor(); err != nil || !at.Begun {
			return
		}
	}
}

// visit does what one repository needs.
func (p *refiltering) visit(ctx context.Context, did string) error {
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
	case p.hasRoom(ctx, host):
		return p.enqueue(did, false)
	case p.room.dead(host, p.r.opts.Now()):
		return p.enqueue(did, true)
	}
	p.left++
	return nil
}

// look says what a repository needs, and has its row say so.
func (p *refiltering) look(did string) (v revision, err error) {
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

// drop forgets a repository that nobody follows any more.
func (p *refiltering) drop(ctx context.Context, did string) error {
	f := &forgetting{r: p.r, did: did, version: p.filter.Version, due: func(row *store.Repo) (bool, error) {
		v, err := p.revise(row)
		return v.drop && !v.later, err
	}}
	wait, err := f.run(ctx)
	if err != nil {
		return err
	}
	if wait == nil {
		p.left++ // it has changed
		return nil
	}
	p.counts.dropped++
	p.waits.add(wait, forgottenBytes)
	return nil
}

// workingBy is the filter in force, by which a DID in flight is fetched from now on.
func (r *Runner) workingBy(did string) store.FilterVersion {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.store.Filter() // under mu, so that worksBefore knows of those that read an older one
	r.versions[did] = f.Version
	return f
}

// worksBefore says whether a task is under way that works by an older filter than that version.
func (r *Runner) worksBefore(version uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range r.versions {
		if v < version {
			return true
		}
	}
	return false
}
