package verify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"cistern/store"
)

// Verifier verifies a store in use.
type Verifier struct {
	opts    Options
	store   *store.Store
	metrics *metrics
	// fetched has the rev at which a repository was queued for another copy. Owned by Run.
	fetched map[string]string
}

// New returns a Verifier of a store.
func New(o Options) (*Verifier, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	m, err := newMetrics(o.Registerer)
	return &Verifier{opts: o, store: o.Store, metrics: m, fetched: map[string]string{}}, err
}

// Progress is called with the number of repositories that are done, with that of all, and with the
// DID that is verified next.
type Progress func(did string, done, total int64)

// DifferencesError is the result of a walk that found differences.
type DifferencesError struct {
	Differences int64
	Repos       int64 // repositories with differences
	First       string
}

// Error states how many differences there are, and the first.
func (e *DifferencesError) Error() string {
	return fmt.Sprintf("%d differences in %d repositories, the first: %s", e.Differences, e.Repos,
		e.First)
}

// Run verifies all repositories that have a copy, in the order of their keys, from where an earlier
// run was cancelled. It returns a DifferencesError if the whole walk found any; what could be
// repaired has been, or waits for another copy. When ctx ends it stops after a page of rows, saves
// its place, and returns the error of ctx. Any other error is one of the store.
func (v *Verifier) Run(ctx context.Context, progress Progress) error {
	at, err := v.store.VerifyCursor()
	if err != nil {
		return err
	}
	now := time.Now()
	w := &walk{Verifier: v, at: at, progress: progress, pacer: newPacer(v.opts.Share), saved: now,
		began: now}
	v.opts.Logger.Info("verifying the store", "after", at.After, "share", v.opts.Share)
	if err := w.run(ctx); err != nil {
		return errors.Join(err, w.save())
	}
	if err := w.end(ctx); err != nil {
		return err
	}
	if w.at.Differences > 0 {
		return &DifferencesError{w.at.Differences, w.at.Damaged, w.at.First}
	}
	return nil
}

// walk is one run.
type walk struct {
	*Verifier
	at       store.VerifyCursor
	progress Progress
	pacer    *pacer
	began    time.Time
	saved    time.Time // when at was written
	lines    int       // in the log, about damaged repositories
}

func (w *walk) run(ctx context.Context) error {
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var passed []int64 // rows up to each of the copies
		n := int64(0)
		rows, next, err := w.store.Repos(w.at.After, pageRepos, func(r *store.Repo) bool {
			n++
			if r.Ordinal != 0 {
				passed = append(passed, n)
			}
			return r.Ordinal != 0
		})
		if err != nil {
			return err
		}
		base := w.at.Repos
		for i := range rows {
			w.told(rows[i].DID)
			if err := w.verify(ctx, rows[i].DID); err != nil {
				return err
			}
			w.at.After, w.at.Repos = rows[i].DID, base+passed[i]
			if err := errors.Join(w.saveAtTimes(), w.pacer.rest(ctx)); err != nil {
				return err
			}
		}
		if more = next != ""; more {
			w.at.After, w.at.Repos = next, base+n
			err = w.pacer.rest(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// told reports the progress. Repositories may come and go meanwhile.
func (w *walk) told(did string) {
	total := w.store.Counts()["repos"]
	w.progress(did, min(w.at.Repos, total), total)
}

// verify looks at one repository, and mends it if it differs.
func (w *walk) verify(ctx context.Context, did string) error {
	x, err := w.look(ctx, did)
	if errors.Is(err, store.ErrStale) {
		w.metrics.repos.WithLabelValues(resultChanging).Inc()
		return nil
	}
	if err != nil {
		return fmt.Errorf("verify %s: %w", did, err)
	}
	w.at.Records += x.Records
	w.metrics.records.Add(float64(x.Records))
	switch {
	case x.Repo.Ordinal == 0: // it was wiped meanwhile
		return nil
	case x.Differences > 0:
		w.metrics.repos.WithLabelValues(resultDamaged).Inc()
		return w.mend(ctx, &x)
	case !x.Tree:
		w.at.Unproven++
		w.metrics.repos.WithLabelValues(resultUnproven).Inc()
	default:
		w.metrics.repos.WithLabelValues(resultIntact).Inc()
	}
	return nil
}

// look examines a repository with rests in between. If it differs, or changes meanwhile, one view
// decides.
func (w *walk) look(ctx context.Context, did string) (x store.Examination, err error) {
	x, err = w.store.Examine(ctx, did, w.pacer.rest)
	if err == nil && x.Differences == 0 || err != nil && !errors.Is(err, store.ErrStale) {
		return x, err
	}
	return w.lookAtOnce(ctx, did)
}

// lookAtOnce examines a repository in one view. The error is store.ErrStale if its filter went out
// of use under every look.
func (w *walk) lookAtOnce(ctx context.Context, did string) (x store.Examination, err error) {
	for range looksMax {
		if err = w.pacer.rest(ctx); err != nil {
			return x, err
		}
		if x, err = w.store.Examine(ctx, did, nil); !errors.Is(err, store.ErrStale) {
			break
		}
	}
	return x, err
}

// found counts the differences of a repository, or of the counters of the store.
func (w *walk) found(of string, differences int, first string) {
	w.metrics.differences.Add(float64(differences))
	w.at.Differences += int64(differences)
	if w.at.First == "" {
		text := of + ": " + first
		w.at.First = strings.ToValidUTF8(text[:min(len(text), firstBytesMax)], "")
	}
}

// saveAtTimes writes the place of the walk, but not more often than every few seconds.
func (w *walk) saveAtTimes() error {
	if time.Since(w.saved) < saveEvery {
		return nil
	}
	return w.save()
}

func (w *walk) save() error {
	w.saved = time.Now()
	b := w.store.NewBatch()
	b.PutVerifyCursor(w.at)
	return b.CommitSync()
}

// end compares the counters of the store, and forgets the place of the walk.
func (w *walk) end(ctx context.Context) error {
	counters, err := w.store.RepairCounters(func() error { return w.pacer.rest(ctx) })
	if err != nil {
		return errors.Join(err, w.save())
	}
	if len(counters) > 0 {
		w.found("the store", len(counters), counters[0])
		w.opts.Logger.Warn("counters were wrong, and were corrected", "differences", counters)
	}
	b := w.store.NewBatch()
	b.DropVerifyCursor()
	if err := b.CommitSync(); err != nil {
		return err
	}
	level := slog.LevelInfo
	if w.at.Differences > 0 {
		level = slog.LevelWarn
	}
	w.opts.Logger.Log(ctx, level, "verified the store", "repos", w.at.Repos, "records", w.at.Records,
		"unproven", w.at.Unproven, "damaged", w.at.Damaged, "differences", w.at.Differences,
		"took", time.Since(w.began).Round(time.Millisecond))
	return nil
}
