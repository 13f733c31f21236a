package discover

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"cistern/backfill/discover/pages"
	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/loop"
	"cistern/store"
)

// pass reads a listing once, and queues each repository whose listed rev is ahead of its row.
type pass struct {
	r        *Runner
	url      string // base URL, the key of its row in the store
	pages    int64
	watch    pages.Watch
	counts   survey
	failures int       // in a row
	slow     bool      // the last page took long
	due      time.Time // when its host is asked again
	over     bool      // it reached the end, or is no longer requested

	// reconciler.mu guards, and they change only between two visits:
	running bool
	trust   trust
	own     bool // the host lists its own accounts: it is a PDS

	listing *listing // of a PDS, once its first page was requested
}

func newPass(r *Runner, url string) *pass {
	p := &pass{r: r, url: url}
	accounts, id, _ := r.accountsAt(p.url)
	p.own, p.trust = accounts > 0, r.trustIn(id)
	return p
}

// level returns the level of log lines: Debug for a PDS, because thousands may be compared at a
// time.
func (p *pass) level(usual slog.Level) slog.Level {
	if p.own {
		return slog.LevelDebug
	}
	return usual
}

// view returns for what purpose the listing is read. Unknown accounts are left to the crawl, unless
// the host is crawled too, the crawl is on and no host has to be asked first. A PDS is believed
// about its own accounts only.
func (p *pass) view() reading {
	f := p.r.store.Filter()
	v := reading{filter: f.Version, compare: true}
	origin, err := identity.ParseOrigin(p.url)
	source := Source{Kind: SourceRepos, URL: origin}
	if err == nil && !p.r.opts.Gate.IsShut() && slices.ContainsFunc(p.r.crawls.all(),
		func(c *crawler) bool { return c.source.String() == source.String() }) {
		if of, ok := p.r.viewOf(source, f); ok && !of.ask {
			v = of
		}
	}
	if _, id, err := p.r.accountsAt(p.url); err == nil && p.own {
		v.host, v.id = identity.HostOf(p.url), id
	}
	v.listing, v.source = p.listing, sourceOf(p.url)
	return v
}

// sourceOf returns the store.SourceID of the host at a URL. Rows name the firehose of a relay by
// the same id.
func sourceOf(url string) uint32 { return store.SourceID(identity.HostOf(url)) }

// cursor returns the position of the pass; asked is false once the pass is no longer requested.
func (p *pass) cursor() (at store.Reconciliation, asked bool, err error) {
	at, asked, err = p.r.store.Reconciliation(p.url)
	return at, asked, hosts.OfStore(err)
}

// run reads pages until the end, or until its host must not be asked for a while.
func (p *pass) run(ctx context.Context) error {
	log := p.r.opts.Logger.With("source", p.url)
	for ctx.Err() == nil {
		row, asked, err := p.cursor()
		if err != nil {
			return loop.Quiet(ctx, err)
		}
		if !asked {
			log.Log(ctx, p.level(slog.LevelInfo), "reconciliation is no longer wanted")
			p.leave()
			return nil
		}
		if p.pages == 0 && p.failures == 0 {
			log.Log(ctx, p.level(slog.LevelInfo), "reconciliation begins", "cursor", row.Cursor)
		}
		begin := p.r.opts.Now()
		p.slow = false
		p.over, err = p.page(ctx, row)
		switch {
		case hosts.IsOfStore(err):
			return loop.Quiet(ctx, err)
		case p.over:
			log.Log(ctx, p.level(slog.LevelInfo), "reconciliation ended", "listed", p.counts.listed,
				"queued", p.counts.queued, "found", p.counts.found)
			return nil
		case err != nil && ctx.Err() == nil:
			p.fail(ctx, log, err)
			return nil
		}
		p.failures = 0
		p.r.setbacks.set(p.url, 0)
		if p.r.opts.Now().Sub(begin) > crawlSlow {
			p.slow = true
			return nil // another pass may take its place
		}
		p.r.rest(ctx, crawlKnown, nil)
	}
	return nil
}

// leave ends a pass that is no longer requested.
func (p *pass) leave() {
	p.over = true
	p.listing.set(listingDone)
}

// known returns how many repositories the listing should name at most: those of the host if it is a
// PDS, else all.
func (p *pass) known() int64 {
	if !p.own {
		return p.r.store.Counts()["repos"]
	}
	accounts, _, _ := p.r.accountsAt(p.url)
	return accounts
}

// giveUp stops the check for absent repositories: the listing is not read to its end.
func (p *pass) giveUp() {
	p.listing.set(listingDone)
	p.listing = nil
}

func (p *pass) fail(ctx context.Context, log *slog.Logger, err error) {
	p.r.metrics.pages.WithLabelValues(kindGap, "error").Inc()
	most := crawlRetryMax
	if p.own {
		most = crawlHostRetryMax
	}
	d := p.r.crawlDelay(err, p.failures, most)
	if errors.Is(err, hosts.ErrBanned) {
		d = crawlBannedAgain
	}
	p.failures++
	p.r.setbacks.add(p.url, err)
	p.due = p.r.opts.Now().Add(d)
	p.listing.set(listingStalled)
	log.Log(ctx, p.level(slog.LevelWarn), "reconciliation is held up", "retry", d, "err", err)
}

// begin prepares for the first page. For the listing of a PDS it starts recording which
// repositories the listing names.
func (p *pass) begin() error {
	p.watch = pages.Watch{}
	if p.own {
		if p.listing = p.r.absences.join(identity.HostOf(p.url)); p.listing == nil {
			// The listing is read when other listings have ended.
			return &hosts.BusyError{Until: p.r.opts.Now().Add(joinAgain)}
		}
	}
	return nil
}

// page handles one page, and reports whether it was the last.
func (p *pass) page(ctx context.Context, row store.Reconciliation) (ended bool, err error) {
	first := store.Reconciliation{Stage: store.ReconcileReading}
	// What the listing showed before a restart is not known.
	resumed := p.own && p.listing == nil && p.pages == 0 && row != first
	if row.Stage != store.ReconcileReading || resumed {
		if _, err := p.move(row, "", false); err != nil {
			return false, err
		}
		row, p.pages = first, 0
		p.listing.set(listingDone) // the pass was requested again
		p.listing = nil
	}
	if p.pages == 0 && p.listing == nil {
		if err := p.begin(); err != nil {
			return false, err
		}
	}
	at := row.Cursor
	list, err := pages.Repos(ctx, p.r.hosts, p.url, at, p.r.opts.IdleTimeout)
	if err != nil {
		return false, err
	}
	p.listing.set(listingRead)
	p.r.metrics.pages.WithLabelValues(kindGap, "ok").Inc()
	p.counts.listed += int64(len(list.Repos))
	view := p.view()
	entries := pages.WellFormed(list.Repos, p.r.opts.Now())
	todo, err := p.r.choose(entries, view)
	if err != nil {
		return false, err
	}
	p.pages++
	to, end := p.watch.Page(at, pages.Accounts(entries), len(list.Repos), p.pages, list.Cursor)
	if end.Abandoned() {
		p.r.noteAbandoned(p.url, p.pages, end)
	}
	if end != "" && end != pages.EndReached {
		p.giveUp()
	}
	if view.why == store.Untracked && p.pages >= max(comparePagesMin, p.known()) {
		to = "" // it is cheaper to ask about the repositories that it has not named
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
	return p.move(row, to, to == "")
}

// move takes the pass from row to the next page, or to its end, once the changes of its page are
// written: after a crash the page is either done or listed again. If the pass was requested anew
// meanwhile, the store has another row, and the pass begins again.
func (p *pass) move(row store.Reconciliation, next string, last bool) (ended bool, err error) {
	defer p.r.store.LockReconciliation(p.url)()
	now, asked, err := p.cursor()
	if err != nil || !asked || now != row {
		return false, err
	}
	// Once the listing has ended, dropListed may be called at any time: it waits for the lock, and
	// finds the row that this batch writes.
	ended = last && (p.listing == nil || p.listing.end(p.url))
	b := p.r.store.NewBatch()
	switch {
	case !last:
		b.PutReconciliation(p.url, store.Reconciliation{Stage: store.ReconcileReading, Cursor: next})
	case !ended: // the bits of the listing are lost: start over
		b.PutReconciliation(p.url, store.Reconciliation{})
	case p.listing != nil:
		// After a crash before the absent repositories are pending, the listing is read again.
		b.PutReconciliation(p.url, store.Reconciliation{Stage: store.ReconcileListed})
	default:
		b.DropReconciliation(p.url)
	}
	return ended, hosts.OfStore(b.CommitSync())
}
