package phase

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Phase is how much of its work the daemon does.
type Phase uint8

// The phases, in the order in which work ends.
const (
	// Active does all work.
	Active Phase = iota
	// Draining begins no work over the network that would need the disk. What began goes on.
	Draining
	// Suspended writes nothing to the disk in addition.
	Suspended
)

var phaseNames = [...]string{"active", "draining", "suspended"}

// String returns the name of a phase.
func (p Phase) String() string { return phaseNames[p] }

// Parse returns the phase of a name. The error names the value.
func Parse(name string) (Phase, error) {
	for i, n := range phaseNames {
		if n == name {
			return Phase(i), nil
		}
	}
	return 0, fmt.Errorf("phase %.40q is unknown: want %s", name, strings.Join(phaseNames[:], ", "))
}

// ErrStopping means that the daemon has begun to stop, which no phase changes any more.
var ErrStopping = errors.New("the daemon is stopping")

// ErrSuspended means that the daemon is suspended until it ends (Options.Suspended).
var ErrSuspended = errors.New("the daemon is suspended until it ends")

// Action is what is to be done next.
type Action uint8

// The actions.
const (
	// Rest is to wait for a request, or for the end of the phase.
	Rest Action = iota
	// Shut is to shut the gates of the network.
	Shut
	// Drain is to wait until what began before has ended and is durable.
	Drain
	// Freeze is to shut the disk.
	Freeze
	// Thaw is to open the disk.
	Thaw
	// Open is to open the gates of the network.
	Open
)

// stage is what was done so far.
type stage uint8

const (
	working stage = iota // gates and disk are open
	ending               // gates are shut
	ended                // in addition, what began before has ended
	frozen               // in addition, the disk is shut
)

// Machine decides which action leads to the phase that is wanted. The zero Machine is active.
type Machine struct {
	stage    stage
	wanted   Phase
	until    time.Time // when active is wanted again; zero for never
	stopping bool
	fixed    bool // suspended for good
}

// Suspend makes the machine suspended for good. The gates and the disk are shut already.
func (m *Machine) Suspend() { m.stage, m.wanted, m.fixed = frozen, Suspended, true }

// Request wants a phase until a time, from which on active is wanted. It returns ErrStopping after
// Stop, and ErrSuspended after Suspend.
func (m *Machine) Request(p Phase, until time.Time) error {
	switch {
	case m.stopping:
		return ErrStopping
	case m.fixed:
		return ErrSuspended
	}
	m.wanted, m.until = p, until
	if p == Active {
		m.until = time.Time{}
	}
	return nil
}

// Stop wants work to end for good, and the disk to be open for that. After Suspend the disk stays
// shut: no work is left.
func (m *Machine) Stop() {
	m.stopping = true
	if !m.fixed {
		m.wanted, m.until = Draining, time.Time{}
	}
}

// Expire wants active if the time of the phase is over, and reports whether it was.
func (m *Machine) Expire(now time.Time) bool {
	if m.until.IsZero() || now.Before(m.until) {
		return false
	}
	m.wanted, m.until = Active, time.Time{}
	return true
}

// Next returns the action to take. The caller reports its success by Done.
func (m *Machine) Next() Action {
	switch m.wanted {
	case Active:
		switch m.stage {
		case working:
			return Rest
		case frozen:
			return Thaw
		}
		return Open
	case Draining:
		switch m.stage {
		case frozen:
			return Thaw
		case ended:
			return Rest
		}
	case Suspended:
		switch m.stage {
		case ended:
			return Freeze
		case frozen:
			return Rest
		}
	}
	if m.stage == working {
		return Shut
	}
	return Drain
}

// Done records that an action of Next was taken. What was wanted may have changed meanwhile.
func (m *Machine) Done(a Action) {
	switch a {
	case Shut, Thaw: // writes that waited for the thaw are work that began
		m.stage = ending
	case Drain:
		m.stage = ended
	case Freeze:
		m.stage = frozen
	case Open:
		m.stage = working
	}
}

// Phase returns the phase that the daemon is in.
func (m *Machine) Phase() Phase {
	switch m.stage {
	case working:
		return Active
	case frozen:
		return Suspended
	}
	return Draining
}

// Wanted returns the phase that is wanted, and when active is wanted again.
func (m *Machine) Wanted() (p Phase, until time.Time) { return m.wanted, m.until }

// Reached reports whether the daemon is in the phase that is wanted, and nothing is left to do.
func (m *Machine) Reached() bool { return m.Next() == Rest }
