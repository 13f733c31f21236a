package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/store"
)

// Permits gives the global permits that are free and all permits that are taken.
func Permits(r *Runner) (free, taken int) {
	all, _, err := r.store.Hosts("", 1<<20, func(h *store.Host) bool { return h.ID != 0 })
	if err != nil {
		panic(err)
	}
	for _, h := range all {
		taken += r.hosts.Standing(h.ID).Running
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	free = r.hosts.Free()
	return free, taken + r.opts.Concurrency - free + r.resolving
}

// LookupsParked is how long no lookup may begin.
func LookupsParked(r *Runner) time.Duration {
	now := r.opts.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lookups.Opens(pace.Fetch, now).Sub(now)
}

// Memory gives the bytes of the budgets that are taken.
func Memory(r *Runner) (bodies, spools int64) {
	bodies, spools, indexes := r.copier.Taken()
	return bodies + indexes, spools
}

// ScannedAll is when the dispatcher looked at all queues last.
func ScannedAll(r *Runner) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.scannedAll
}

// Delay is the time until the next attempt after so many failures.
func Delay(r *Runner, count uint32) time.Duration { return r.delay(count) }

// Refuse has a host answer a request that it wants to be left alone for some time.
func Refuse(r *Runner, host uint32, wait time.Duration) error {
	p, _ := r.hosts.Acquire(host)
	if p == nil {
		return errors.New("no permit")
	}
	defer p.Close()
	e := &hosts.AnswerError{Code: http.StatusTooManyRequests, Wait: wait}
	p.Note(e.Outcome(), e.Error())
	return nil
}

// Scan looks at the queues that are to be looked at.
func Scan(r *Runner) { r.scanHosts() }

// Rescan looks at all queues.
func Rescan(r *Runner) {
	r.mu.Lock()
	r.rescanAll, r.scannedAll = true, time.Time{}
	r.mu.Unlock()
	r.scanHosts()
}

// DecodePage reads a page of repos or hosts, and gives the number of its entries.
func DecodePage(key string, text []byte) (int, error) {
	var repos page
	var hosts hostPage
	if key == "repos" {
		err := json.Unmarshal(text, &repos)
		return len(repos.Repos), err
	}
	err := json.Unmarshal(text, &hosts)
	return len(hosts.Hosts), err
}

// NewRepeats watches a listing: it takes pages by their cursors, and reports whether the listing repeats itself.
func NewRepeats() func(cursor string, names []string) bool {
	var p repeats
	return p.page
}

// GoneDelay is how long an account that has been gone for some time is left alone.
func GoneDelay(gone time.Duration) time.Duration { return goneDelay(gone) }

// EndPass ends a pass that named so many entries, behind that mark, and says when the next is due.
func EndPass(row store.CrawlMark, named int64, every time.Duration, now time.Time) (store.CrawlMark, time.Time) {
	m := markOf(row).again()
	m.named = named
	row = m.end(now).row()
	return row, markOf(row).due(every, now)
}

// DescribeRetriesMax bounds DescribeRetries.
const DescribeRetriesMax = describeRetriesMax

// DescribeRetries is who is to be asked again what an account holds.
type DescribeRetries struct{ l *describeRetries }

// NewDescribeRetries is an empty list.
func NewDescribeRetries() DescribeRetries { return DescribeRetries{newDescribeRetries()} }

// Put adds an account, and reports whether it is in the list.
func (l DescribeRetries) Put(did string, due time.Time) bool {
	return l.l.put(describeRetry{did: did, due: due, tries: 1})
}

// Take gives the accounts that are due.
func (l DescribeRetries) Take(now time.Time) (dids []string) {
	for _, a := range l.l.take(now) {
		dids = append(dids, a.did)
	}
	return dids
}

// Look has the loops that start tasks look at all queues and at what is due, whenever they did so last. When it returns, they
// have begun what they found.
func Look(ctx context.Context, r *Runner) error {
	if err := goRound(ctx, r.kickDue); err != nil {
		return err
	}
	return LookAtQueues(ctx, r)
}

// LookAtQueues is Look without what is due.
func LookAtQueues(ctx context.Context, r *Runner) error {
	r.mu.Lock()
	r.rescan, r.scanned = true, time.Time{}
	r.rescanAll, r.scannedAll = true, time.Time{}
	r.mu.Unlock()
	return goRound(ctx, r.kick)
}

// LookAtPasses has the loop that starts reconciliations look at all of them.
func LookAtPasses(ctx context.Context, r *Runner) error { return goRound(ctx, r.discovery.kickPass) }

// ListingsDone reports whether everything that follows from the listings read so far has been done.
func ListingsDone(r *Runner) bool {
	r.discovery.absences.mu.Lock()
	defer r.discovery.absences.mu.Unlock()
	r.discovery.absences.prune()
	return len(r.discovery.absences.rounds) == 0
}

// GapSeen reports whether marks of gaps may have been written since the loop that starts reconciliations read them.
func GapSeen(r *Runner) bool { return r.discovery.gapSeen.Load() }

// goRound wakes a loop until it has gone round. The channel holds one signal: when a third is accepted, the loop has received
// the first and the second, and it went round between them.
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

// Idles is how long the dispatcher would wait now.
func Idles(r *Runner) time.Duration { return r.idles(r.opts.Now()) }

// SameMark is a mark that became one of backfill's and a row again.
func SameMark(row store.CrawlMark) store.CrawlMark { return markOf(row).row() }

// SameLater is when an account is asked about, read and written again.
func SameLater(did string, row store.DescribeRetry) store.DescribeRetry {
	return describeRetryOf(did, row).row()
}

// ListNothing begins the listing of a host, which names no repository. absent reports whether one
// counts as missing from it.
func ListNothing(r *Runner, host string) (absent func(row store.Repo) bool) {
	g := r.discovery.absences.join(host)
	s := &absentScan{a: r.discovery.absences, round: g.round, ended: map[string]*listing{host: g}}
	return func(row store.Repo) bool { return s.absent(&row) }
}

// Blame returns the kind of a failure, and whether it counts against the host.
func Blame(ctx context.Context, err error) (kind store.ErrorKind, blamed bool) {
	v := classify(ctx, err, time.Now())
	return v.kind, v.fault != noFault || v.park > 0
}
