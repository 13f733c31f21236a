package discover

import (
	"cmp"
	"container/heap"
	"context"
	"sync"
	"time"

	"cistern/backfill/discover/pages"
	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/loop"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// crawler reads the lists of one source.
type crawler struct {
	r         *Runner
	source    Source
	persisted bool
	kick      chan struct{}

	// mu guards:
	mu     sync.Mutex
	stop   context.CancelFunc // not nil while it runs
	ended  chan struct{}      // closed when it has stopped
	lists  map[store.CrawlList]*list
	queues [trusts]listHeap // lists that are not being visited
	visits [trusts]int      // visits under way
	stale  bool             // the lists must be read from the store again
	filter uint32
	status CrawlStatus
}

// CrawlStatus is the status of a source.
type CrawlStatus struct {
	Source
	Named     bool // the options name the source
	Persisted bool // AddCrawl stored the source
	Running   bool
	// Lists is the number of lists of the source, Ended the number of lists whose last pass has
	// ended, and Failing the number of lists whose last request failed.
	Lists, Ended, Failing int
	// Pages counts pages since the start, Listed their entries, Queued the known repositories that
	// were queued again, and Found the new repositories.
	Pages, Listed, Queued, Found int64
	// PassEnded is the time at which no list had pages left, zero if that has not happened yet.
	// Since is the time at which the source was added.
	PassEnded, Since time.Time
	Failure          string // the last failure
	FailedAt         time.Time
}

// listHeap orders lists by when they are due.
type listHeap []*list

func (q listHeap) Len() int           { return len(q) }
func (q listHeap) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q listHeap) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].heap, q[j].heap = i, j
}
func (q *listHeap) Push(x any) {
	l := x.(*list)
	l.heap = len(*q)
	*q = append(*q, l)
}
func (q *listHeap) Pop() any {
	old := *q
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	l.heap = -1
	return l
}

func newCrawler(r *Runner, s Source, persisted bool) *crawler {
	return &crawler{r: r, source: s, persisted: persisted, kick: make(chan struct{}, 1), stale: true,
		status: CrawlStatus{Since: r.opts.Now()}}
}

// run reads the lists until ctx ends. A list that waits for a host holds no place.
func (c *crawler) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(crawlListsMax)
	for c.r.opts.Gate.Pass(ctx) {
		if err := c.refresh(); err != nil {
			return loop.Quiet(ctx, cmp.Or(err, g.Wait()))
		}
		l, d := c.take()
		if l == nil {
			loop.Sleep(ctx, min(d, sleepMax), c.kick)
			continue
		}
		g.Go(func() error {
			due, err := c.visit(ctx, l)
			c.putBack(l, due)
			return err
		})
	}
	return g.Wait()
}

// take returns the list to visit next, or nil and how long until a list may be due.
func (c *crawler) take() (*list, time.Duration) {
	now := c.r.opts.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	q, d := c.first(now, false)
	if q == nil || d > 0 {
		return nil, d
	}
	l := heap.Pop(q).(*list)
	l.filter = c.filter
	c.visits[l.trust]++
	return l, 0
}

// first returns the queue whose first list is due earliest, and how long until then. Unless all is
// set, it leaves out the queues without a free place. Called with mu held.
func (c *crawler) first(now time.Time, all bool) (q *listHeap, d time.Duration) {
	d = sleepMax
	for t := range trusts {
		if len(c.queues[t]) == 0 || !all && c.visits[t] >= t.places(crawlListsMax) {
			continue
		}
		if wait := c.queues[t][0].due.Sub(now); q == nil || wait < d {
			q, d = &c.queues[t], wait
		}
	}
	return q, d
}

func (c *crawler) putBack(l *list, due time.Time) {
	now := c.r.opts.Now()
	c.mu.Lock()
	c.visits[l.trust]--
	l.trust = trusted
	if l.host != 0 && (l.failures > 0 || l.slow) {
		l.trust = doubted
	}
	if c.lists[l.name] == l {
		if l.due = due; l.filter != c.filter && l.failures == 0 {
			l.due = time.Time{} // refresh skips lists that are being visited
		}
		heap.Push(&c.queues[l.trust], l)
	}
	if _, d := c.first(now, true); c.visits == [trusts]int{} && d > 0 && c.allEnded() {
		c.status.PassEnded = now
	}
	c.mu.Unlock()
	loop.Wake(c.kick)
}

// allEnded reports whether every list has ended, except lists whose host fails. Called with mu
// held.
func (c *crawler) allEnded() bool {
	for _, l := range c.lists {
		if l.mark.Ended == 0 && l.failures == 0 {
			return false
		}
	}
	return true
}

// refresh makes lists due again after a change of the filter, and loads the marks again after some
// were forgotten.
func (c *crawler) refresh() error {
	f := c.r.store.Filter()
	c.mu.Lock()
	stale, changed := c.stale, f.Version != c.filter
	c.stale, c.filter = false, f.Version
	c.mu.Unlock()
	if stale || changed && c.source.Kind == SourceCollection {
		return c.load()
	}
	if changed {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i := range c.queues {
			for _, l := range c.queues[i] {
				if l.failures == 0 {
					// Visited at once: the new filter may require that the list is read again.
					l.due = time.Time{}
				}
			}
			heap.Init(&c.queues[i])
		}
	}
	return nil
}

// look makes the list of a host due at once, because a setting of the host was changed.
func (c *crawler) look(host uint32) {
	c.mu.Lock()
	for i := range c.queues {
		for _, l := range c.queues[i] {
			if l.host == host {
				l.due = time.Time{}
				heap.Fix(&c.queues[i], l.heap)
				break
			}
		}
	}
	c.mu.Unlock()
	loop.Wake(c.kick)
}

// load creates the lists of the source anew, with the marks in the store. A list that is being
// visited is dropped when its visit ends.
func (c *crawler) load() error {
	c.mu.Lock()
	for _, l := range c.lists {
		l.listing.set(listingDone)
	}
	c.lists, c.queues = map[store.CrawlList]*list{}, [trusts]listHeap{}
	c.mu.Unlock()
	name := c.source.list("")
	switch c.source.Kind {
	case SourceRepos:
		return c.add(&list{name: name, origin: c.source.URL})
	case SourceCollection:
		for _, nsid := range exact(c.r.store.Filter().Filter) {
			l := &list{name: c.source.list(nsid), origin: c.source.URL, collection: nsid}
			if err := c.add(l); err != nil {
				return err
			}
		}
		return nil
	}
	if err := c.add(&list{name: name, origin: c.source.URL, roster: true}); err != nil {
		return err
	}
	known, err := c.r.store.CrawlMarks(c.source.Kind, c.source.URL)
	if err != nil {
		return hosts.OfStore(err)
	}
	delete(known, name)
	for host, row := range known {
		if err := c.addHost(host, pages.Mark(row)); err != nil {
			return err
		}
	}
	return nil
}

// add adds a list, with its stored mark.
func (c *crawler) add(l *list) error {
	row, err := c.r.store.CrawlMark(l.name)
	if err != nil {
		return hosts.OfStore(err)
	}
	c.enter(l, pages.Mark(row))
	return nil
}

// addHost adds the list of a host that a relay named.
func (c *crawler) addHost(name store.CrawlList, m pages.Mark) error {
	origin := name.Part
	id, err := c.r.hosts.HostID(identity.HostOf(origin))
	if hosts.IsOfStore(err) {
		return err
	}
	if err != nil {
		return nil // the store accepts no more hosts: the host is skipped
	}
	c.enter(&list{name: name, origin: origin, host: id, trust: c.r.trustIn(id)}, m)
	return nil
}

func (c *crawler) enter(l *list, m pages.Mark) {
	l.mark = m // it is visited at once: whether it is due depends on the filter too
	c.mu.Lock()
	c.lists[l.name] = l
	heap.Push(&c.queues[l.trust], l)
	c.mu.Unlock()
	loop.Wake(c.kick)
}

func (c *crawler) has(name store.CrawlList) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lists[name] != nil
}

// size returns the number of hosts that have a list.
func (c *crawler) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lists) - 1
}

func (c *crawler) notePage(l *list, m pages.Mark, s survey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.mark = m
	c.status.Pages++
	c.status.Listed += s.listed
	c.status.Queued += s.queued
	c.status.Found += s.found
}

func (c *crawler) noteAnswer(l *list) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.failures = 0
}

func (c *crawler) noteFailure(l *list, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.failures++
	c.status.Failure, c.status.FailedAt = hosts.Clean(err.Error()), c.r.opts.Now()
}

// noteTrouble records what is wrong with a list whose host answers.
func (c *crawler) noteTrouble(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Failure, c.status.FailedAt = what, c.r.opts.Now()
}

// now returns the status of the source.
func (c *crawler) now() CrawlStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Named = c.named()
	s.Source, s.Persisted, s.Running = c.source, c.persisted, c.stop != nil
	s.Lists = len(c.lists)
	for _, l := range c.lists {
		if l.mark.Ended != 0 {
			s.Ended++
		}
		if l.failures > 0 {
			s.Failing++
		}
	}
	return s
}
