package discover

import (
	"context"
	"errors"

	"cistern/store"
)

// storeError is a failure of the store: the process must stop.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// ours marks an error of the store.
func ours(err error) error {
	if err == nil || errors.Is(err, store.ErrStale) {
		return err
	}
	return &storeError{err}
}

// isOurs reports whether an error is a failure of the store.
func isOurs(err error) bool {
	var failure *storeError
	return errors.As(err, &failure)
}

// quiet returns nil for an error that only says that ctx ended.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
