package refilter

import (
	"context"
	"errors"
	"slices"

	"cistern/store"
)

// revision is the work that one repository needs.
type revision struct {
	row   store.Repo
	drop  bool // it is no longer followed
	write bool // the row has changed
	sweep bool // its records must be swept
	fetch bool // it must be fetched
	later bool // it is being fetched: revise it later
}

// concerns reports whether a listed row needs a visit. If not, it records the selection that the
// row names.
func (p *pass) concerns(row *store.Repo) bool {
	p.counts.scanned++
	if p.mayConcern(row) {
		return true
	}
	p.named[row.Filter] = true
	return false
}

func (p *pass) mayConcern(row *store.Repo) bool {
	switch {
	case p.filter.Excluded(row.DID), p.outdated(row):
		return true
	case row.Tracked == store.Untracked:
		return false
	case OnSignal(p.filter.Filter, row):
		return true
	case row.Filter > p.filter.Selection:
		return false // a newer filter: the pass begins again
	}
	return row.Sweep || row.Lacks || row.Ordinal != 0 && p.relation(row.Filter).Differs
}

// outdated reports whether a row names such an old selection that it is moved to the newest
// selection even if nothing else in it changes: the number of selections is bounded.
func (p *pass) outdated(row *store.Repo) bool {
	return row.Ordinal != 0 && row.Filter < p.oldest && row.Filter != 0
}

// revise finds out what a repository needs, and records that in its row, which is locked. A
// repository that is being fetched is left to the next round: its task has a filter of its own.
func (p *pass) revise(row *store.Repo) (v revision, err error) {
	excluded := p.filter.Excluded(row.DID)
	outdated, untracked := p.outdated(row), row.Tracked == store.Untracked
	if !excluded && untracked && !outdated || row.Filter > p.filter.Selection {
		return v, nil
	}
	var rel Relation
	if row.Ordinal != 0 {
		rel = p.relation(row.Filter)
	}
	if err := p.unrelated; err != nil {
		return v, err
	}
	if p.r.store.Fetching(row.DID) {
		v.later = excluded || rel.Differs || rel.Judges || row.Sweep || outdated
		return v, nil
	}
	if untracked && !excluded {
		p.succeed(row, rel, false) // its records stay until it is tracked again and fetched
		v.write = true
		return v, nil
	}
	unseen := false
	if v.drop = excluded; !v.drop && OnSignal(p.filter.Filter, row) {
		if v.drop, unseen, err = p.judge(row, rel); err != nil {
			return v, err
		}
	}
	if v.drop || row.Ordinal == 0 {
		return v, nil
	}
	// a sweep for an earlier filter continues with the filter in force
	staleSweep := row.Sweep && row.Filter != p.filter.Selection
	if rel.Differs || unseen || outdated || staleSweep {
		p.succeed(row, rel, unseen)
		v.write = true
	}
	v.sweep = row.Sweep && !row.Torn // a torn repository is completed by its next copy
	v.fetch = row.Lacks && (row.State == store.StateSynced || row.State == store.StateDraining)
	v.row = *row
	return v, nil
}

// succeed makes a row name the filter in force, with flags for the records that are not stored or
// shown yet.
func (p *pass) succeed(row *store.Repo, rel Relation, unseen bool) {
	row.Filter = p.filter.Selection
	row.Sweep = row.Sweep || rel.Sweeps
	row.Lacks = row.Lacks || rel.Lacks || unseen
}

// judge reports whether a repository that is followed for a signal has none (drop), or whether only
// a fetch can tell (unseen).
func (p *pass) judge(row *store.Repo, rel Relation) (drop, unseen bool, err error) {
	switch {
	case len(p.filter.Signals()) == 0:
		return true, false, nil
	case row.Ordinal == 0:
		// A repository that waits for its first fetch is judged by that fetch.
		return row.Tracked == store.ByNetwork && row.State == store.StateGone, false, nil
	}
	has, err := p.r.store.Holds(row.Ordinal, p.filter.Signal)
	switch {
	case err != nil || has:
		return false, false, err
	case !rel.Sees || row.Lacks || row.Torn:
		return false, rel.Judges, nil
	case row.State != store.StateGone && (row.SeenRev > row.Rev || p.r.store.Buffered(row.DID) > 0):
		return false, true, nil // a missing commit may have a signal
	}
	return true, false, nil
}

// relation compares a selection with that of the pass. It keeps an error in p.unrelated.
func (p *pass) relation(version uint32) Relation {
	rel, known := p.relations[version]
	if known {
		return rel
	}
	old, err := p.r.store.FilterAt(version)
	if err != nil {
		p.unrelated = errors.Join(p.unrelated, err)
		return Relation{Differs: true}
	}
	rel = Relate(old, p.filter.Filter)
	if p.r.store.Ephemeral() {
		rel.Sees = false // records with a signal may have gone
	}
	p.relations[version] = rel
	return rel
}

// sweep shows and hides the records of a repository as its row's filter requires, in bounded
// batches. A crash between two batches leaves a row that still has the flag Sweep. If a filter, a
// wipe or a copy changes the row meanwhile, the sweep ends, and the next round looks at the row
// again.
func (p *pass) sweep(ctx context.Context, row *store.Repo) error {
	p.counts.swept++
	rows, err := p.r.store.Rows(row.Ordinal)
	if err != nil {
		return err
	}
	goes := true
	var ops []store.Op
	for goes && err == nil && rows.Next() {
		if r := rows.Row(); !InPlace(p.filter.Filter, r) {
			ops = append(ops, store.Op{Path: slices.Clone(r.Path), Keep: true})
		}
		if len(ops) == opsMax {
			goes, err = p.put(row, ops, false)
			ops = ops[:0]
			err = errors.Join(err, p.waits.bound(), ctx.Err())
		}
	}
	if err = errors.Join(err, rows.Close()); err == nil && goes {
		goes, err = p.put(row, ops, true)
	}
	if !goes {
		p.left++
	}
	return err
}

// put writes a part of a sweep; the last part ends it.
func (p *pass) put(swept *store.Repo, ops []store.Op, last bool) (goes bool, err error) {
	err = p.update(swept.DID, func(b *store.Batch, row *store.Repo) error {
		if row.Ordinal != swept.Ordinal || row.Filter != p.filter.Selection || !row.Sweep || row.Torn {
			return nil
		}
		if p.r.store.Fetching(row.DID) {
			// its task compares the stored records with a copy, perhaps by a later filter
			return nil
		}
		if len(ops) > 0 {
			if err := b.Apply(row, false, row.Rev, ops); err != nil {
				return err
			}
		}
		row.Sweep = !last
		b.PutRepo(row)
		goes = true
		return nil
	})
	return goes, err
}

// enqueue queues a repository that lacks records for a fetch: now, or later if its host is dead.
func (p *pass) enqueue(did string, dead bool) error {
	now := p.r.opts.Now()
	var row store.Repo
	err := p.update(did, func(b *store.Batch, r *store.Repo) error {
		if !r.Lacks || r.State != store.StateSynced || r.Tracked == store.Untracked {
			return nil
		}
		r.Recheck = false
		if dead {
			b.Defer(r, store.Retry{Kind: store.Transport, Count: 1, Since: now.Unix(),
				Error: "host unresponsive: earlier repositories of this host are still waiting",
				Next:  now.Add(p.r.opts.DeadDelay()).Unix()})
		} else {
			b.Enqueue(r, store.PriorityRetry)
		}
		b.PutRepo(r)
		row = *r
		return nil
	})
	if err != nil || row.DID == "" {
		return err
	}
	p.counts.queued++
	if dead {
		p.r.opts.Due(row.Retry.Next)
		return nil
	}
	p.backlog.add(did, row.Pending.Host, now)
	p.r.opts.Queued(row.Pending.Host)
	return nil
}

// update changes a row. The pass waits for the disk later, once for many rows.
func (p *pass) update(did string, change func(b *store.Batch, row *store.Repo) error) error {
	return p.waits.update(p.r.store, did, change)
}
