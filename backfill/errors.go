package backfill

import (
	"errors"

	"cistern/store"
)

// storeError is a failure of the store: the process must stop.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// ours marks an error of the store. ErrStale stays unmarked: it reports that the row has changed,
// not a failure.
func ours(err error) error {
	if err == nil || errors.Is(err, store.ErrStale) {
		return err
	}
	return &storeError{err}
}
