package verify

import (
	"context"
	"time"

	"cistern/loop"
)

// pacer makes a loop work for a share of the time.
type pacer struct {
	share int       // percent
	since time.Time // the last rest ended
}

func newPacer(share int) *pacer { return &pacer{share: share, since: time.Now()} }

// rest is called between two pieces of work, each of a few milliseconds. It rests in proportion to
// the work since the last rest, and returns the error of ctx once ctx has ended.
func (p *pacer) rest(ctx context.Context) error {
	worked := time.Since(p.since)
	if p.share < 100 && worked >= restMin {
		loop.Sleep(ctx, worked*time.Duration(100-p.share)/time.Duration(p.share), nil)
		p.since = time.Now()
	}
	return ctx.Err()
}
