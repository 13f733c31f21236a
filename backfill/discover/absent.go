package discover

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/loop"
	"cistern/store"
)

// absences finds stored repositories that their own host no longer lists: the account was deleted,
// or moved, while its events were missed. A deleted account is in no listing, so that no entry of a
// page shows the deletion.
//
// While the listing of a host is read, each repository of that host that a page names sets one bit,
// by its ordinal. When the listing has come to its end, one scan over all rows finds the
// repositories of the host without a bit, and makes them pending: the task asks the account's host
// for the latest commit, and writes the answer. Nothing is written for a repository that is listed,
// and the bits of 40 million repositories take 5 MB. The bits are lost with the process: the
// listings of a reconciliation are then read again, and a periodic pass finds the repositories next
// time.
type absences struct {
	r    *Runner
	kick chan struct{}

	// mu guards:
	mu     sync.Mutex
	rounds []*round // oldest first, at most roundsMax
	rest   time.Time
}

// round is a set of bits that the listings of several hosts share. No host has two listings in it.
type round struct {
	a *absences
	// end is the first ordinal that is not checked: a repository imported since may have been
	// listed before its import.
	end   store.Ordinal
	hosts map[string]*listing
	count [listingStages]int                          // listings at each stage
	since time.Time                                   // when the first listing at listingEnded ended
	bits  map[store.Ordinal]*[bitsPerPage / 64]uint64 // by range of ordinals
}

// bitsPerPage is how many ordinals share a page of bits of 8 KiB.
const bitsPerPage = 64 << 10

// listing is the listing of one host, read from its first page on. The methods of a nil listing do
// nothing.
type listing struct {
	round *round
	host  string // host[:port]
	stage listingStage
	// ends is the base URL of the reconciliation to drop once absent repositories are queued, or "".
	ends string
}

type listingStage uint8

const (
	listingRead    listingStage = iota // its pages are being read
	listingStalled                     // its host failed; nothing waits for it
	// listingEnded: read from beginning to end, and absent repositories must be queued.
	listingEnded
	listingDone // used or given up

	listingStages = iota
)

func newAbsences(r *Runner) *absences { return &absences{r: r, kick: make(chan struct{}, 1)} }

// join begins the listing of a host. It returns nil when there are too many rounds to record the
// repositories of this host too.
func (a *absences) join(host string) *listing {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := &listing{host: host}
	for _, d := range a.rounds {
		if d.hosts[host] == nil {
			g.round = d
		}
	}
	if g.round == nil {
		if g.round = a.newRound(); g.round == nil {
			return nil
		}
	}
	g.round.hosts[host] = g
	g.round.count[listingRead]++
	return g
}

// newRound adds a round. When there are roundsMax, it drops one whose unfinished listings all
// belong to failing hosts, or returns nil if there is none. Called with mu held.
func (a *absences) newRound() *round {
	a.prune()
	for i := 0; len(a.rounds) >= roundsMax; i++ {
		if i == len(a.rounds) {
			return nil
		}
		if !a.rounds[i].has(listingRead, listingEnded) {
			a.rounds = append(a.rounds[:i], a.rounds[i+1:]...)
		}
	}
	d := &round{a: a, end: a.r.store.OrdinalsEnd(), hosts: map[string]*listing{},
		bits: map[store.Ordinal]*[bitsPerPage / 64]uint64{}}
	a.rounds = append(a.rounds, d)
	return d
}

// prune drops rounds whose listings are all done. Called with mu held.
func (a *absences) prune() {
	left := a.rounds[:0]
	for _, d := range a.rounds {
		if d.has(listingRead, listingStalled, listingEnded) {
			left = append(left, d)
		}
	}
	clear(a.rounds[len(left):])
	a.rounds = left
}

// has reports whether any listing of the round is at one of the given stages. Called with mu held.
func (d *round) has(stages ...listingStage) bool {
	return slices.ContainsFunc(stages, func(s listingStage) bool { return d.count[s] > 0 })
}

// move takes a listing to another stage. Called with mu held.
func (g *listing) move(stage listingStage) {
	g.round.count[g.stage]--
	g.stage = stage
	g.round.count[stage]++
}

// shown reports whether a listing named a repository. Called with mu held.
func (d *round) shown(o store.Ordinal) bool {
	page := d.bits[o/bitsPerPage]
	return page != nil && page[o%bitsPerPage/64]&(1<<(o%64)) != 0
}

// set marks a repository as named by a listing. Called with mu held.
func (d *round) set(o store.Ordinal) {
	page := d.bits[o/bitsPerPage]
	if page == nil {
		page = new([bitsPerPage / 64]uint64)
		d.bits[o/bitsPerPage] = page
	}
	page[o%bitsPerPage/64] |= 1 << (o % 64)
}

// show records that the listing names a repository. Repositories of other hosts are ignored.
func (g *listing) show(row *store.Repo) {
	if g == nil || row.Ordinal == 0 || identity.HostOf(row.PDS) != g.host {
		return
	}
	g.round.a.mu.Lock()
	defer g.round.a.mu.Unlock()
	if row.Ordinal >= g.round.end {
		return // not checked
	}
	g.round.set(row.Ordinal)
}

// set moves a listing to another stage. A listing that is done stays done.
func (g *listing) set(stage listingStage) {
	if g == nil {
		return
	}
	g.round.a.mu.Lock()
	changed := g.stage != listingDone && g.stage != stage
	if changed {
		g.move(stage)
	}
	g.round.a.mu.Unlock()
	if changed {
		loop.Wake(g.round.a.kick)
	}
}

// end notes that the listing was read from beginning to end, and reports whether its absent
// repositories will be queued. The reconciliation of that base URL is dropped once they are, unless
// it is "".
func (g *listing) end(reconciled string) bool {
	if g == nil {
		return false
	}
	a := g.round.a
	defer loop.Wake(a.kick)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.rounds {
		if d == g.round {
			g.ends = reconciled
			if !d.has(listingEnded) {
				d.since = a.r.opts.Now()
			}
			g.move(listingEnded)
			return true
		}
	}
	return false // it failed for so long that its round was forgotten
}

// awaits reports whether some round other than except will delete the reconciliation of a base URL
// once its absent repositories are queued.
func (a *absences) awaits(url string, except *round) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.rounds {
		for _, g := range d.hosts {
			if d != except && g.stage == listingEnded && g.ends == url {
				return true
			}
		}
	}
	return false
}

// run queues the absent repositories of listings that have ended, until ctx ends.
func (a *absences) run(ctx context.Context) error {
	for ctx.Err() == nil {
		d, ended, wait := a.next(a.r.opts.Now())
		if d == nil {
			loop.Sleep(ctx, min(wait, sleepMax), a.kick)
			continue
		}
		if done, err := a.conclude(ctx, d, ended); err != nil || !done {
			return loop.Quiet(ctx, err)
		}
	}
	return nil
}

// next returns a round with ended listings, and these listings. If there is no such round, it
// returns how long to wait. It waits up to absentWait for listings that are still being read, so
// that one scan serves all of them.
func (a *absences) next(now time.Time) (d *round, ended map[string]*listing, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.prune()
	wait = sleepMax
	for _, d := range a.rounds {
		if !d.has(listingEnded) {
			continue
		}
		due := time.Time{}
		if d.has(listingRead) {
			due = d.since.Add(absentWait)
		}
		// A longer rest was set while the clock was ahead, and is ignored.
		if a.rest.After(due) && a.rest.Sub(now) <= absentRestMax {
			due = a.rest
		}
		if !due.After(now) {
			return d, d.ended(), 0
		}
		wait = min(wait, due.Sub(now))
	}
	return nil, nil, wait
}

// ended returns the listings that have ended, by host. Called with mu held.
func (d *round) ended() map[string]*listing {
	ended := map[string]*listing{}
	for host, g := range d.hosts {
		if g.stage == listingEnded {
			ended[host] = g
		}
	}
	return ended
}

// conclude queues the repositories that the ended listings of a round did not name, and drops their
// reconciliations. The next scan is delayed in proportion to the duration of this one. done is
// false if ctx ended first.
func (a *absences) conclude(
	ctx context.Context, d *round, ended map[string]*listing,
) (done bool, err error) {
	begin := a.r.opts.Now()
	s := &absentScan{a: a, round: d, ended: ended}
	for scan := 0; ; scan++ {
		s.left = 0
		if done, err := s.scan(ctx); !done || err != nil {
			return false, err
		}
		if s.left == 0 || scan == absentScansMax {
			break
		}
		loop.Sleep(ctx, absentPause, nil) // a queue of a host is full
	}
	if s.queued+s.left > 0 {
		a.r.opts.Logger.Info("hosts no longer list some repositories: asking the hosts for their "+
			"latest commits", "hosts", len(ended), "queued", s.queued, "left", s.left)
	}
	var urls []string
	a.mu.Lock()
	for _, g := range ended {
		if g.ends != "" && g.stage == listingEnded {
			urls = append(urls, g.ends)
		}
	}
	a.mu.Unlock()
	for _, url := range urls {
		// The pending state of the absent repositories is durable. After a crash before this, the
		// listing is read again.
		if err := a.dropListed(url, d); err != nil {
			return false, err
		}
	}
	now := a.r.opts.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range ended {
		g.move(listingDone)
	}
	d.since = now // for listings that ended meanwhile
	a.rest = now.Add(absentRest * now.Sub(begin))
	return true, nil
}

// absentScan reads all rows to find the repositories of some hosts that the listings of these hosts
// did not name.
type absentScan struct {
	a      *absences
	round  *round
	ended  map[string]*listing
	queued int
	left   int // not queued, since the queue of their host is full
}

func (s *absentScan) scan(ctx context.Context) (done bool, err error) {
	for cursor := ""; ; {
		if ctx.Err() != nil {
			return false, nil
		}
		rows, next, err := s.a.r.store.Repos(cursor, absentPage, s.absent)
		if err != nil {
			return false, hosts.OfStore(err)
		}
		if err := s.queue(rows); err != nil {
			return false, err
		}
		if next == "" {
			return true, nil
		}
		cursor = next
	}
}

// absent reports whether a repository is synced and followed, and the ended listing of its host did
// not name it.
func (s *absentScan) absent(row *store.Repo) bool {
	if row.State != store.StateSynced || row.Tracked == store.Untracked || row.Ordinal == 0 ||
		row.Ordinal >= s.round.end || s.ended[identity.HostOf(row.PDS)] == nil {
		return false
	}
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	return !s.round.shown(row.Ordinal)
}

// queue makes absent repositories pending, at most absentQueueMax of a host at a time: a host whose
// listing leaves out many must not fill the queue.
func (s *absentScan) queue(rows []store.Repo) error {
	r := s.a.r
	var dids []string
	free := map[uint32]int64{}
	for _, row := range rows {
		id := row.Pending.Host
		if _, there := free[id]; !there {
			h, _ := r.store.HostByID(id)
			free[id] = absentQueueMax - h.Queued
		}
		if free[id] <= 0 {
			s.left++
			continue
		}
		free[id]--
		dids = append(dids, row.DID)
	}
	slices.Sort(dids)
	for len(dids) > 0 {
		n := min(len(dids), crawlLocksMax)
		err := r.inBatch(dids[:n], r.store.Filter().Version, func(b *store.Batch, row *store.Repo) {
			if row.Known() && s.absent(row) {
				lookAgainAt(b, row)
				b.PutRepo(row)
				s.note(row.Ordinal)
			}
		}, func(*store.Batch) {})
		if errors.Is(err, errRefiltered) {
			continue
		}
		if err != nil {
			return err
		}
		dids = dids[n:]
		r.opts.Enqueued()
	}
	return nil
}

// note excludes a queued repository from later scans.
func (s *absentScan) note(o store.Ordinal) {
	s.queued++
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	s.round.set(o)
}

// dropListed deletes the reconciliation of a listing that was read to its end in a round. A
// reconciliation that was requested again since then stays, and a later round deletes it.
func (a *absences) dropListed(url string, d *round) error {
	defer a.r.store.LockReconciliation(url)()
	row, _, err := a.r.store.Reconciliation(url)
	if err != nil || row.Stage != store.ReconcileListed || a.awaits(url, d) {
		return hosts.OfStore(err)
	}
	b := a.r.store.NewBatch()
	b.DropReconciliation(url)
	return hosts.OfStore(b.CommitSync())
}
