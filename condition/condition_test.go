package condition_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cistern/condition"
	"cistern/gate"
	"cistern/maintain"
)

var errUnread = errors.New("it is not there")

// machine is a Probe whose readings a test sets.
type machine struct {
	free, total                  uint64
	point                        string
	stalled, overload, available float64
	// failed has the names of the functions that fail.
	failed map[string]bool
}

func (m *machine) err(name string) error {
	if m.failed[name] {
		return fmt.Errorf("%s: %w", name, errUnread)
	}
	return nil
}

func (m *machine) probe() condition.Probe {
	return condition.Probe{
		Disk:      func(string) (uint64, uint64, error) { return m.free, m.total, m.err("disk") },
		Mount:     func(string) (string, error) { return m.point, m.err("mount") },
		Stalled:   func(condition.Resource) (float64, error) { return m.stalled, m.err("stalled") },
		Overload:  func() (float64, error) { return m.overload, m.err("overload") },
		Available: func() (float64, error) { return m.available, m.err("available") },
	}
}

// TestHysteresis passes each measure over its limit and back: the text has both figures, and what
// is between the limit and the end of the wait changes nothing.
func TestHysteresis(t *testing.T) {
	t.Parallel()
	m := machine{total: 10_000}
	var backlogs []condition.Backlog
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.Local)
	night, err := maintain.ParseHours("22-6")
	if err != nil {
		t.Fatal(err)
	}
	reserve := func(total uint64) uint64 { return total / 10 }
	lag := func(time.Time, bool) ([]condition.Backlog, error) { return backlogs, nil }
	type step struct {
		set   func()
		waits bool
		text  string
	}
	behind := func(events uint64, age time.Duration) func() {
		return func() {
			backlogs = []condition.Backlog{{Name: "a"}, {Name: "slow", Events: events, Age: age}, {Name: "z"}}
		}
	}
	free := func(n uint64) func() { return func() { m.free = n } }
	stalled := func(p float64) func() { return func() { m.stalled = p } }
	hour := func(h int) func() {
		return func() { now = time.Date(2026, 12, 1, h, 30, 0, 0, time.Local) }
	}
	for _, c := range []struct {
		name  string
		of    condition.Condition
		setup func()
		steps []step
	}{
		{"disk", condition.Disk(m.probe(), "/data", reserve), nil, []step{
			{free(1049), false, "1.0 KiB free, 1000 B needed"}, {free(1000), false, "1000 B free"}, {free(999), true, "999 B free, 1000 B needed"},
			{free(1049), true, "needed"}, {free(1050), false, "needed"}, {free(1000), false, "needed"}}},
		{"hours", condition.Hours(night), nil, []step{
			{hour(12), true, "it is 12:30, the hours are 22:00-06:00"}, {hour(22), false, "22:30"}, {hour(5), false, ""}, {hour(6), true, ""}}},
		{"lag by events", condition.Lag(condition.LagLimit{Events: 1000}, lag), nil, []step{
			{behind(0, 0), false, "0 events"}, {behind(1000, time.Hour), false, ""}, {behind(1001, 0), true, "1,001 events behind, 1,000 allowed"},
			{behind(751, 0), true, "751"}, {behind(750, 0), false, "750"}, {func() { backlogs = nil }, false, "0 events behind"}}},
		{"lag by age", condition.Lag(condition.LagLimit{Age: time.Minute}, lag), nil, []step{
			{behind(9e9, time.Minute), false, ""}, {behind(1, time.Minute+1), true, "1m0s behind, 1m0s allowed"}, {behind(1, 46*time.Second), true, ""},
			{behind(1, 45*time.Second), false, ""}}},
		{"lag by both", condition.Lag(condition.LagLimit{Events: 10, Age: time.Minute}, lag), nil, []step{
			{behind(1, 2*time.Minute), true, "2m0s behind"}, {behind(11, 0), true, "11 events"}, {behind(1, 0), false, "1 events"}}},
		{"psi", condition.Pressure(m.probe(), condition.IO, 40), nil, []step{
			{stalled(40), false, "wait 40.0 % of the time, 40.0 % allowed"}, {stalled(40.5), true, "40.5"}, {stalled(31), true, ""}, {stalled(30), false, ""}, {stalled(39), false, ""}}},
		{"load", condition.Pressure(m.probe(), condition.CPU, 100), func() { m.failed = map[string]bool{"stalled": true} }, []step{
			{func() { m.overload = 100 }, false, "exceeds the processors by 100.0 %, 100.0 % allowed"}, {func() { m.overload = 101 }, true, ""}, {func() { m.overload = 75 }, false, ""}}},
		{"memory", condition.Pressure(m.probe(), condition.Memory, 8), func() { m.failed = map[string]bool{"stalled": true} }, []step{
			{func() { m.available = 8 }, false, "8.0 % of the memory is available, 8.0 % needed"}, {func() { m.available = 7.9 }, true, ""},
			{func() { m.available = 9.9 }, true, ""}, {func() { m.available = 10 }, false, ""}}},
		{"mount", condition.Mount(m.probe(), "/srv/data", "/srv/"), nil, []step{
			{func() { m.point = "/srv" }, false, "is on its mount point"}, {func() { m.point = "/" }, true, "is not on its"}, {func() { m.point = "" }, true, ""},
			{func() { m.point = "/srv" }, false, ""}}},
	} {
		m.failed = nil
		if c.setup != nil {
			c.setup()
		}
		var g gate.Gate
		said := "?"
		c.of.Told = func(reason string) { said = reason }
		w, err := condition.New(condition.Options{Conditions: []condition.Condition{c.of}, Gates: []*gate.Gate{&g}, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		if len(w.Status()) != 0 {
			t.Errorf("%s: %v before the first look", c.name, w.Status())
		}
		for i, s := range c.steps {
			s.set()
			if err := w.Look(); err != nil {
				t.Errorf("%s, step %d: %v", c.name, i, err)
			}
			st := w.Status()[0]
			if waits := st.State == condition.Waiting; waits != s.waits || !strings.Contains(st.Reason, s.text) || st.Error != "" {
				t.Errorf("%s, step %d: %+v, want waiting %t and %q", c.name, i, st, s.waits, s.text)
			}
			wantGate(t, fmt.Sprintf("%s, step %d", c.name, i), &g, st, c.of.Halts)
			if s.waits != (said != "") || s.waits && said != st.Reason {
				t.Errorf("%s, step %d: told %q", c.name, i, said)
			}
		}
	}
}

// wantGate checks that a gate is shut by a condition exactly while that waits.
func wantGate(t interface{ Errorf(string, ...any) }, when string, g *gate.Gate, st condition.Status, halts bool) {
	causes := g.Causes()
	if st.State != condition.Waiting {
		if len(causes) != 0 {
			t.Errorf("%s: %s, and the gate has %v", when, st.State, causes)
		}
		return
	}
	if want := (gate.Cause{Name: st.Name, Reason: st.Name + ": " + st.Reason, Halts: halts}); len(causes) != 1 || causes[0] != want {
		t.Errorf("%s: the gate has %v, want %v", when, causes, want)
	}
}

// TestLagNamesTheSubscription: to the operator only.
func TestLagNamesTheSubscription(t *testing.T) {
	t.Parallel()
	c := condition.Lag(condition.LagLimit{Events: 5}, func(time.Time, bool) ([]condition.Backlog, error) {
		return []condition.Backlog{{Name: "fast", Events: 1}, {Name: "search", Events: 6}}, nil
	})
	r, err := c.Read(time.Now())
	if err != nil || r.Subject != "search" || strings.Contains(r.Text, "search") {
		t.Errorf("%+v, %v", r, err)
	}
	c = condition.Lag(condition.LagLimit{Events: 5}, func(time.Time, bool) ([]condition.Backlog, error) { return nil, errUnread })
	if _, err := c.Read(time.Now()); !errors.Is(err, errUnread) {
		t.Error(err)
	}
}

// TestDiskStops: below a quarter of the reserve the daemon must stop.
func TestDiskStops(t *testing.T) {
	t.Parallel()
	m := machine{free: 25, total: 1000}
	w, err := condition.New(condition.Options{Conditions: []condition.Condition{condition.Disk(m.probe(), "/data", func(uint64) uint64 { return 100 })}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Look(); err != nil {
		t.Error(err)
	}
	m.free = 24
	if err := w.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--disk-reserve") || !strings.Contains(err.Error(), "24 B free") {
		t.Errorf("stopped with %v", err)
	}
}

// TestUnreadable: a measure that cannot be read is visible at once, changes nothing for a while, and
// then pauses nothing.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	m := machine{free: 500, total: 1000, failed: map[string]bool{"disk": true, "stalled": true}}
	now := time.Unix(1e9, 0)
	var g gate.Gate
	w, err := condition.New(condition.Options{Gates: []*gate.Gate{&g}, Now: func() time.Time { return now }, Conditions: []condition.Condition{
		condition.Disk(m.probe(), "/data", func(uint64) uint64 { return 600 }), condition.Pressure(m.probe(), condition.IO, 10)}})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []struct {
		after time.Duration
		fails bool
		state condition.State
		since time.Duration // before now
	}{
		{0, true, condition.Unknown, 0}, // it never paused
		{time.Second, false, condition.Waiting, 0},
		{time.Second, true, condition.Waiting, time.Second},
		{condition.ReadGrace - time.Second, true, condition.Waiting, condition.ReadGrace},
		{time.Second, true, condition.Unknown, 0},
		{time.Hour, true, condition.Unknown, time.Hour},
		{time.Second, false, condition.Waiting, 0},
		{time.Second, true, condition.Waiting, time.Second}, // the grace begins anew
		{time.Second, false, condition.Waiting, 2 * time.Second},
	} {
		now = now.Add(s.after)
		m.failed["disk"] = s.fails
		if err := w.Look(); err != nil {
			t.Error(err)
		}
		st := w.Status()
		if st[0].State != s.state || now.Sub(st[0].Since) != s.since || s.fails != strings.Contains(st[0].Error, errUnread.Error()) {
			t.Errorf("step %d: %+v, %s ago; want %s, %s ago", i, st[0], now.Sub(st[0].Since), s.state, s.since)
		}
		wantGate(t, fmt.Sprintf("step %d", i), &g, st[0], true)
		if io := st[1]; io.State != condition.Unknown || !strings.Contains(io.Error, "stalled: it is not there") {
			t.Errorf("step %d: %+v, though nothing tells of io", i, io)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	read := func(time.Time) (condition.Reading, error) { return condition.Reading{}, nil }
	for _, o := range []condition.Options{
		{Conditions: []condition.Condition{{Name: "a", Read: read}, {Name: "a", Read: read}}},
		{Conditions: []condition.Condition{{Read: read}}},
		{Conditions: []condition.Condition{{Name: "a"}}},
		{Every: -1},
	} {
		if _, err := condition.New(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
