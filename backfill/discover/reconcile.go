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

	"golang.org/x/sync/errgroup"
)

// reconciler reads the listings that must be compared with the stored rows, several at a time; each
// has a store.Reconciliation. Package ingest requests one when events were missed, and calls Wake.
// When events of a relay were missed, the reconciler requests the listings of all known hosts too
// (PutReconcileHosts). A pass whose host failed gives its place to another, and passes of hosts
// that are not trusted hold a bounded part of the places.
type reconciler struct {
	r *Runner

	// owned by the goroutine that starts passes:
	readAt   time.Time // when the cursors were read last
	readTook time.Duration
	all      time.Time // when the listings of all hosts were requested
	idle     time.Time // when the last pass ended; zero while passes run

	// mu guards:
	mu     sync.Mutex
	passes map[string]*pass // by base URL; the goroutine that runs a pass owns the rest of it
}

// reconcile runs passes until ctx ends.
func (r *Runner) reconcile(ctx context.Context) error {
	c := &reconciler{r: r, passes: map[string]*pass{}}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(passesMax + 1)
	g.Go(func() error { // starts the passes
		for ctx.Err() == nil {
			err := c.readCursors()
			if err == nil {
				err = c.askHosts()
			}
			if err != nil {
				return loop.Quiet(ctx, err)
			}
			d := c.start(func(p *pass) bool { return g.TryGo(func() error { return c.visit(ctx, p) }) })
			if r.gapSeen.Load() {
				d = min(d, max(time.Millisecond, c.readRest(r.opts.Now())))
			}
			loop.Sleep(ctx, d, r.kickPass)
		}
		return nil
	})
	return g.Wait()
}

// visit runs a pass until it ends or its host fails.
func (c *reconciler) visit(ctx context.Context, p *pass) error {
	err := p.run(ctx)
	c.mu.Lock()
	p.running, p.trust = false, trusted
	if p.failures > 0 || p.slow {
		p.trust = doubted
	}
	if p.over {
		delete(c.passes, p.url)
		c.r.setbacks.set(p.url, 0)
	}
	c.mu.Unlock()
	if p.over && err == nil {
		// If the pass was requested again as it ended, readCursors may have skipped it because it
		// was in c.passes.
		_, asked, failure := p.cursor()
		if err = failure; asked {
			c.r.gapSeen.Store(true)
		}
	}
	loop.Wake(c.r.kickPass)
	return loop.Quiet(ctx, err)
}

// readRest returns how long to wait before the cursors are read again, so that reading them takes a
// bounded part of the time.
func (c *reconciler) readRest(now time.Time) time.Duration {
	since := now.Sub(c.readAt)
	if since < 0 {
		return 0
	}
	return min(sleepMax, readRest*c.readTook) - since
}

// readCursors adds the requested passes. It reads the store when new requests are possible, and
// periodically.
func (c *reconciler) readCursors() error {
	now := c.r.opts.Now()
	if c.readRest(now) > 0 {
		return nil
	}
	if since := now.Sub(c.readAt); !c.r.gapSeen.Swap(false) && since >= 0 && since < sleepMax {
		return nil
	}
	asked, err := c.r.store.Reconciliations()
	if err != nil {
		return hosts.OfStore(err)
	}
	c.readAt = now
	c.mu.Lock()
	defer c.mu.Unlock()
	for url, row := range asked {
		if c.passes[url] == nil &&
			(row.Stage != store.ReconcileListed || !c.r.absences.awaits(url, nil)) {
			c.passes[url] = newPass(c.r, url)
		}
	}
	c.readTook = c.r.opts.Now().Sub(now)
	return nil
}

// start starts passes that are due while try accepts them, and returns how long until the next pass
// is due.
func (c *reconciler) start(try func(*pass) bool) time.Duration {
	now, d, running := c.r.opts.Now(), sleepMax, [trusts]int{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.passes {
		if p.running {
			running[p.trust]++
		}
	}
	for _, p := range c.passes {
		switch {
		case p.running || running[p.trust] >= p.trust.places(passesMax):
		case p.due.After(now):
			d = min(d, p.due.Sub(now))
		default:
			p.running = true
			if !try(p) {
				p.running = false
				return d
			}
			running[p.trust]++
		}
	}
	return d
}

// askHosts requests the listings of all known hosts after events of a relay were missed. A round is
// not cut short by the next, and the pause between two rounds is as long as the last round took.
func (c *reconciler) askHosts() error {
	now := c.r.opts.Now()
	if c.idle.IsZero() && !c.busy() {
		c.idle = now
	}
	if took := c.idle.Sub(c.all); c.idle.IsZero() ||
		!c.all.IsZero() && now.Sub(c.idle) >= 0 && now.Sub(c.idle) < took {
		return nil
	}
	relay, ok, err := c.r.store.BeginReconcileHosts()
	if err != nil || !ok {
		return hosts.OfStore(err)
	}
	origins, err := c.r.knownHosts(relay)
	if err == nil {
		err = c.r.requestReconciliations(origins)
	}
	if err != nil {
		return err
	}
	if err := c.r.store.EndReconcileHosts(); err != nil { // a crash before this requests all again
		return hosts.OfStore(err)
	}
	c.all, c.idle, c.readAt = now, time.Time{}, time.Time{}
	c.r.opts.Logger.Info("events were missed: the listings of all known hosts are compared",
		"relay", relay, "hosts", len(origins))
	return c.readCursors()
}

// requestReconciliations requests the comparison of listings. A comparison under way starts over.
// It takes the lock of each listing, since a pass that moves its cursor would otherwise overwrite
// the request.
func (r *Runner) requestReconciliations(urls []string) error {
	slices.Sort(urls)
	for chunk := range slices.Chunk(slices.Compact(urls), crawlLocksMax) {
		if err := r.requestSome(chunk); err != nil {
			return err
		}
	}
	return nil
}

// requestSome is requestReconciliations for URLs in ascending order, in one batch.
func (r *Runner) requestSome(urls []string) error {
	b := r.store.NewBatch()
	for _, url := range urls {
		defer r.store.LockReconciliation(url)()
		b.PutReconciliation(url, store.Reconciliation{})
	}
	return hosts.OfStore(b.CommitSync())
}

// busy reports whether the listing of a PDS that does not fail is being compared.
func (c *reconciler) busy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.passes {
		if p.own && p.trust != doubted {
			return true
		}
	}
	return false
}

// knownHosts returns the origins of the hosts of all known accounts, with the scheme of from.
func (r *Runner) knownHosts(from string) (origins []string, err error) {
	for after := ""; ; {
		page, next, err := r.store.Hosts(after, 1000,
			func(h *store.Host) bool { return h.ID != 0 && h.Accounts > 0 })
		if err != nil {
			return nil, hosts.OfStore(err)
		}
		for _, h := range page {
			if r.hosts.Banned(h.ID) {
				continue
			}
			if origin, err := r.originOf(from, h.Name); err == nil {
				origins = append(origins, origin)
			}
		}
		if next == "" {
			return origins, nil
		}
		after = next
	}
}

// accountsAt returns how many accounts are known at the host of a URL, and the id of the host.
func (r *Runner) accountsAt(base string) (accounts int64, id uint32, err error) {
	origin, _, err := identity.ParseBase(base)
	if err != nil {
		return 0, 0, nil
	}
	h, err := r.store.HostNamed(identity.HostOf(origin))
	if errors.Is(err, store.ErrNotFound) {
		return 0, 0, nil
	}
	return h.Accounts, h.ID, hosts.OfStore(err)
}
