package discover

import (
	"context"
	"time"

	"cistern/store"
)

// LookAtPasses makes the loop that starts reconciliations check all of them.
func LookAtPasses(ctx context.Context, r *Runner) error { return goRound(ctx, r.kickPass) }

// ListingsDone reports whether everything that follows from the listings read so far has been done.
func ListingsDone(r *Runner) bool {
	r.absences.mu.Lock()
	defer r.absences.mu.Unlock()
	r.absences.prune()
	return len(r.absences.rounds) == 0
}

// GapSeen reports whether marks of gaps may have been written since the loop that starts
// reconciliations read them.
func GapSeen(r *Runner) bool { return r.gapSeen.Load() }

// SameLater returns when a host is asked about an account, after the time was written and read
// again.
func SameLater(did string, row store.DescribeRetry) store.DescribeRetry {
	return describeRetryOf(did, row).row()
}

// ListNothing begins the listing of a host, which names no repository. absent reports whether one
// counts as missing from it.
func ListNothing(r *Runner, host string) (absent func(row store.Repo) bool) {
	g := r.absences.join(host)
	s := &absentScan{a: r.absences, round: g.round, ended: map[string]*listing{host: g}}
	return func(row store.Repo) bool { return s.absent(&row) }
}

// DescribeRetriesMax bounds DescribeRetries.
const DescribeRetriesMax = describeRetriesMax

// DescribeRetries holds accounts whose host must be asked again.
type DescribeRetries struct{ l *describeRetries }

// NewDescribeRetries returns an empty list.
func NewDescribeRetries() DescribeRetries { return DescribeRetries{newDescribeRetries()} }

// Put adds an account, and reports whether it is in the list.
func (l DescribeRetries) Put(did string, due time.Time) bool {
	return l.l.put(describeRetry{did: did, due: due, tries: 1})
}

// Take returns the accounts that are due.
func (l DescribeRetries) Take(now time.Time) (dids []string) {
	for _, a := range l.l.take(now) {
		dids = append(dids, a.did)
	}
	return dids
}

// goRound wakes a loop until one whole round has passed. The channel holds one signal: when a third
// is accepted, the loop has received the first and the second, and a round lay between them.
func goRound(ctx context.Context, kick chan<- struct{}) error {
	for range 3 {
		select {
		case kick <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
