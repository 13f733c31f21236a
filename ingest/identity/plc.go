package identity

import (
	"sync"
	"time"
)

// plcPool remembers which PLC directories asked us to wait or failed a moment ago.
type plcPool struct {
	now func() time.Time

	// mu guards:
	mu   sync.Mutex
	dirs []plcDirectory
}

type plcDirectory struct {
	base    string
	failing time.Time // until then the others are asked first
	parked  time.Time // until then it is not asked: it answered 429
}

const (
	// failingPause keeps a directory that failed from costing every lookup its timeout, and is
	// short enough to return to the preferred one soon.
	failingPause = 5 * time.Second
	// A 429 without a usable delay parks for parkDefault. Any delay is clamped to parkMax, so that
	// a hostile header cannot stop lookups for long.
	parkDefault = 5 * time.Second
	parkMax     = 5 * time.Minute
)

func newPLCPool(bases []string, now func() time.Time) *plcPool {
	p := &plcPool{now: now}
	for _, b := range bases {
		p.dirs = append(p.dirs, plcDirectory{base: b})
	}
	return p
}

// order lists the directories to ask, in order: healthy ones as configured, then those failing
// lately. Empty means that all are parked, the first until the time returned.
func (p *plcPool) order() (bases []string, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	var last []string
	for _, d := range p.dirs {
		switch {
		case now.Before(d.parked):
			if until.IsZero() || d.parked.Before(until) {
				until = d.parked
			}
		case now.Before(d.failing):
			last = append(last, d.base)
		default:
			bases = append(bases, d.base)
		}
	}
	return append(bases, last...), until
}

// failed puts a directory behind the others for a moment.
func (p *plcPool) failed(base string) {
	p.update(base, func(d *plcDirectory) { d.failing = p.now().Add(failingPause) })
}

// park stops requests to a directory for the delay that it asked for, or parkDefault if d ≤ 0.
func (p *plcPool) park(base string, wait time.Duration) {
	if wait <= 0 {
		wait = parkDefault
	}
	p.update(base, func(d *plcDirectory) { d.parked = p.now().Add(min(wait, parkMax)) })
}

func (p *plcPool) update(base string, change func(*plcDirectory)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.dirs {
		if p.dirs[i].base == base {
			change(&p.dirs[i])
		}
	}
}
