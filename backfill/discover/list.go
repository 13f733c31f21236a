package discover

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"cistern/backfill/discover/pages"
	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/loop"
	"cistern/store"
)

// crawlShare divides the number of repositories that may still become pending: the accounts of one
// host may take one part, which is 2.5 million of the default Options.CrawlPendingMax. The largest
// hosts have a million accounts.
const crawlShare = 8

// crawlAccountsMax bounds the accounts accepted from a host that a relay names: a host that invents
// accounts costs a row of 300 bytes for each, with its event and its retry, 6 GB in all. The
// largest hosts have a million.
const crawlAccountsMax = 20_000_000

// list is one list of a source that is paged through independently. Its mark is the progress.
type list struct {
	name       store.CrawlList // name of its mark in the store
	origin     string          // origin of the host that is asked
	collection string          // it lists repositories with this collection; "": any
	roster     bool            // it lists hosts
	host       uint32          // the PDS whose own accounts it lists, in a source of hosts; else 0

	// owned by the goroutine that visits the list:
	mostlyNew bool                    // most accounts of the previous page were unknown
	known     map[string]signalAnswer // answers about accounts of the requested page,
	by        uint32                  // asked for with this version of the filter
	slow      bool                    // the last page took long
	heard     bool                    // its host has answered

	watch pages.Watch
	// listing records which accounts the list names. It is nil if the list is not that of a host, or
	// was resumed after a restart.
	listing *listing

	// crawler.mu guards:
	mark     pages.Mark
	failures int // in a row; changed only during a visit
	due      time.Time
	filter   uint32 // in force when it was visited last
	heap     int    // place in its queue, -1 for none
	trust    trust  // trust in its host; only the goroutine that visits the list changes it
}

// viewOf returns the purpose for which a filter has the lists of a source read. If ok is false, the
// lists are not read.
func (r *Runner) viewOf(s Source, f store.FilterVersion) (v reading, ok bool) {
	v = reading{filter: f.Version, why: store.ByNetwork, compare: s.Kind != SourceCollection,
		out: s.Kind != SourceCollection}
	switch {
	case f.Full():
		return v, true
	case s.Implied:
		return v, false
	case s.Kind == SourceCollection:
		v.why = store.BySignal
	case len(f.Signals()) > 0:
		v.why, v.ask, v.out = store.BySignal, true, false
	default:
		// The operator named the list, and there are no signals: its accounts are followed as if
		// the operator had named them.
		v.why, v.out = store.ByOperator, false
	}
	return v, true
}

// visit reads pages of a list until it has to wait, and returns when it must be visited again.
func (c *crawler) visit(ctx context.Context, l *list) (due time.Time, err error) {
	for range visitPagesMax {
		d, err := c.step(ctx, l)
		switch {
		case hosts.IsOfStore(err):
			return due, loop.Quiet(ctx, err)
		case ctx.Err() != nil:
			return due, nil
		case err != nil:
			c.r.metrics.pages.WithLabelValues(c.source.Kind, "error").Inc()
			d = c.r.listDelay(err, l)
			c.noteFailure(l, err)
			l.listing.set(listingStalled)
			c.r.opts.Logger.Warn("crawl failed", "source", l.name.String(), "retry", d, "err", err)
			return c.r.opts.Now().Add(d), nil
		}
		c.noteAnswer(l)
		if d > 0 || l.slow || c.r.opts.Gate.IsShut() {
			return c.r.opts.Now().Add(d), nil
		}
	}
	return c.r.opts.Now(), nil
}

// listDelay returns the delay that a list's host asks for, or a delay that grows from a second: up
// to minutes for the list of a source, and up to an hour for the list of one of many hosts.
func (r *Runner) listDelay(err error, l *list) time.Duration {
	if errors.Is(err, hosts.ErrBanned) {
		return crawlBannedAgain
	}
	most := crawlRetryMax
	if l.host != 0 {
		most = crawlHostRetryMax
	}
	return r.crawlDelay(err, l.failures, most)
}

// crawlDelay returns the delay that a host asks for, or a delay that grows from a second.
func (r *Runner) crawlDelay(err error, failures int, most time.Duration) time.Duration {
	var answer *hosts.AnswerError
	var busy *hosts.BusyError
	switch {
	case errors.As(err, &busy):
		return max(crawlKnown, busy.Until.Sub(r.opts.Now()))
	case errors.As(err, &answer) && answer.Wait > 0:
		return answer.Wait
	}
	return r.jitter.Vary(min(most, crawlPause<<min(failures, 20)))
}

// rest waits until the clock of the options has advanced by d. Signals on kick make it check the
// clock.
func (r *Runner) rest(ctx context.Context, d time.Duration, kick <-chan struct{}) {
	for until := r.opts.Now().Add(d); ctx.Err() == nil && r.opts.Now().Before(until); {
		loop.Sleep(ctx, min(until.Sub(r.opts.Now()), sleepMax), kick)
	}
}

// step reads one page, and returns how long to wait before the next.
func (c *crawler) step(ctx context.Context, l *list) (time.Duration, error) {
	r := c.r
	if err := c.renew(l); err != nil {
		return 0, err
	}
	if !l.roster && r.crowds(l.host) {
		return crawlPause, nil
	}
	if err := r.overrun(l.host); err != nil {
		return 0, err
	}
	f := r.store.Filter()
	v, ok := r.viewOf(c.source, f)
	if !ok {
		return crawlIdle, nil // unless the filter changes
	}
	was, err := r.store.CrawlMark(l.name)
	if err != nil {
		return 0, hosts.OfStore(err)
	}
	m := pages.Mark(was)
	anew := !l.roster && f.DiscoversSince(m.Filter)
	now := r.opts.Now()
	switch {
	case m.Ended != 0 && now.Before(m.Due(r.opts.CrawlEvery, now)) && !anew:
		return m.Due(r.opts.CrawlEvery, now).Sub(now), nil
	case m.Ended != 0 || anew:
		m = m.Again() // read from the beginning, with the new filter
	}
	m.Filter = f.Version
	if l.by != f.Version {
		l.known, l.by = nil, f.Version
	}
	if l.roster {
		return c.stepHosts(ctx, l, was, m)
	}
	return c.stepRepos(ctx, l, v, was, m)
}

// renew gives the list of a host the id that the host has now. A host whose accounts are all
// unknown may have lost the id that it had when the list was added.
func (c *crawler) renew(l *list) error {
	if l.host == 0 {
		return nil
	}
	id, err := c.r.hosts.HostID(identity.HostOf(l.origin))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l.host = id
	return nil
}

// crowds reports whether a list must wait because too many repositories are pending. The more are
// pending, the fewer may belong to one host. Hosts whose queues never shrink, because they are dead
// or invent accounts, then do not block other hosts, and a host without pending repositories always
// gets a page. Queues of banned hosts do not hold up the list of a relay.
func (r *Runner) crowds(host uint32) bool {
	left := r.opts.CrawlPendingMax - r.store.Counts()["pending"]
	if host == 0 {
		return left < 0 && left+r.queuedAtBanned() < 0
	}
	h, _ := r.store.HostByID(host)
	return h.Queued > max(0, left/crawlShare)
}

// queuedAtBanned returns how many repositories wait for banned hosts. It looks at all hosts with a
// queue.
func (r *Runner) queuedAtBanned() (n int64) {
	for _, id := range r.store.QueuedHosts() {
		if r.hosts.Banned(id) {
			h, _ := r.store.HostByID(id)
			n += h.Queued
		}
	}
	return n
}

// overrun returns an error if a host has named more accounts than any real host has. Unavailable
// accounts wait in no queue, so that the limit of pending repositories does not bound them.
func (r *Runner) overrun(host uint32) error {
	h, _ := r.store.HostByID(host)
	if host == 0 || h.Accounts < r.crawls.accountsMax {
		return nil
	}
	return fmt.Errorf("%d accounts of %s are known, and its list is not read for more",
		h.Accounts, h.Name)
}

// stepRepos reads a page of repositories. was is the stored mark, m the mark of the page.
func (c *crawler) stepRepos(
	ctx context.Context, l *list, v reading, was store.CrawlMark, m pages.Mark,
) (time.Duration, error) {
	r := c.r
	if l.host != 0 {
		v.host, v.id = identity.HostOf(l.origin), l.host
	}
	if m.Pages == 0 && (l.listing == nil || m.Cursor == "" && l.watch.Named()) {
		if err := c.open(l, v); err != nil {
			return 0, err
		}
	}
	v.listing = l.listing
	v.source = sourceOf(l.origin)
	begin := r.opts.Now()
	p, err := c.ask(ctx, l, m.Cursor)
	if err != nil {
		return 0, err
	}
	l.slow, l.heard = r.opts.Now().Sub(begin) > crawlSlow, true
	l.listing.set(listingRead)
	r.metrics.pages.WithLabelValues(c.source.Kind, "ok").Inc()
	named := len(p.Repos)
	todo := pages.WellFormed(p.Repos, r.opts.Now())
	names := pages.Accounts(todo)
	if !l.mostlyNew || v.ask { // for a page of new accounts, choose would only read each row twice
		if todo, err = r.choose(todo, v); err != nil {
			return 0, err
		}
	}
	var later []string
	if v.ask {
		at := ""
		if l.host != 0 {
			at = l.origin
		}
		if l.known == nil {
			l.known = map[string]signalAnswer{}
		}
		todo, later, err = r.inspect(ctx, todo, v, at, l.known)
		if err != nil && (l.failures < describeTries || ctx.Err() != nil || hosts.IsOfStore(err)) {
			return 0, err // the same page again
		}
	}
	r.awaitLive(ctx, todo, v)
	if r.unheard(todo, v) {
		if err := r.opts.Unheard(l.origin); err != nil {
			return 0, hosts.OfStore(err)
		}
	}
	to, whole := c.turn(l, m, p.Cursor, names, named)
	defer r.store.LockCrawlMark(l.name)()
	same, err := c.unmoved(l.name, was)
	if err != nil {
		return 0, err
	}
	s, err := r.absorb(todo, v, func(b *store.Batch) {
		r.postpone(b, later)
		if same {
			b.PutCrawlMark(l.name, store.CrawlMark(to))
		}
	})
	if errors.Is(err, errRefiltered) {
		return 0, nil // the same page again
	}
	if err != nil {
		return 0, err
	}
	if to.Ended != 0 {
		c.finished(l, same && whole)
	}
	l.known, l.mostlyNew = nil, 2*s.found > int64(named)
	s.listed = int64(named)
	c.notePage(l, to, s)
	return c.pause(l, to, s.found+s.queued > 0), nil
}

// unmoved reports whether the stored mark is still the mark with which a page was requested: it may
// have been forgotten meanwhile. Called with the lock of the mark held.
func (c *crawler) unmoved(name store.CrawlList, was store.CrawlMark) (bool, error) {
	now, err := c.r.store.CrawlMark(name)
	return now == was, hosts.OfStore(err)
}

// ask asks for the page of a list. A host that has never been asked gets only a part of the
// timeout.
func (c *crawler) ask(ctx context.Context, l *list, cursor string) (*pages.Page, error) {
	if l.collection != "" {
		return pages.Collection(ctx, c.r.hosts, l.origin, l.collection, cursor, c.r.opts.IdleTimeout)
	}
	within := c.r.opts.IdleTimeout
	if l.trust == untried && !l.heard {
		within /= untriedHaste
	}
	return pages.Repos(ctx, c.r.hosts, l.origin, cursor, within)
}

// turn returns the mark after a page with the given entries and following cursor, and whether this
// page was the regular end of the list.
func (c *crawler) turn(
	l *list, m pages.Mark, following string, names []string, entries int,
) (to pages.Mark, whole bool) {
	m.Pages++
	m.Named += int64(entries)
	next, end := l.watch.Page(m.Cursor, names, entries, m.Pages, following)
	if end == "" {
		m.Cursor = next
		return m, false
	}
	if end.Abandoned() {
		c.r.noteAbandoned(l.name.String(), m.Pages, end)
		c.noteTrouble("the listing repeats itself, or has no end")
	}
	return m.End(c.r.opts.Now()), end == pages.EndReached
}

// open prepares a list for its first page. If the host lists its own accounts, the listing
// remembers which accounts it names.
func (c *crawler) open(l *list, v reading) error {
	l.listing.set(listingDone)
	l.watch, l.listing = pages.Watch{}, nil
	accounts, _, err := c.r.accountsAt(l.origin)
	if err == nil && accounts > 0 && v.compare {
		l.listing = c.r.absences.join(identity.HostOf(l.origin))
	}
	return err
}

// finished starts the check of accounts that the list did not name, if it was read from beginning
// to end.
func (c *crawler) finished(l *list, whole bool) {
	if whole {
		l.listing.end("")
	} else {
		l.listing.set(listingDone)
	}
	l.watch, l.listing = pages.Watch{}, nil
}

// pause returns how long to wait after a page.
func (c *crawler) pause(l *list, m pages.Mark, something bool) time.Duration {
	switch {
	case m.Ended != 0:
		c.r.opts.Logger.Debug("crawl reached the end", "source", l.name.String(), "pages", m.Pages)
		now := c.r.opts.Now()
		return max(crawlKnown, m.Due(c.r.opts.CrawlEvery, now).Sub(now))
	case something:
		return 0
	}
	return crawlKnown
}

// stepHosts reads a page of hosts. Each host becomes a list of its own, in the batch that moves the
// mark. After the last page the hosts of all known accounts are added, since a relay that has just
// started names few.
func (c *crawler) stepHosts(
	ctx context.Context, l *list, was store.CrawlMark, m pages.Mark,
) (time.Duration, error) {
	p, err := pages.Hosts(ctx, c.r.hosts, l.origin, m.Cursor, c.r.opts.IdleTimeout)
	if err != nil {
		return 0, err
	}
	c.r.metrics.pages.WithLabelValues(c.source.Kind, "ok").Inc()
	fresh := map[store.CrawlList]bool{}
	var names []string
	for _, h := range p.Hosts {
		names = append(names, h.Hostname)
		if h.Status == "banned" || h.Status == "takendown" {
			continue
		}
		if origin, err := c.r.originOf(c.source.URL, h.Hostname); err == nil {
			c.discover(origin, fresh)
		}
	}
	to, _ := c.turn(l, m, p.Cursor, names, len(names))
	if to.Ended != 0 {
		l.watch = pages.Watch{}
		known, err := c.r.knownHosts(c.source.URL)
		if err != nil {
			return 0, err
		}
		for _, origin := range known {
			c.discover(origin, fresh)
		}
	}
	defer c.r.store.LockCrawlMark(l.name)()
	same, err := c.unmoved(l.name, was)
	if err != nil {
		return 0, err
	}
	b := c.r.store.NewBatch()
	for name := range fresh {
		b.PutCrawlMark(name, store.CrawlMark{})
	}
	if same {
		b.PutCrawlMark(l.name, store.CrawlMark(to))
	}
	if err := b.CommitSync(); err != nil {
		return 0, hosts.OfStore(err)
	}
	for name := range fresh {
		if err := c.addHost(name, pages.Mark{}); err != nil {
			return 0, err
		}
	}
	c.notePage(l, to, survey{})
	return c.pause(l, to, len(fresh) > 0), nil
}

// discover adds the list of a host, unless there is one.
func (c *crawler) discover(origin string, fresh map[store.CrawlList]bool) {
	name := c.source.list(origin)
	if !c.has(name) && c.size()+len(fresh) < crawlHostsMax {
		fresh[name] = true
	}
}

// originOf returns the origin at which a named host is asked. It uses TLS if the source that named
// the host does. In development, hosts are reached with the scheme of that source.
func (r *Runner) originOf(from, hostname string) (string, error) {
	if !strings.Contains(hostname, "://") && r.opts.AllowPrivate {
		if u, err := url.Parse(from); err == nil {
			hostname = u.Scheme + "://" + hostname
		}
	}
	origin, err := identity.ParseOrigin(hostname)
	if err == nil && strings.HasPrefix(from, "https:") && !strings.HasPrefix(origin, "https:") {
		err = fmt.Errorf("%.200q would be asked without TLS", hostname)
	}
	return origin, err
}
