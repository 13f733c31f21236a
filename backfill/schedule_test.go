package backfill_test

import (
	"fmt"
	"testing"

	"cistern/backfill"
	"cistern/backfill/fetch"
	"cistern/store"
)

// TestOwnLimits: exceeding the limit of memory or disk is no fault of the host.
func TestOwnLimits(t *testing.T) {
	t.Parallel()
	for _, err := range []error{fetch.ErrIndex, fetch.ErrSpool} {
		kind, blamed := backfill.Blame(t.Context(), fmt.Errorf("read: %w", err))
		if kind != store.Generic || blamed {
			t.Errorf("%v is of kind %v, host blamed: %v", err, kind, blamed)
		}
	}
}
