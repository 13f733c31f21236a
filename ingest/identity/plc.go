package identity

import (
	"cmp"
	"sync"
	"time"
)

// plcPool remembers which PLC directories asked us to wait, failed a moment ago, or have a fault.
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
	fault   fault
	// Probes ask for known, the newest DID whose document it had, or else for missed, the newest that
	// it gave no answer about.
	known, missed string
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

// failed notes that a directory gave no answer about a DID, and puts it behind the others for a
// moment.
func (p *plcPool) failed(base, did string, err error) {
	p.update(base, func(d *plcDirectory) {
		d.failing = p.now().Add(failingPause)
		d.missed = did
		d.fault.failed(err, p.now())
	})
}

// park stops requests to a directory for the delay that it asked for, or parkDefault if d ≤ 0.
func (p *plcPool) park(base, did string, wait time.Duration, err error) {
	if wait <= 0 {
		wait = parkDefault
	}
	p.update(base, func(d *plcDirectory) {
		d.parked = p.now().Add(min(wait, parkMax))
		d.missed = did
		d.fault.refused(err, p.now())
	})
}

// answered notes an answer of a directory. known is the DID if it has its document.
func (p *plcPool) answered(base, known string) {
	p.update(base, func(d *plcDirectory) {
		d.known = cmp.Or(known, d.known)
		d.fault.answered(p.now())
	})
}

// faults returns the faults of the directories.
func (p *plcPool) faults() (all []Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for i := range p.dirs {
		if f, ok := p.dirs[i].fault.view(p.dirs[i].base, now); ok {
			all = append(all, f)
		}
	}
	return all
}

// probe is a request for a DID that Run makes to a directory.
type probe struct{ base, did string }

// probes returns the probes of the directories that did not answer a request of the last
// FaultWindow, or have a fault. The probe of a directory that asked us to wait is not made, and
// counts as refused.
func (p *plcPool) probes() (all []probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	for i := range p.dirs {
		d := &p.dirs[i]
		switch {
		case now.Before(d.parked):
			d.fault.missed(now)
		case d.fault.suspect(now):
			all = append(all, probe{d.base, cmp.Or(d.known, d.missed)})
		}
	}
	return all
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
