package condition_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/condition"
	"cistern/gate"

	"pgregory.net/rapid"
)

// modelled is what must hold of one condition, told independently of the code: whether it waits
// follows from its readings alone.
type modelled struct {
	need, resume uint64
	free         uint64
	fails        bool

	waits, unknown bool
	failing        time.Time // zero: the last reading succeeded
}

func (m *modelled) look(now time.Time, first bool) {
	if m.fails {
		if m.failing.IsZero() {
			m.failing = now
		}
		if first || now.Sub(m.failing) >= condition.ReadGrace {
			m.waits, m.unknown = false, true
		}
		return
	}
	m.failing, m.unknown = time.Time{}, false
	switch {
	case m.free < m.need:
		m.waits = true
	case m.free >= m.resume:
		m.waits = false
	}
}

// TestRandomReadings has conditions with random readings, failures and clocks: the gates are shut by
// exactly the conditions that wait, a condition pauses only because of its own readings, and since
// is when the state changed last.
func TestRandomReadings(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_700_000_000, 0)
		var all []*modelled
		var conditions []condition.Condition
		for i := range rapid.IntRange(1, 4).Draw(t, "conditions") {
			need := rapid.Uint64Range(0, 1000).Draw(t, "need")
			m := &modelled{need: need, resume: need + need/condition.DiskSlack}
			all = append(all, m)
			c := condition.Disk(condition.Probe{Disk: func(string) (uint64, uint64, error) {
				if m.fails {
					return 0, 0, errUnread
				}
				return m.free, 1000, nil
			}}, "/", func(uint64) uint64 { return need })
			c.Name = fmt.Sprint("c", i)
			conditions = append(conditions, c)
		}
		gates := []*gate.Gate{new(gate.Gate), new(gate.Gate)}
		gates[1].Shut(gate.Cause{Name: "operator"})
		w, err := condition.New(condition.Options{Conditions: conditions, Gates: gates, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		states := map[string]condition.Status{}
		for look := range rapid.IntRange(1, 60).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.Int64Range(-int64(5*time.Second), int64(40*time.Second)).Draw(t, "step")))
			stop := false
			for _, m := range all {
				m.free = rapid.OneOf(rapid.Uint64Range(0, 1100), rapid.Uint64Range(m.need-min(m.need, 5), m.resume+5)).Draw(t, "free")
				m.fails = rapid.IntRange(0, 3).Draw(t, "fails") == 0
				m.look(now, look == 0)
				stop = stop || !m.fails && m.free < m.need/4
			}
			if err := w.Look(); err != nil != stop {
				t.Fatalf("look %d: %v, want a stop: %t", look, err, stop)
			}
			waiting := 0
			for i, st := range w.Status() {
				m := all[i]
				want := condition.OK
				switch {
				case m.waits:
					want = condition.Waiting
					waiting++
				case m.unknown:
					want = condition.Unknown
				}
				if st.State != want || m.fails != (st.Error != "") {
					t.Fatalf("look %d: %+v, want %s of %+v", look, st, want, m)
				}
				if was := states[st.Name]; was.State != st.State && !st.Since.Equal(now) || was.State == st.State && !st.Since.Equal(was.Since) {
					t.Fatalf("look %d at %s: %+v, before %+v", look, now, st, was)
				}
				states[st.Name] = st
				for j, g := range gates {
					if g.ShutBy(st.Name) != m.waits {
						t.Fatalf("look %d: %s waits %t, gate %d has %v", look, st.Name, m.waits, j, g.Causes())
					}
				}
			}
			if n := len(gates[0].Causes()); n != waiting || len(gates[1].Causes()) != n+1 {
				t.Fatalf("look %d: %d wait, the gates have %v and %v", look, waiting, gates[0].Causes(), gates[1].Causes())
			}
		}
	})
}
