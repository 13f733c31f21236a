package discover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cistern/backfill/hosts"
	"cistern/loop"
)

const (
	// comparedMax is how many listings of a Comparison are requested at a time: enough to keep all
	// passes busy, and few that go on after it was stopped.
	comparedMax = 2 * passesMax
	// comparisonLook is how often a Comparison looks at them.
	comparisonLook = 250 * time.Millisecond
	// setbacksMax is how often the host of a listing may fail in a row before a Comparison ends
	// without it. A dead host would hold it up for ever.
	setbacksMax = 3
)

// Comparison compares the listings of all known hosts and of sources with the stored rows, once. It
// requests a few passes at a time. A request is a row: what was requested is compared whatever
// becomes of the Comparison.
type Comparison struct {
	r       *Runner
	sources []string

	listed               bool // urls are known
	total                int
	urls, active, heldUp []string // not requested; not known to have ended; of hosts that failed
}

// NewComparison returns the comparison of the listings of all known hosts and of sources, which are
// base URLs. Nothing is requested before Run.
func (r *Runner) NewComparison(sources []string) *Comparison {
	return &Comparison{r: r, sources: sources}
}

// Run requests comparisons and waits for their ends, until all have ended or their hosts have
// failed repeatedly. If ctx ends, it returns the error of ctx, and another call continues. While
// the gate of discovery is shut nothing more is requested. progress is told how many of all
// listings are done, and why none is requested.
func (c *Comparison) Run(ctx context.Context, progress func(done, total int, waits string)) error {
	for {
		waits, err := c.step()
		done := c.total - len(c.urls) - len(c.active)
		progress(done, c.total, waits)
		switch {
		case err != nil:
			return err
		case c.listed && done == c.total:
			if n := len(c.heldUp); n > 0 {
				c.r.opts.Logger.Warn("listings were not compared: their hosts fail; they are compared "+
					"when the hosts answer", "listings", n, "of", c.total, "first", c.heldUp[0])
			}
			return nil
		}
		if loop.Sleep(ctx, comparisonLook, nil); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// step notes what has ended, and requests more. It returns why it does not.
func (c *Comparison) step() (waits string, err error) {
	if c.active, err = c.pending(); err != nil {
		return "", err
	}
	if causes := c.r.opts.Gate.Causes(); len(causes) > 0 {
		return causes[0].Reason, nil
	}
	if !c.listed {
		if c.urls, err = c.r.listings(c.sources); err != nil {
			return "", err
		}
		c.listed, c.total = true, len(c.urls)
	}
	n := min(len(c.urls), comparedMax-len(c.active))
	if n == 0 {
		return "", nil
	}
	more := slices.Clone(c.urls[:n])
	for _, url := range more {
		c.r.setbacks.set(url, 0)
	}
	err = c.r.requestReconciliations(more)
	if err == nil {
		c.urls, c.active = c.urls[n:], append(c.active, more...)
		c.r.gapSeen.Store(true)
		loop.Wake(c.r.kickPass)
	}
	return "", err
}

// pending returns the active listings whose passes have not ended and are not held up.
func (c *Comparison) pending() (active []string, err error) {
	for _, url := range c.active {
		_, asked, err := c.r.store.Reconciliation(url)
		switch {
		case err != nil:
			return c.active, hosts.OfStore(err)
		case asked && c.r.setbacks.of(url) >= setbacksMax:
			c.heldUp = append(c.heldUp, url)
		case asked:
			active = append(active, url)
		}
	}
	return active, nil
}

// listings returns the base URLs of the listings of all known hosts and of sources.
func (r *Runner) listings(sources []string) (urls []string, err error) {
	from := "https:"
	for _, s := range r.crawls.all() {
		from = s.source.URL
	}
	if len(sources) > 0 {
		from = sources[0]
	}
	urls, err = r.knownHosts(from)
	if err != nil {
		return nil, fmt.Errorf("read the known hosts: %w", err)
	}
	urls = append(urls, sources...)
	slices.Sort(urls)
	return slices.Compact(urls), nil
}

// setbacks counts the failures in a row of hosts whose listings are compared, by base URL. It has
// those that have failed.
type setbacks struct{ count sync.Map }

func (s *setbacks) of(url string) int {
	n, _ := s.count.Load(url)
	failures, _ := n.(int)
	return failures
}

func (s *setbacks) set(url string, n int) {
	if s.count.Store(url, n); n == 0 {
		s.count.Delete(url)
	}
}

// add counts a failure, unless the host was not asked. A ban lasts.
func (s *setbacks) add(url string, err error) {
	var busy *hosts.BusyError
	switch {
	case errors.Is(err, hosts.ErrBanned):
		s.set(url, setbacksMax)
	case !errors.As(err, &busy):
		s.set(url, s.of(url)+1)
	}
}
