package discover

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"cistern/loop"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// crawlers are the sources of discovery.
type crawlers struct {
	r           *Runner
	kick        chan struct{} // a source was added
	accountsMax int64         // limit of the accounts of one host

	changing sync.Mutex // held while the list is changed; taken before mu

	// mu guards the list, and is never held while waiting: Runner.Wake takes it, and its callers
	// may hold locks that a source needs before it can end.
	mu   sync.Mutex
	list []*crawler
}

// newCrawlers adds the sources of the options, and the sources added while an earlier daemon ran.
func newCrawlers(r *Runner) (*crawlers, error) {
	cs := &crawlers{r: r, kick: make(chan struct{}, 1), accountsMax: crawlAccountsMax}
	for _, s := range r.opts.Crawl {
		if cs.find(s) < 0 {
			cs.list = append(cs.list, newCrawler(r, s, false))
		}
	}
	added, err := r.store.CrawlSources()
	if err != nil {
		return nil, err
	}
	for _, a := range added {
		s := Source{Kind: a.Kind, URL: a.URL}
		i := cs.find(s)
		switch {
		case a.Removed:
			if i >= 0 {
				r.opts.Logger.Warn("crawl source named by an option is not read: DELETE /crawler/sources "+
					"removed it; POST adds it again",
					"source", s.String())
				cs.list = slices.Delete(cs.list, i, i+1)
			}
		case i < 0:
			cs.list = append(cs.list, newCrawler(r, s, true))
		case cs.list[i].source.Implied:
			cs.list[i] = newCrawler(r, s, true)
		}
	}
	return cs, nil
}

// find returns the index of a source, -1 if there is none. Called with mu held, or before Run.
func (cs *crawlers) find(s Source) int {
	return slices.IndexFunc(cs.list, func(c *crawler) bool { return c.source.String() == s.String() })
}

// run runs all sources, including sources that are added meanwhile, until ctx ends.
func (cs *crawlers) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for ctx.Err() == nil {
		cs.mu.Lock()
		for _, c := range cs.list {
			own, ok := c.begin(ctx)
			if !ok {
				continue
			}
			g.Go(func() error {
				defer c.finish()
				return c.run(own)
			})
		}
		cs.mu.Unlock()
		loop.Sleep(ctx, sleepMax, cs.kick)
	}
	return g.Wait()
}

// begin reports whether the source must be started, and returns its context.
func (c *crawler) begin(ctx context.Context) (context.Context, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop != nil {
		return nil, false
	}
	ctx, c.stop = context.WithCancel(ctx)
	c.ended, c.stale = make(chan struct{}), true
	return ctx, true
}

func (c *crawler) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop()
	c.stop = nil
	close(c.ended)
}

// halt stops the source, and returns when it has stopped.
func (c *crawler) halt() {
	c.mu.Lock()
	stop, ended := c.stop, c.ended
	c.mu.Unlock()
	if stop != nil {
		stop()
		<-ended
	}
}

// wake makes all sources look for work.
func (cs *crawlers) wake() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, c := range cs.list {
		loop.Wake(c.kick)
	}
}

func (cs *crawlers) all() []*crawler {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return slices.Clone(cs.list)
}

// AddCrawl adds a source of discovery. It is durable on return. Adding a source again changes
// nothing.
func (r *Runner) AddCrawl(s Source) error {
	if err := s.validate(); err != nil {
		return err
	}
	s.Implied = false
	cs := r.crawls
	cs.changing.Lock()
	defer cs.changing.Unlock()
	c := cs.of(s)
	if c != nil && !c.source.Implied {
		return nil
	}
	b := r.store.NewBatch()
	b.PutCrawlSource(store.CrawlSource{Kind: s.Kind, URL: s.URL})
	if err := b.CommitSync(); err != nil {
		return err
	}
	if c != nil {
		cs.remove(c)
	}
	cs.mu.Lock()
	cs.list = append(cs.list, newCrawler(r, s, true))
	cs.mu.Unlock()
	loop.Wake(cs.kick)
	return nil
}

// RemoveCrawl removes a source of discovery: store.ErrNotFound if there is none. It stays removed
// after a restart until AddCrawl, whatever the options name. Repositories that it found stay
// followed, and its cursors stay until ForgetCrawlCursor.
func (r *Runner) RemoveCrawl(s Source) error {
	cs := r.crawls
	cs.changing.Lock()
	defer cs.changing.Unlock()
	c := cs.of(s)
	if c == nil {
		return fmt.Errorf("crawl source %s: %w", s, store.ErrNotFound)
	}
	named := c.named()
	b := r.store.NewBatch()
	if row := (store.CrawlSource{Kind: s.Kind, URL: s.URL, Removed: named}); named {
		b.PutCrawlSource(row)
	} else {
		b.DropCrawlSource(row)
	}
	if err := b.CommitSync(); err != nil {
		return err
	}
	cs.remove(c)
	r.opts.Logger.Info("crawl source removed", "source", s.String(), "named_by_option", named)
	return nil
}

// remove takes a source off the list and stops it, and returns when it has stopped. Called with
// changing held.
func (cs *crawlers) remove(c *crawler) {
	cs.mu.Lock()
	if i := slices.Index(cs.list, c); i >= 0 {
		cs.list = slices.Delete(cs.list, i, i+1)
	}
	cs.mu.Unlock()
	c.halt()
}

// named reports whether the options name the source.
func (c *crawler) named() bool {
	return slices.ContainsFunc(c.r.opts.Crawl,
		func(o Source) bool { return o.String() == c.source.String() })
}

// of returns the source of that kind and URL, nil if there is none.
func (cs *crawlers) of(s Source) *crawler {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if i := cs.find(s); i >= 0 {
		return cs.list[i]
	}
	return nil
}

// ForgetCrawlCursor deletes the marks of the lists of a source, whether it runs or not: the lists
// are read from the beginning. store.ErrNotFound means that no list was begun.
func (r *Runner) ForgetCrawlCursor(s Source) error {
	all, err := r.store.CrawlMarks(s.Kind, s.URL)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("cursor of crawl source %s: %w", s, store.ErrNotFound)
	}
	names := slices.SortedFunc(maps.Keys(all), func(a, b store.CrawlList) int {
		return cmp.Compare(a.Part, b.Part)
	})
	for chunk := range slices.Chunk(names, crawlLocksMax) {
		if err := r.forgetMarks(chunk); err != nil {
			return err
		}
	}
	if c := r.crawls.of(s); c != nil {
		c.mu.Lock()
		c.stale = true
		c.mu.Unlock()
		loop.Wake(c.kick)
	}
	return nil
}

// forgetMarks drops marks. A page that is being read does not restore its own.
func (r *Runner) forgetMarks(names []store.CrawlList) error {
	b := r.store.NewBatch()
	for _, name := range names {
		defer r.store.LockCrawlMark(name)()
		b.DropCrawlMark(name)
	}
	return b.CommitSync()
}

// Crawls returns the state of every source, in order of kind and URL.
func (r *Runner) Crawls() []CrawlStatus {
	var out []CrawlStatus
	for _, c := range r.crawls.all() {
		out = append(out, c.now())
	}
	slices.SortFunc(out, func(a, b CrawlStatus) int { return cmp.Compare(a.String(), b.String()) })
	return out
}
