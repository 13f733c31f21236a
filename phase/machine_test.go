package phase_test

import (
	"errors"
	"testing"
	"time"

	"cistern/phase"

	"pgregory.net/rapid"
)

// TestMachine drives a machine by random requests, failures, ends of phases and a stop, with a world
// of a gate, work and a disk. No action may come out of order, and every request must lead to its
// phase unless another takes its place.
func TestMachine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var m phase.Machine
		now := time.Unix(1_000_000, 0)
		shut, frozen, stopped, busy := false, false, false, 0
		act := func() {
			a := m.Next()
			switch a {
			case phase.Rest:
				return
			case phase.Shut:
				if shut {
					t.Fatal("shuts gates that are shut")
				}
				shut = true
			case phase.Drain:
				if !shut || frozen {
					t.Fatalf("drains with the gates shut: %t, the disk shut: %t", shut, frozen)
				}
				busy = 0
			case phase.Freeze:
				if !shut || frozen || busy > 0 || stopped {
					t.Fatalf("shuts the disk, shut: %t, %t; work in flight: %d; stopped: %t", shut, frozen, busy, stopped)
				}
				if rapid.Bool().Draw(t, "freezing fails") {
					return
				}
				frozen = true
			case phase.Thaw:
				if !frozen {
					t.Fatal("opens an open disk")
				}
				frozen, busy = false, busy+1 // a write that waited
			case phase.Open:
				if frozen || !shut || stopped {
					t.Fatalf("opens the gates, shut: %t, the disk, shut: %t; stopped: %t", shut, frozen, stopped)
				}
				shut = false
			}
			m.Done(a)
		}
		t.Repeat(map[string]func(*rapid.T){
			"act": func(*rapid.T) { act() },
			"work": func(*rapid.T) { // begins while the gates allow it
				if !shut {
					busy++
				}
			},
			"request": func(t *rapid.T) {
				p := phase.Phase(rapid.IntRange(0, 2).Draw(t, "phase"))
				until := now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "seconds")) * time.Second)
				err := m.Request(p, until)
				if errors.Is(err, phase.ErrStopping) != stopped {
					t.Fatalf("stopped: %t, and a request: %v", stopped, err)
				}
				if wanted, end := m.Wanted(); !stopped && (wanted != p || (p == phase.Active) != end.IsZero()) {
					t.Fatalf("asked for %s until %s: wants %s until %s", p, until, wanted, end)
				}
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second)
				_, until := m.Wanted()
				if over := m.Expire(now); over != (!until.IsZero() && !now.Before(until)) {
					t.Fatalf("at %s, a phase until %s is over: %t", now, until, over)
				}
			},
			"stop": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					m.Stop()
					stopped = true
				}
			},
			"": func(*rapid.T) {
				want := phase.Active
				switch {
				case frozen:
					want = phase.Suspended
				case shut:
					want = phase.Draining
				}
				if m.Phase() != want {
					t.Fatalf("says %s, is %s", m.Phase(), want)
				}
			},
		})
		for range 100 {
			act()
		}
		if wanted, _ := m.Wanted(); !m.Reached() || m.Phase() != wanted || stopped && m.Phase() != phase.Draining {
			t.Fatalf("wants %s and ends in %s; stopped: %t", wanted, m.Phase(), stopped)
		}
	})
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, p := range []phase.Phase{phase.Active, phase.Draining, phase.Suspended} {
		if got, err := phase.Parse(p.String()); got != p || err != nil {
			t.Errorf("%s: %s, %v", p, got, err)
		}
	}
	if _, err := phase.Parse("asleep"); err == nil || err.Error() != `phase "asleep" is unknown: want active, draining, suspended` {
		t.Errorf("asleep: %v", err)
	}
}
