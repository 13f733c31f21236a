package identity

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"
)

// plcPool remembers which PLC directories asked us to wait, failed a moment ago, or fail.
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
	fault   Fault     // Attempts is 0 while it answers
}

// Fault is a PLC directory that gives no usable answer: it cannot be reached, it answers with an
// error or a page, or it refuses requests. A DID that it does not have is an answer.
type Fault struct {
	Base     string    // its URL, without a password
	Since    time.Time // when the first request failed
	Attempts int       // requests that failed since then
	Error    string    // of the last one
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
func (p *plcPool) failed(base string, err error) {
	p.update(base, func(d *plcDirectory) {
		d.failing = p.now().Add(failingPause)
		d.blame(err, p.now())
	})
}

// park stops requests to a directory for the delay that it asked for, or parkDefault if d ≤ 0.
func (p *plcPool) park(base string, wait time.Duration, err error) {
	if wait <= 0 {
		wait = parkDefault
	}
	p.update(base, func(d *plcDirectory) {
		d.parked = p.now().Add(min(wait, parkMax))
		d.blame(err, p.now())
	})
}

// answered ends the fault of a directory.
func (p *plcPool) answered(base string) {
	p.update(base, func(d *plcDirectory) { d.fault = Fault{} })
}

// blame counts a request that failed.
func (d *plcDirectory) blame(err error, now time.Time) {
	if d.fault.Attempts == 0 {
		d.fault.Base, d.fault.Since = d.base, now
		if u, err := url.Parse(d.base); err == nil {
			d.fault.Base = u.Redacted()
		}
	}
	d.fault.Attempts++
	d.fault.Error = err.Error()
	if u, ok := errors.AsType[*url.Error](err); ok { // it names the DID of one request
		d.fault.Error = strings.Replace(d.fault.Error, u.Error(), u.Err.Error(), 1)
	}
}

// faults returns the directories that fail.
func (p *plcPool) faults() (all []Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range p.dirs {
		if d.fault.Attempts > 0 {
			all = append(all, d.fault)
		}
	}
	return all
}

// suspects returns the directories that fail and have not asked us to wait.
func (p *plcPool) suspects() (bases []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for _, d := range p.dirs {
		if d.fault.Attempts > 0 && !now.Before(d.parked) {
			bases = append(bases, d.base)
		}
	}
	return bases
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
