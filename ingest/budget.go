package ingest

import (
	"time"

	"cistern/store"
)

// budget bounds how often others can make us fetch repositories again: for each DID by what its row
// remembers, for each host by a bucket in memory.
type budget struct{}

// spend notes a break of row (Breaks, Broken) and says when its repository may be fetched: now (zero
// time) or later. The first in an hour is free; then the delay doubles from RefetchBase to an hour. Hosts: a
// burst of 100, and one a second.
func (b *budget) spend(row *store.Repo, host string, now time.Time) (due time.Time) { panic("not written yet") }
