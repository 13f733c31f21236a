package verify

import (
	"context"
	"errors"
	"fmt"

	"cistern/store"
)

// mend counts the differences of a repository and repairs it, step by step. A repository that was
// queued at its rev before is not queued again: another copy did not help.
func (w *walk) mend(ctx context.Context, x *store.Examination) error {
	did, rev := x.Repo.DID, x.Repo.Rev
	w.at.Damaged++
	w.found(did, x.Differences, x.Texts[0])
	outcome, err := w.repair(ctx, x, w.fetched[did] == rev)
	if err != nil {
		return fmt.Errorf("repair %s: %w", did, err)
	}
	if w.lines++; w.lines <= linesMax {
		w.opts.Logger.Error("a repository is damaged", "did", did, "rev", rev,
			"differences", x.Differences, "first", x.Texts, "then", outcome)
	}
	return nil
}

// The outcomes of a repair, for the log.
const (
	outcomeCorrected = "corrected"
	outcomeQueued    = "queued for another copy"
	outcomeTorn      = "its next copy repairs it"
	outcomeAlone     = "left as it is: it is not followed, or changes too fast"
	outcomeAgain     = "left as it is: another copy of this rev did not repair it"
	outcomeMany      = "repaired in part: run verify again"
)

func (w *walk) repair(ctx context.Context, found *store.Examination, again bool) (string, error) {
	outcome, x := outcomeCorrected, *found
	for range stepsMax {
		if x.NeedsCopy() && again {
			return outcomeAgain, nil
		}
		did, wait, err := w.store.Repair(&x)
		if err == nil {
			err = wait()
		}
		if err != nil && !errors.Is(err, store.ErrStale) {
			return "", err
		}
		switch {
		case err != nil: // it has changed: look again
		case did == store.RepairNone:
			return outcomeAlone, nil
		case did == store.RepairQueued:
			w.queued(x.Repo.DID, x.Repo.Rev)
			outcome = outcomeQueued
		case did == store.RepairTorn:
			outcome = outcomeTorn
		}
		x, err = w.lookAtOnce(ctx, x.Repo.DID)
		if errors.Is(err, store.ErrStale) {
			return outcomeAlone, nil
		}
		if err != nil || x.Differences == 0 {
			return outcome, err
		}
	}
	return outcomeMany, nil
}

// queued remembers that another copy of a repository was asked for at a rev.
func (w *walk) queued(did, rev string) {
	if w.fetched[did] != rev {
		w.metrics.queued.Inc()
	}
	if len(w.fetched) >= fetchedMax {
		clear(w.fetched)
	}
	w.fetched[did] = rev
	w.opts.Queued()
}
