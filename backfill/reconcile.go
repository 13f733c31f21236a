package backfill

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"cistern/ingest/identity"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// reconcilePrefix begins the crawl cursors of hosts whose events we missed some of: the base URL of their
// XRPC follows. Whoever notices the gap writes one with "", and wakes us.
const reconcilePrefix = "reconcile::"

// firstPage is the cursor of a pass that is at its first page. It is not "", so that a pass that is asked
// for anew is told from one that has just begun.
const firstPage = "\x00"

// reconcile goes through the list of every host that wants it. Who waits for a host that failed lets others have the place.
func (r *Runner) reconcile(ctx context.Context) error {
	var mu sync.Mutex            // guards passes, and which of them are running; who runs one owns the rest of it
	passes := map[string]*pass{} // by name of the cursor
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(passesMax)
	visit := func(p *pass) error {
		err := p.run(ctx)
		mu.Lock()
		if p.running = false; p.over {
			delete(passes, p.name)
		}
		mu.Unlock()
		signal(r.kickPass)
		return err
	}
	g.Go(func() error { // one of the limit, and the one that starts the others
		for r.crawlGate.pass(ctx) {
			asked, err := r.store.CrawlCursors(reconcilePrefix)
			if err != nil {
				return quiet(ctx, ours(err))
			}
			now, d := r.opts.Now(), sleepMax
			mu.Lock()
			for name := range asked {
				p := passes[name]
				if p == nil {
					p = &pass{r: r, name: name, url: name[len(reconcilePrefix):]}
					passes[name] = p
				}
				switch {
				case p.running:
				case p.due.After(now):
					d = min(d, p.due.Sub(now))
				default:
					p.running = g.TryGo(func() error { return visit(p) })
				}
			}
			mu.Unlock()
			sleep(ctx, d, r.kickPass)
		}
		return nil
	})
	return g.Wait()
}

// pass goes once through the list of a host, and has fetched again whatever is ahead of what we hold.
type pass struct {
	r        *Runner
	name     string // of its cursor
	url      string
	pages    int
	empty    int // in a row
	counts   survey
	failures int       // in a row
	due      time.Time // when its host is asked again
	running  bool
	over     bool // it came to the end, or nobody wants it any more
}

// view: who is unknown is left to the crawl, unless the host is crawled too and nobody has to be asked first.
func (p *pass) view() reading {
	f := p.r.store.Filter()
	v := reading{filter: f.Version, compare: true}
	origin, err := identity.ParseOrigin(p.url)
	source := Source{Kind: SourceRepos, URL: origin}
	if err != nil || !slices.ContainsFunc(p.r.crawls.all(), func(c *crawler) bool { return c.source.String() == source.String() }) {
		return v
	}
	if of, ok := p.r.viewOf(source, f); ok && !of.ask {
		v = of
	}
	return v
}

// cursor is where the pass stands; asked is false once nobody wants it any more.
func (p *pass) cursor() (cursor string, asked bool, err error) {
	all, err := p.r.store.CrawlCursors(p.name)
	cursor, asked = all[p.name]
	return cursor, asked, ours(err)
}

// run reads pages until the end, or until its host is to be left alone for a while.
func (p *pass) run(ctx context.Context) error {
	log := p.r.opts.Logger.With("source", p.url)
	for p.r.crawlGate.pass(ctx) {
		cursor, asked, err := p.cursor()
		if err != nil {
			return quiet(ctx, err)
		}
		if !asked {
			log.Info("reconciliation is no longer wanted")
			p.over = true
			return nil
		}
		if p.pages == 0 && p.failures == 0 {
			log.Info("reconciliation begins", "cursor", cursor)
		}
		p.over, err = p.page(ctx, cursor)
		var failure *storeError
		if errors.As(err, &failure) {
			return quiet(ctx, err)
		}
		if p.over {
			log.Info("reconciliation ended", "listed", p.counts.listed, "queued", p.counts.queued, "found", p.counts.found)
			return nil
		}
		if err != nil && ctx.Err() == nil {
			p.r.metrics.pages.WithLabelValues(kindGap, "error").Inc()
			d := p.r.crawlDelay(err, p.failures, crawlRetryMax)
			p.failures++
			p.due = p.r.opts.Now().Add(d)
			log.Warn("reconciliation is held up", "retry", d, "err", err)
			return nil
		}
		p.failures = 0
		p.r.rest(ctx, crawlKnown, nil)
	}
	return nil
}

// page handles one page, and says whether it was the last.
func (p *pass) page(ctx context.Context, cursor string) (ended bool, err error) {
	if cursor == "" {
		if _, err := p.move("", firstPage); err != nil {
			return false, err
		}
		cursor = firstPage
	}
	at := cursor
	if at == firstPage {
		at = ""
	}
	list, err := p.r.listRepos(ctx, p.url, at)
	if err != nil {
		return false, err
	}
	p.r.metrics.pages.WithLabelValues(kindGap, "ok").Inc()
	p.counts.listed += int64(len(list.Repos))
	p.empty++
	if len(list.Repos) > 0 {
		p.empty = 0
	}
	view := p.view()
	todo, err := p.r.choose(p.r.wellFormed(list.Repos), view)
	if err != nil {
		return false, err
	}
	to := next(at, list.Cursor)
	if p.pages++; p.pages >= passPagesMax || p.empty >= emptyPagesMax {
		to = ""
	}
	s, err := p.r.absorb(todo, view, func(*store.Batch) {})
	if errors.Is(err, errRefiltered) {
		return false, nil // the same page again
	}
	if err != nil {
		return false, err
	}
	p.counts.queued += s.queued
	p.counts.found += s.found
	return p.move(cursor, to)
}

// move takes the cursor on, behind what its page led to: after a crash the page is either done or
// listed again. A pass that was asked for anew meanwhile has another cursor than ours, and begins again.
func (p *pass) move(cursor, next string) (ended bool, err error) {
	defer p.r.store.Lock(p.name)()
	now, asked, err := p.cursor()
	if err != nil || !asked || now != cursor {
		return false, err
	}
	b := p.r.store.NewBatch()
	if next == "" {
		b.DropCrawlCursor(p.name)
	} else {
		b.SetCrawlCursor(p.name, next)
	}
	return next == "", ours(b.CommitSync())
}
