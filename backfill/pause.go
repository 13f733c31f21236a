package backfill

import (
	"context"
	"sync"
)

// gate holds up who passes by while it is shut. The zero gate is open.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // mu guards; nil while open, closed when it opens again
}

// set shuts the gate or opens it, and reports whether that changed anything.
func (g *gate) set(shut bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case shut && g.opened == nil:
		g.opened = make(chan struct{})
	case !shut && g.opened != nil:
		close(g.opened)
		g.opened = nil
	default:
		return false
	}
	return true
}

func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened != nil
}

// pass waits until the gate is open, and says whether ctx is still alive then.
func (g *gate) pass(ctx context.Context) bool {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	if opened != nil {
		select {
		case <-ctx.Done():
		case <-opened:
		}
	}
	return ctx.Err() == nil
}

// SetPaused stops Run from starting tasks, or lets it go on. What is in flight is finished.
func (r *Runner) SetPaused(paused bool) {
	if r.tasksGate.set(paused) {
		r.opts.Logger.Info("backfill was switched", "on", !paused)
	}
	signal(r.kick)
}

// Paused is what SetPaused said last.
func (r *Runner) Paused() bool { return r.tasksGate.shut() }

// SetCrawlPaused stops Crawl from looking for new repositories, or lets it go on. A page that was asked for is finished. Listings
// that are compared because events were missed are read all the same: that is repair, not discovery.
func (r *Runner) SetCrawlPaused(paused bool) {
	if r.crawlGate.set(paused) {
		r.opts.Logger.Info("the crawler was switched", "on", !paused)
	}
}

// CrawlPaused is what SetCrawlPaused said last.
func (r *Runner) CrawlPaused() bool { return r.crawlGate.shut() }
