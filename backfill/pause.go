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

// set shuts the gate or opens it.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case shut && g.opened == nil:
		g.opened = make(chan struct{})
	case !shut && g.opened != nil:
		close(g.opened)
		g.opened = nil
	}
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
	r.tasksGate.set(paused)
	signal(r.kick)
}

// Paused is what SetPaused said last.
func (r *Runner) Paused() bool { return r.tasksGate.shut() }

// SetCrawlPaused stops Crawl from asking for pages, or lets it go on. A page that was asked for is
// finished.
func (r *Runner) SetCrawlPaused(paused bool) { r.crawlGate.set(paused) }

// CrawlPaused is what SetCrawlPaused said last.
func (r *Runner) CrawlPaused() bool { return r.crawlGate.shut() }
