package backfill

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"cistern/ingest/repo"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"
)

// reconcilePrefix begins the crawl cursors of hosts whose events we missed some of: the base URL of their
// XRPC follows. Whoever notices the gap writes one with "", and wakes us.
const reconcilePrefix = "reconcile::"

// firstPage is the cursor of a pass that is at its first page. It is not "", so that a pass that is asked
// for anew is told from one that has just begun.
const firstPage = "\x00"

// reconcile starts a pass for every host that wants one.
func (r *Runner) reconcile(ctx context.Context) error {
	var running sync.Map // by name of the cursor
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(passesMax)
	g.Go(func() error { // one of the limit, and the one that starts the others
		for r.crawlGate.pass(ctx) {
			asked, err := r.store.CrawlCursors(reconcilePrefix)
			if err != nil {
				return quiet(ctx, ours(err))
			}
			for name := range asked {
				if _, there := running.LoadOrStore(name, true); there {
					continue
				}
				if !g.TryGo(func() error {
					defer signal(r.kickPass)
					defer running.Delete(name)
					return r.newPass(name).run(ctx)
				}) {
					running.Delete(name)
				}
			}
			sleep(ctx, sleepMax, r.kickPass)
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
	discover bool // the host is one that is crawled too
	pages    int
	counts   passCounts
}

type passCounts struct {
	listed, queued, found int64
}

func (r *Runner) newPass(name string) *pass {
	p := &pass{r: r, name: name, url: name[len(reconcilePrefix):]}
	p.discover = slices.Contains(r.opts.Crawl, Source{Kind: SourceRepos, URL: p.url})
	return p
}

// cursor is where the pass stands; asked is false once nobody wants it any more.
func (p *pass) cursor() (cursor string, asked bool, err error) {
	all, err := p.r.store.CrawlCursors(p.name)
	cursor, asked = all[p.name]
	return cursor, asked, ours(err)
}

func (p *pass) run(ctx context.Context) error {
	log := p.r.opts.Logger.With("source", p.url)
	failures := 0
	for started := false; p.r.crawlGate.pass(ctx); started = true {
		cursor, asked, err := p.cursor()
		if err != nil {
			return quiet(ctx, err)
		}
		if !asked {
			log.Info("reconciliation is no longer wanted")
			return nil
		}
		if !started {
			log.Info("reconciliation begins", "cursor", cursor)
		}
		ended, err := p.page(ctx, cursor)
		var failure *storeError
		if errors.As(err, &failure) {
			return quiet(ctx, err)
		}
		if ended {
			log.Info("reconciliation ended", "listed", p.counts.listed, "queued", p.counts.queued, "found", p.counts.found)
			return nil
		}
		d := crawlKnown
		if err != nil && ctx.Err() == nil {
			p.r.metrics.pages.WithLabelValues("error").Inc()
			d = p.r.crawlDelay(err, failures)
			failures++
			log.Warn("reconciliation is held up", "retry", d, "err", err)
		} else {
			failures = 0
		}
		p.r.rest(ctx, d, nil)
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
	p.r.metrics.pages.WithLabelValues("ok").Inc()
	p.counts.listed += int64(len(list.Repos))
	todo, err := p.choose(list.Repos)
	if err != nil {
		return false, err
	}
	next := list.next(at)
	if p.pages++; p.pages >= passPagesMax {
		next = ""
	}
	for chunk := range slices.Chunk(todo, crawlLocksMax) {
		if err := p.write(chunk); err != nil {
			return false, err
		}
	}
	return p.move(cursor, next)
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

// finding is what follows from an entry of the list.
type finding uint8

const (
	nothing  finding = iota
	isNew            // to be followed
	isAhead          // a fetch under way must not end below its rev
	isBehind         // to be looked at again
)

// choose picks the entries that something follows from, in order of DID. It holds no locks: write looks again.
func (p *pass) choose(entries []listed) (todo []listed, err error) {
	slices.SortFunc(entries, func(a, b listed) int { return cmp.Or(cmp.Compare(a.DID, b.DID), -cmp.Compare(a.Rev, b.Rev)) })
	entries = slices.CompactFunc(entries, func(a, b listed) bool { return a.DID == b.DID })
	now := p.r.opts.Now()
	for _, e := range entries {
		if _, err := syntax.ParseDID(e.DID); err != nil {
			continue
		}
		if _, err := repo.ParseTID(e.Rev); err != nil || repo.TIDTime(e.Rev).After(now.Add(repo.RevSkewMax)) {
			e.Rev = "" // below every rev
		}
		row, err := p.r.store.RepoOrNew(e.DID)
		if err != nil {
			return nil, ours(err)
		}
		if p.judge(&row, e) != nothing {
			todo = append(todo, e)
		}
	}
	return todo, nil
}

// judge holds an entry against what we know. A list may be older than what we hold, so that only
// what is ahead of us counts, and the repository's own host has the last word.
func (p *pass) judge(row *store.Repo, e listed) finding {
	if !row.Known() {
		if p.discover && e.active() {
			return isNew
		}
		return nothing
	}
	// While it is fetched, or its commits drained, the answer that counts may be there already.
	underway := row.State == store.StateDraining || row.State == store.StatePending && p.r.store.Fetching(row.DID)
	switch {
	case row.Tracked == store.Untracked:
	case !e.active():
		hides := e.Status != "throttled" && e.Status != "desynchronized"
		if hides && !row.Status.Hidden() && (row.State == store.StateSynced || underway) {
			return isBehind
		}
	case row.State == store.StateGone:
		return isBehind
	case row.State == store.StateSynced && e.Rev > row.Rev:
		return isBehind
	case underway && e.Rev > max(row.Rev, row.SeenRev):
		return isAhead
	}
	return nothing
}

func (p *pass) write(chunk []listed) error {
	dids := make([]string, len(chunk))
	for i, e := range chunk {
		dids[i] = e.DID
	}
	i := -1
	var queued, found int64
	err := p.r.inBatch(dids, func(b *store.Batch, row *store.Repo) error {
		i++
		e := chunk[i]
		switch p.judge(row, e) {
		case nothing:
			return nil
		case isNew:
			track(row)
			found++
		case isBehind:
			b.DropBuffer(row)
			row.Attempt++
			row.Recheck, row.Retry.Next = true, 0
			if row.State != store.StatePending {
				row.State = store.StatePending
				row.Pending = store.PendingKey{Host: row.Pending.Host, Priority: store.PriorityRetry}
			}
			queued++
		}
		if e.active() {
			row.SeenRev = max(row.SeenRev, e.Rev)
		}
		b.PutRepo(row)
		return nil
	}, func(*store.Batch) {})
	if err != nil {
		return err
	}
	p.counts.queued += queued
	p.counts.found += found
	p.r.metrics.found.Add(float64(found))
	if queued+found > 0 {
		p.r.lookAgain()
	}
	return nil
}
