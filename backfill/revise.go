package backfill

import (
	"context"
	"errors"
	"slices"

	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"
)

// relation is how what an earlier filter chose stands to what the one in force chooses.
type relation struct {
	differs bool // something is to be held or shown otherwise
	sweeps  bool // some of what is held goes, or is shown from now on, or no longer
	lacks   bool // something is to be held that was not
	judges  bool // who had a signal then may have none now
	sees    bool // what was held shows whether there is a signal
}

func relate(old, now *filter.Filter) relation {
	all := keepsAll(old)
	rel := relation{
		differs: !now.Covers(old) || !old.Covers(now) || all != keepsAll(now),
		lacks:   !all && (keepsAll(now) || !old.Covers(now)),
		judges:  !now.Full() && (old.Full() || !includes(now.Signals(), old.Signals())),
		sees:    all || old.SignalsCovered(now),
	}
	rel.sweeps = rel.differs && (all || !now.Covers(old))
	return rel
}

// keepsAll says whether a filter has every record held, shown or not.
func keepsAll(f *filter.Filter) bool { return f.WantsAll() || f.StoresAll() }

// includes reports whether one set has all of another. Both are in ascending order.
func includes(all, some []string) bool {
	for _, s := range some {
		i, found := slices.BinarySearch(all, s)
		if !found {
			return false
		}
		all = all[i+1:]
	}
	return true
}

// onSignal says whether a repository is followed only while it holds a record that a signal names.
func onSignal(f *filter.Filter, row *store.Repo) bool {
	return !f.Full() && (row.Tracked == store.BySignal || row.Tracked == store.ByNetwork)
}

// inPlace says whether a record is held as a filter wants it.
func inPlace(f *filter.Filter, row store.Row) bool {
	collection, _, valid := repo.SplitPath(row.Path)
	switch {
	case valid && f.Wants(collection):
		return !row.Shelved && !row.Hidden
	case !keepsAll(f):
		return false
	case !valid:
		return row.Hidden
	}
	return row.Shelved
}

// revision is what is to be done about one repository.
type revision struct {
	row   store.Repo
	drop  bool // nobody follows it any more
	write bool // the row has changed
	sweep bool // its records are to be looked through
	fetch bool // it is to be fetched
	later bool // it is being fetched: not now
}

// concerns reports whether a listed row needs a visit. It notes the selection of a row that does not.
func (p *refiltering) concerns(row *store.Repo) bool {
	p.counts.scanned++
	if p.mayConcern(row) {
		return true
	}
	p.named[row.Filter] = true
	return false
}

func (p *refiltering) mayConcern(row *store.Repo) bool {
	switch {
	case p.filter.Excluded(row.DID), p.outdated(row):
		return true
	case row.Tracked == store.Untracked:
		return false
	case onSignal(p.filter.Filter, row):
		return true
	case row.Filter > p.filter.Selection:
		return false // the pass begins anew
	}
	return row.Sweep || row.Lacks || row.Ordinal != 0 && p.relation(row.Filter).differs
}

// outdated reports whether a row names so old a selection that it is moved to the newest one, even if
// nothing else of it changes: the number of selections is bounded.
func (p *refiltering) outdated(row *store.Repo) bool {
	return row.Ordinal != 0 && row.Filter < p.oldest && row.Filter != 0
}

// revise says what a row needs, and has it say so. Called under its lock. What is being fetched is left alone: its
// task has a version of its own, and another round sees what it made of it.
func (p *refiltering) revise(row *store.Repo) (v revision, err error) {
	excluded := p.filter.Excluded(row.DID)
	outdated, untracked := p.outdated(row), row.Tracked == store.Untracked
	if !excluded && untracked && !outdated || row.Filter > p.filter.Selection {
		return v, nil
	}
	var rel relation
	if row.Ordinal != 0 {
		rel = p.relation(row.Filter)
	}
	if err := p.unrelated; err != nil {
		return v, err
	}
	if p.r.store.Fetching(row.DID) {
		v.later = excluded || rel.differs || rel.judges || row.Sweep || outdated
		return v, nil
	}
	if untracked && !excluded {
		p.succeed(row, rel, false) // its records stay as they are until it is tracked again, and fetched
		v.write = true
		return v, nil
	}
	unseen := false
	if v.drop = excluded; !v.drop && onSignal(p.filter.Filter, row) {
		if v.drop, unseen, err = p.judge(row, rel); err != nil {
			return v, err
		}
	}
	if v.drop || row.Ordinal == 0 {
		return v, nil
	}
	goesOn := row.Sweep && row.Filter != p.filter.Selection // a sweep, by the version in force
	if rel.differs || unseen || outdated || goesOn {
		p.succeed(row, rel, unseen)
		v.write = true
	}
	v.sweep = row.Sweep && !row.Torn // else its next copy sees to that
	v.fetch = row.Lacks && (row.State == store.StateSynced || row.State == store.StateDraining)
	v.row = *row
	return v, nil
}

// succeed has a row name the filter in force, and say what it does not have of that yet.
func (p *refiltering) succeed(row *store.Repo, rel relation, unseen bool) {
	row.Filter = p.filter.Selection
	row.Sweep = row.Sweep || rel.sweeps
	row.Lacks = row.Lacks || rel.lacks || unseen
}

// judge says whether a repository that is followed for a signal has none, or whether only a fetch can tell.
func (p *refiltering) judge(row *store.Repo, rel relation) (drop, unseen bool, err error) {
	switch {
	case len(p.filter.Signals()) == 0:
		return true, false, nil
	case row.Ordinal == 0:
		// One that waits for its first fetch is judged by that.
		return row.Tracked == store.ByNetwork && row.State == store.StateGone, false, nil
	}
	has, err := p.r.store.Holds(row.Ordinal, p.filter.Signal)
	switch {
	case err != nil || has:
		return false, false, ours(err)
	case !rel.sees || row.Lacks || row.Torn:
		return false, rel.judges, nil
	case row.State != store.StateGone && (row.SeenRev > row.Rev || p.r.store.Buffered(row.DID) > 0):
		return false, true, nil // what it is without may show one
	}
	return true, false, nil
}

// relation compares the selection of that number with the selection of the pass. It keeps an error in
// p.unrelated.
func (p *refiltering) relation(version uint32) relation {
	rel, known := p.relations[version]
	if known {
		return rel
	}
	old, err := p.r.store.FilterAt(version)
	if err != nil {
		p.unrelated = errors.Join(p.unrelated, ours(err))
		return relation{differs: true}
	}
	rel = relate(old, p.filter.Filter)
	p.relations[version] = rel
	return rel
}

// sweep brings the records of a repository to its row's filter, some at a time. A crash between leaves a row that
// says so. Whatever else takes the row over meanwhile, a filter, a wipe or a copy, sees to the rest; another round looks
// whether it did.
func (p *refiltering) sweep(ctx context.Context, row *store.Repo) error {
	p.counts.swept++
	rows, err := p.r.store.Rows(row.Ordinal)
	if err != nil {
		return ours(err)
	}
	goes := true
	var ops []store.Op
	for goes && err == nil && rows.Next() {
		if r := rows.Row(); !inPlace(p.filter.Filter, r) {
			ops = append(ops, store.Op{Path: slices.Clone(r.Path), Keep: true})
		}
		if len(ops) == diffOpsMax {
			goes, err = p.put(row, ops, false)
			ops = ops[:0]
			err = errors.Join(err, ours(p.waits.bound()), ctx.Err())
		}
	}
	if err = errors.Join(err, ours(rows.Close())); err == nil && goes {
		goes, err = p.put(row, ops, true)
	}
	if !goes {
		p.left++
	}
	return err
}

// put writes a part of a sweep, and with the last that it is over.
func (p *refiltering) put(swept *store.Repo, ops []store.Op, last bool) (goes bool, err error) {
	err = p.update(swept.DID, func(b *store.Batch, row *store.Repo) error {
		if row.Ordinal != swept.Ordinal || row.Filter != p.filter.Selection || !row.Sweep || row.Torn {
			return nil
		}
		if p.r.store.Fetching(row.DID) {
			return nil // by a later filter perhaps, and what that wants is compared with what is held now
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

// enqueue has a repository fetched that lacks something: now, for there is room, or when its host is asked again.
func (p *refiltering) enqueue(did string, dead bool) error {
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
				Next:  now.Add(p.r.jitter(p.r.opts.RetryMax)).Unix()})
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
		p.r.due(row.Retry.Next)
		return nil
	}
	p.room.add(did, row.Pending.Host, now)
	p.r.note(row.Pending.Host)
	return nil
}

// update changes a row. The pass waits for the disk later, for many rows together.
func (p *refiltering) update(did string, change func(b *store.Batch, row *store.Repo) error) error {
	return ours(p.waits.update(p.r.store, did, change))
}
