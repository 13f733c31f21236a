package backfill

import (
	"fmt"
	"time"

	"cistern/store"
)

// decision states what to do about an account whose repository is unavailable at its host.
type decision struct {
	hidden bool // if not, the answer counts as a failure, and no other field is set
	wiped  bool // the stored data is deleted
	status store.Status
	origin store.Origin
	text   string // the reason that the operator sees
}

// decideInactive decides about an account that its host reports as inactive. The stored data is
// kept, and hidden by the status.
func decideInactive(row *store.Repo, status store.Status) decision {
	if row.HiddenByRelay() && row.Status != status {
		return stillHidden(row, status.String())
	}
	return decision{
		hidden: true, status: status, origin: store.OriginHost,
		text: "the account's host reports " + status.String(),
	}
}

// stillHidden leaves an account hidden that a relay hides although the account's host reports
// another status: the relay's own decision stands.
func stillHidden(row *store.Repo, reported string) decision {
	return decision{
		hidden: true, status: row.Status, origin: store.OriginRelay,
		text: fmt.Sprintf("a relay reports %s, the account's host %s", row.Status, reported),
	}
}

// decideMissing decides about an account whose host does not have the repository, or whose DID has
// no document (absent). row.Missing counts this answer, and age is the time since the first. If a
// deletion was announced, this answer confirms it, and the data is wiped. Otherwise the first
// answers count as failures, later answers hide the account, and its data is wiped after enough
// answers over a long enough time. A commit that is newer than the copy contradicts the status of a
// hidden account: the first answers count as failures then, too.
func decideMissing(row *store.Repo, absent bool, age time.Duration) decision {
	hidden := row.Status.Hidden()
	contradicted := hidden && row.SeenRev > row.Rev && row.Missing < missingMax
	early := !hidden && (row.Missing < missingMax || row.Ordinal != 0 && age < hideSpan)
	if contradicted || early {
		return decision{}
	}
	d := decision{
		hidden: true, status: store.StatusNotFound, origin: store.OriginHost,
		text: "the account's host does not have the repository",
	}
	if absent {
		d.origin, d.text = store.OriginDirectory, "the DID has no document"
	}
	d.wiped = row.Unconfirmed() || row.Ordinal != 0 && row.Missing >= missingMax && age >= missingSpan
	switch {
	case row.HiddenByRelay():
		// The relay's own decision stands, also if the repository is found again.
		d.status, d.origin = row.Status, store.OriginRelay
	case d.wiped:
		d.status = store.StatusDeleted
	case row.Status == store.StatusDeleted, hidden && (row.Missing < missingMax || age < hideSpan):
		d.status = row.Status // already hidden, and the answers do not justify another status yet
	}
	return d
}

// goneDelay returns how long to wait before the host of a gone account is asked again: as long as
// the account has been gone, but at least a day and at most four weeks. If the account returns
// earlier, the firehose and the lists of the host report it without this delay.
func goneDelay(gone time.Duration) time.Duration {
	return min(max(gone, goneRecheck), goneRecheckMax)
}
