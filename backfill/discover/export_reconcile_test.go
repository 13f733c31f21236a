package discover

import (
	"errors"

	"cistern/ingest/identity"
	"cistern/store"
)

// RequestReconciliations requests the comparison of listings, as askHosts does for all known hosts.
func RequestReconciliations(r *Runner, urls ...string) error {
	return r.requestReconciliations(urls)
}

// EndListing makes a pass read the listing of a PDS to its end, without a request. conclude does
// what follows once the repositories that the listing does not name are pending.
func EndListing(r *Runner, url string) (conclude func() error, err error) {
	p := &pass{r: r, url: url, listing: r.absences.join(identity.HostOf(url))}
	at := store.Reconciliation{Stage: store.ReconcileReading}
	row, _, err := p.cursor()
	if err != nil {
		return nil, err
	}
	if _, err := p.move(row, "", false); err != nil {
		return nil, err
	}
	if ended, err := p.move(at, "", true); !ended || err != nil {
		return nil, errors.Join(errors.New("the pass has not ended"), err)
	}
	d := p.listing.round
	return func() error {
		if err := r.absences.dropListed(url, d); err != nil {
			return err
		}
		p.listing.set(listingDone)
		return nil
	}, nil
}
