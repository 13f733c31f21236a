package backfill

import (
	"errors"

	"cistern/store"
)

// BoundAccounts sets how many accounts of a host are taken up, before any source is there.
func BoundAccounts(r *Runner, n int64) { r.crawls.accountsMax = n }

// Absorb takes up an account that a page named that was read in full, by a version of the filter. It says whether that is no longer
// in force.
func Absorb(r *Runner, did string, version uint32, and func(b *store.Batch)) (refiltered bool, err error) {
	_, err = r.absorb([]listed{{DID: did}}, reading{why: store.ByNetwork, filter: version}, and)
	if errors.Is(err, errRefiltered) {
		return true, nil
	}
	return false, err
}
