package archive

import (
	"context"
	"errors"

	"cistern/objects"
	"cistern/store"
)

// forgetDeleted forgets the oldest segments if their objects were deleted: the operator of the
// destination decides how long history is kept. A destination that lacks the newest segment too may
// be the wrong one: this is an error, and nothing is forgotten.
func (a *Archive) forgetDeleted(ctx context.Context) error {
	all := a.store.Segments()
	if len(all) == 0 {
		return nil
	}
	newest := &all[len(all)-1]
	gone := 0
	for ; gone < len(all); gone++ {
		missing, err := a.missing(ctx, &all[gone])
		if missing && gone == 0 {
			_, err = a.fetch(ctx, newest, 0, 1)
		}
		if err != nil {
			return err
		}
		if !missing {
			break
		}
	}
	if gone == 0 || gone == len(all) {
		return nil
	}
	oldest := all[gone].First
	if err := a.store.ForgetSegments(oldest); err != nil {
		return err
	}
	a.opts.Logger.Info("the oldest events are no longer in the archive: their segments were deleted",
		"from", all[0].First, "before", oldest, "segments", gone)
	return nil
}

// missing reports whether the object of a segment was deleted.
func (a *Archive) missing(ctx context.Context, seg *store.Segment) (bool, error) {
	_, err := a.fetch(ctx, seg, 0, 1)
	if errors.Is(err, objects.ErrNotFound) {
		return true, nil
	}
	return false, err
}
