package ingest

import (
	"math"
	"time"

	"cistern/store"

	"golang.org/x/time/rate"
)

// budget bounds how often other parties can make us fetch repositories again: for each DID by
// counts in its row, for each host by a bucket in memory. Changes of an account's status have a
// budget of their own in its row.
type budget struct {
	base  time.Duration
	hosts *buckets
}

// newBudget makes a budget whose first delay is base (Options.RefetchBase).
func newBudget(base time.Duration) *budget {
	return &budget{base: base,
		hosts: newBuckets(rate.Limit(1.0/refetchSeconds), refetchBurst, refetchHostsMax)}
}

// spend records a break of row (Breaks, Broken) and returns when its repository may be fetched: now
// (zero time) or later. The first break in an hour is free; then the delay doubles from RefetchBase
// to an hour. A host gets a burst of 100, and one a second.
func (b *budget) spend(row *store.Repo, host string, now time.Time) (due time.Time) {
	if b.rested(row, now) {
		row.Breaks = 0
	}
	row.Breaks++
	row.Broken = now.Unix()
	d := max(b.delay(row.Breaks), b.hostDelay(host, now))
	if d == 0 {
		return time.Time{}
	}
	return now.Add(d)
}

// charge adds the cost of a status change, in records, to the debt in the row (Charged, ChargedAt),
// which statusRate pays off. It returns 0 if the cost was charged, else how long the change has to
// wait, and then charges nothing. The cost may exceed statusBurst, so that the first change is
// applied however large the repository is.
func (b *budget) charge(row *store.Repo, cost int64, now time.Time) (wait time.Duration) {
	paid := max(0, now.Unix()-row.ChargedAt) * statusRate
	owed := max(0, int64(row.Charged)-paid)
	row.Charged, row.ChargedAt = uint32(owed), now.Unix()
	if owed > statusBurst {
		return min(time.Duration(owed-statusBurst)*time.Second/statusRate+time.Second, refetchDelayMax)
	}
	row.Charged = uint32(min(owed+cost, math.MaxUint32))
	return 0
}

// rested reports whether row's last break is so long ago that the next counts as the first, or lies
// in the future, since our clock was ahead then.
func (b *budget) rested(row *store.Repo, now time.Time) bool {
	// The hour without breaks begins when the fetch was allowed. Otherwise a repository that waited
	// long for its fetch would be trusted again at once.
	since := time.Duration(now.Unix()-row.Broken) * time.Second
	return since > b.delay(row.Breaks)+refetchWindow || since < -refetchWindow
}

// delay returns how long a repository waits after so many breaks.
func (b *budget) delay(breaks uint32) time.Duration {
	if breaks < 2 {
		return 0
	}
	d := b.base
	for i := uint32(2); i < breaks && d < refetchDelayMax; i++ {
		d *= 2
	}
	return min(d, refetchDelayMax)
}

func (b *budget) hostDelay(host string, now time.Time) time.Duration {
	return b.hosts.wait(host, refetchDelayMax, now)
}
