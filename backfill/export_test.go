package backfill

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"

	"golang.org/x/sync/errgroup"
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
	return r.copier.opts.bodyBytes() - r.copier.memory.left.Load(), r.copier.opts.SpoolBytes - r.copier.spools.left.Load()
}

// TakeIndexes takes n bytes of what indexes may have.
func TakeIndexes(r *Runner, n int64) bool { return r.copier.indexes.take(n) }

// IndexesLeft is what is not taken.
func IndexesLeft(r *Runner) int64 { return r.copier.indexes.left.Load() }

// Transfer reads a body under the watch of a fetch.
func Transfer(ctx context.Context, o CopyOptions, body io.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o.Client, o.Keys, o.Crowded = new(http.Client), new(identity.Directory), func() bool { return false }
	c, err := NewCopier(o)
	if err != nil {
		return err
	}
	return c.read(ctx, cancel, body)
}

// Transfers reads n bodies at a time, each under the watch of a fetch with a permit of its own, while a host waits for a permit.
// It gives how each ended.
func Transfers(ctx context.Context, o CopyOptions, n int, body func() io.Reader) []error {
	var mu sync.Mutex
	sched := pace.NewScheduler(o.Concurrency)
	o.Client, o.Keys = new(http.Client), new(identity.Directory)
	o.Crowded = func() bool {
		mu.Lock()
		defer mu.Unlock()
		return sched.Crowded()
	}
	c, err := NewCopier(o)
	if err != nil {
		return []error{err}
	}
	hosts := make([]pace.Host, n+1)
	for i := range hosts {
		hosts[i].Configure(pace.Limits{Min: 1, Max: 1}, false)
	}
	errs := make([]error, n)
	var g errgroup.Group
	for i := range n {
		p := sched.Begin(&hosts[i], time.Now())
		g.Go(func() error {
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			errs[i] = c.read(ctx, cancel, body())
			mu.Lock()
			defer mu.Unlock()
			sched.Return(&hosts[i], p, time.Now())
			return nil
		})
	}
	mu.Lock()
	sched.Offer(&hosts[n], time.Now())
	mu.Unlock()
	_ = g.Wait() // errs has them
	return errs
}

func (c *Copier) read(ctx context.Context, cancel context.CancelCauseFunc, body io.Reader) error {
	tr := c.newTransfer(cancel)
	defer tr.end()
	tr.body = body
	tr.begun.Store(true)
	tr.since.Store(0)
	p := make([]byte, 1<<20)
	for {
		_, err := tr.Read(p)
		switch {
		case err == io.EOF:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// ZstdPermits is how many zstd bodies may be open at a time by default, and how many are not taken.
func ZstdPermits(r *Runner) (all, free int64) {
	return r.copier.opts.zstdBodies(), r.copier.decode.permits.left.Load()
}

// ScannedAll is when the dispatcher looked at all queues last.
func ScannedAll(r *Runner) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.scannedAll
}

// Delay is the time until the next attempt after so many failures.
func Delay(r *Runner, count uint32) time.Duration { return r.delay(count) }

// Clipped is an error text for a row.
func Clipped(s string) string { return clipped(s) }

// Admit lets a request in that belongs to no task.
func Admit(ctx context.Context, r *Runner, host uint32) (done func(error), err error) {
	p, err := r.hosts.Admit(ctx, host)
	if err != nil {
		return nil, err
	}
	return func(err error) { r.dismiss(ctx, p, answered{err: err, took: time.Millisecond}) }, nil
}

// Limited is an answer of a host that wants to be left alone for so long.
func Limited(wait time.Duration) error {
	return &hosts.AnswerError{Code: http.StatusTooManyRequests, Wait: wait}
}

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
func LookAtPasses(ctx context.Context, r *Runner) error { return goRound(ctx, r.kickPass) }

// ListingsDone reports whether everything that follows from the listings read so far has been done.
func ListingsDone(r *Runner) bool {
	r.absences.mu.Lock()
	defer r.absences.mu.Unlock()
	r.absences.prune()
	return len(r.absences.rounds) == 0
}

// GapSeen reports whether marks of gaps may have been written since the loop that starts reconciliations read them.
func GapSeen(r *Runner) bool { return r.gapSeen.Load() }

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
	g := r.absences.join(host)
	s := &absentScan{a: r.absences, round: g.round, ended: map[string]*listing{host: g}}
	return func(row store.Repo) bool { return s.absent(&row) }
}
