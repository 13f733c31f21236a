package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/condition"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// machine is a machine and a clock whose readings a test sets, under a daemon.
type machine struct {
	looks atomic.Int64 // that have ended

	mu      sync.Mutex // guards what follows
	free    uint64     // of 1,000 MB
	point   string
	stalled map[condition.Resource]float64
	now     time.Time
	broken  error // of each reading
}

func (m *machine) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// tune has a daemon read the machine many times a second.
func (m *machine) tune() tuning {
	read := func(f func()) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		f()
		return m.broken
	}
	tune := hasty()
	tune.probe = func(p *condition.Probe) {
		p.Disk = func(string) (free, total uint64, err error) {
			err = read(func() { free, total = m.free, 1e9 })
			return free, total, err
		}
		p.Mount = func(string) (point string, err error) {
			err = read(func() { point = m.point })
			return point, err
		}
		p.Stalled = func(of condition.Resource) (percent float64, err error) {
			err = read(func() { percent = m.stalled[of] })
			return percent, err
		}
		p.Overload = func() (float64, error) { return 0, errors.New("no load") }
		p.Available = func() (float64, error) { return 0, errors.New("no memory") }
	}
	tune.conditions = func(o *condition.Options) {
		o.Every = 10 * time.Millisecond
		o.Now = func() (now time.Time) {
			_ = read(func() { now = m.now })
			return now
		}
		o.Conditions = append(o.Conditions, condition.Condition{Name: "looks", Read: func(time.Time) (condition.Reading, error) {
			m.looks.Add(1)
			return condition.Reading{}, nil
		}})
	}
	return tune
}

// look waits until every condition was read by a look that began after the call.
func (m *machine) look(t *testing.T, x *testIndex) {
	t.Helper()
	end := m.looks.Load() + 2
	x.await(t, "two looks", func() error {
		if n := m.looks.Load(); n < end {
			return fmt.Errorf("%d of %d looks", n, end)
		}
		return nil
	})
}

// paused is the part of /stats about pauses, and of GET /conditions.
type paused struct {
	Paused     map[string][]string
	Conditions []struct{ Name, State, Since, Reason, Subject, Error string }
}

func (x *testIndex) paused(t *testing.T, path string) (p paused) {
	t.Helper()
	if err := x.call(t.Context(), "GET", path, nil, func(b []byte) error { return json.Unmarshal(b, &p) }); err != nil {
		t.Fatal(err)
	}
	return p
}

// wantPaused checks that one condition, or none for "", pauses backfill and crawling and nothing else.
func (x *testIndex) wantPaused(t *testing.T, name, reason string) {
	t.Helper()
	p, want := x.paused(t, "/stats"), map[string][]string(nil)
	if name != "" {
		why := []string{name + ": " + reason}
		want = map[string][]string{"backfill": why, "crawler": why}
	}
	if !reflect.DeepEqual(p.Paused, want) {
		t.Errorf("/stats says that %v pauses, want %v", p.Paused, want)
	}
	for _, c := range p.Conditions {
		state := "ok"
		if c.Name == name {
			state = "waiting"
		}
		if _, err := time.Parse(time.RFC3339, c.Since); err != nil || c.State != state || c.Name == name && c.Reason != reason || c.Subject+c.Error != "" {
			t.Errorf("/stats says %+v, want %s (%v)", c, state, err)
		}
	}
}

// TestConditions turns each condition on and off under a running daemon: within two looks backfill
// and crawling pause, with the reason, live events and everything else go on, and they resume.
func TestConditions(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 12, Repos: 30, Hosts: 2})
	x := newTestIndex(t)
	begun := time.Now()
	hours := fmt.Sprintf("%d-%d", begun.Add(-time.Hour).Hour(), begun.Add(5*time.Hour).Hour())
	span, err := parseHours(hours)
	if err != nil {
		t.Fatal(err)
	}
	late := begun.Add(8 * time.Hour)
	m := &machine{free: 500e6, point: "/srv", stalled: map[condition.Resource]float64{}, now: begun}
	args := []string{"run", "--data", x.dir, "--listen", x.public, "--admin", x.admin, "--plc", n.PLC(), "--allow-private",
		"--log-level", "warn", "--mode", "full", "--relay", n.Relay(), "--disk-reserve", "100MB", "--data-mount", "/srv",
		"--backfill-hours", hours, "--pause-lag", "1", "--pause-lag", "1h", "--pause-pressure", "cpu=90", "--pause-pressure", "memory=10%", "--pause-pressure", "io=50"}
	stop := x.startTuned(t, args, m.tune())
	x.settle(t, map[string]int64{"synced": active(n.Accounts())})
	accounts := n.Accounts()
	fetched, live := accounts[0], accounts[1]
	for _, c := range []struct {
		name, reason string
		on, off      func()
	}{
		{"disk", "95 MiB free, 95 MiB needed", func() { m.free = 99_999_999 }, func() { m.free = 200e6 }},
		{"mount", "the data directory is not on its mount point", func() { m.point = "/" }, func() { m.point = "/srv" }},
		{"hours", fmt.Sprintf("it is %s, the hours are %s", late.Format("15:04"), span), func() { m.now = late }, func() { m.now = begun }},
		{"cpu", "tasks wait 90.5 % of the time, 90.0 % allowed", func() { m.stalled[condition.CPU] = 90.5 }, func() { m.stalled[condition.CPU] = 2 }},
		{"memory", "tasks wait 11.0 % of the time, 10.0 % allowed", func() { m.stalled[condition.Memory] = 11 }, func() { m.stalled[condition.Memory] = 2 }},
		{"io", "tasks wait 99.0 % of the time, 50.0 % allowed", func() { m.stalled[condition.IO] = 99 }, func() { m.stalled[condition.IO] = 2 }},
	} {
		m.set(c.on)
		m.look(t, x)
		x.wantPaused(t, c.name, c.reason)
		x.wantOnlyLive(t, m, fetched, live)
		m.set(c.off)
		m.look(t, x)
		x.wantPaused(t, "", "")
		x.settle(t, map[string]int64{"synced": active(n.Accounts())})
	}
	x.wantLagPauses(t, m, n, fetched)
	x.wantBroken(t, m)
	stop()
	x.wantStore(t, n.Accounts())
}

// wantOnlyLive checks that a request to fetch a repository waits, while live events are applied.
func (x *testIndex) wantOnlyLive(t *testing.T, m *machine, fetched, live *simnet.Account) {
	t.Helper()
	if err := x.call(t.Context(), "POST", "/repos/resync", []string{fetched.DID()}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := live.Mutate(1); err != nil {
		t.Fatal(err)
	}
	x.awaitRevs(t, []*simnet.Account{live})
	m.look(t, x)
	row := struct{ State string }{}
	err := x.call(t.Context(), "GET", "/repos/"+fetched.DID(), nil, func(b []byte) error { return json.Unmarshal(b, &row) })
	if err != nil || row.State != "pending" {
		t.Errorf("the repository is %s (%v): it should wait", row.State, err)
	}
	var switches map[string]bool
	if err := x.call(t.Context(), "GET", "/ingestion", nil, func(b []byte) error { return json.Unmarshal(b, &switches) }); err != nil ||
		!reflect.DeepEqual(switches, map[string]bool{"backfill": true, "crawler": true, "firehose": true}) {
		t.Errorf("the switches are at %v (%v)", switches, err)
	}
}

// wantLagPauses has a subscription be behind by events, then by time, and caught up.
func (x *testIndex) wantLagPauses(t *testing.T, m *machine, n *simnet.Network, fetched *simnet.Account) {
	t.Helper()
	x.send(t, "PUT", "/subscriptions/slow", `{"start":"oldest"}`)
	m.look(t, x)
	p := x.paused(t, "/conditions")
	if len(p.Conditions) < 4 || p.Conditions[3].Name != "lag" || p.Conditions[3].State != "waiting" || p.Conditions[3].Subject != "slow" ||
		!strings.HasSuffix(p.Conditions[3].Reason, " events behind, 1 allowed") {
		t.Fatalf("GET /conditions says %+v", p.Conditions)
	}
	why := x.paused(t, "/stats").Paused["backfill"]
	if len(why) != 1 || !strings.HasPrefix(why[0], "lag: a subscription is ") || strings.Contains(why[0], "slow") {
		t.Errorf("/stats says %v", why)
	}
	x.wantOnlyLive(t, m, fetched, n.Accounts()[1])
	x.send(t, "POST", "/subscriptions/slow/replay", `{"start":"head"}`)
	m.look(t, x)
	x.wantPaused(t, "", "")
	x.settle(t, map[string]int64{"synced": active(n.Accounts())})
	x.send(t, "POST", "/subscriptions/slow/replay", `{"start":"head"}`)
	if _, err := n.Accounts()[1].Mutate(1); err != nil {
		t.Fatal(err)
	}
	x.await(t, "one event of lag", func() error {
		_, answer := x.send(t, "GET", "/subscriptions/slow", "")
		if !strings.Contains(answer, `"lag":1,`) {
			return errors.New(answer)
		}
		return nil
	})
	m.look(t, x)
	x.wantPaused(t, "", "") // one is allowed
	m.set(func() { m.now = m.now.Add(2 * time.Hour) })
	m.look(t, x)
	if p = x.paused(t, "/conditions"); p.Conditions[3].State != "waiting" || !strings.Contains(p.Conditions[3].Reason, "behind, 1h0m0s allowed") {
		t.Errorf("GET /conditions says %+v", p.Conditions[3])
	}
	m.set(func() { m.now = m.now.Add(-2 * time.Hour) })
	x.send(t, "DELETE", "/subscriptions/slow", "")
	m.look(t, x)
	x.wantPaused(t, "", "")
}

// wantBroken has all readings fail while one condition waits: it goes on to wait, visibly, and ends
// to wait after the grace.
func (x *testIndex) wantBroken(t *testing.T, m *machine) {
	t.Helper()
	m.set(func() { m.stalled[condition.IO] = 99 })
	m.look(t, x)
	m.set(func() { m.broken = errors.New("no such file") })
	m.look(t, x)
	states := func() (states string) {
		for _, c := range x.paused(t, "/conditions").Conditions {
			if c.Name == "disk" || c.Name == "io" || c.Name == "hours" {
				states += fmt.Sprintf("%s %s %t, ", c.Name, c.State, strings.Contains(c.Error, "no such file"))
			}
		}
		return states + fmt.Sprint(len(x.paused(t, "/stats").Paused))
	}
	if got := states(); got != "disk ok true, hours ok false, io waiting true, 2" {
		t.Error(got)
	}
	m.set(func() { m.now = m.now.Add(2 * time.Minute) })
	m.look(t, x)
	if got := states(); got != "disk unknown true, hours ok false, io unknown true, 0" {
		t.Error(got)
	}
	var metrics string
	if err := x.call(t.Context(), "GET", "/metrics", nil, func(b []byte) error { metrics = string(b); return nil }); err != nil {
		t.Error(err)
	}
	for _, want := range []string{`cistern_condition_unreadable{condition="disk"} 1`, `cistern_condition_unreadable{condition="hours"} 0`, `cistern_condition_waiting{condition="io"} 0`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	m.set(func() { m.broken, m.stalled[condition.IO] = nil, 0 })
	m.look(t, x)
	x.wantPaused(t, "", "")
}

// TestStartsOnItsMount: a daemon does not start, and makes no store, on another mount point, or on a
// disk that is too full, and says what to do.
func TestStartsOnItsMount(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		m    *machine
		want []string
	}{
		{"elsewhere", &machine{free: 1e9, point: "/"}, []string{"--data-mount /srv", "is on /, /srv needed", "mount the disk"}},
		{"unreadable", &machine{free: 1e9, broken: errors.New("no mounts")}, []string{"--data-mount /srv", "no mounts"}},
		{"full", &machine{free: 1, point: "/srv"}, []string{"--disk-reserve", "1 B free"}},
	} {
		dir := filepath.Join(t.TempDir(), "not", "yet")
		a := &app{Process: command.Process{Stdout: t.Output(), Stderr: t.Output()}, tune: c.m.tune()}
		err := a.run(t.Context(), []string{"run", "--data", dir, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-mount", "/srv/"})
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", c.name, err, want)
			}
		}
		if nearest(dir) == dir {
			t.Errorf("%s: the daemon made its directory", c.name)
		}
	}
}

// TestWaitingLine: the progress line names everything that backfill waits for.
func TestWaitingLine(t *testing.T) {
	t.Parallel()
	m := &machine{free: 80e6, now: time.Now(), stalled: map[condition.Resource]float64{condition.IO: 99}}
	cfg := Config{Data: t.TempDir(), PLC: []string{"http://127.0.0.1:1"}, AllowPrivate: true, Verify: "full", Reserve: reserve{bytes: 100e6},
		Pressure: []pressureLimit{{condition.IO, 50}, {condition.CPU, 50}}}
	tune := m.tune()
	tune.store = func(o *store.Options) { o.FS = vfs.NewMem() }
	d, err := newDaemon(cfg, newLogger(t.Output(), 0), listeners{listenAny(t), listenAny(t)}, tune)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.sample().waiting; got != "76 MiB free, 95 MiB needed; tasks wait 99.0 % of the time, 50.0 % allowed" {
		t.Errorf("waiting: %q", got)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
}

// TestBandwidthOfADay: backfill pauses once the budget of the day is spent, stays paused after a
// restart, and goes on the next day.
func TestBandwidthOfADay(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 13, Repos: 30, Hosts: 2})
	x := newTestIndex(t)
	noon := time.Now()
	m := &machine{free: 500e6, now: time.Date(noon.Year(), noon.Month(), noon.Day(), 12, 0, 0, 0, time.Local)}
	args := x.args(n, "--mode", "full", "--relay", n.Relay(), "--bandwidth-day", "1MiB", "--bandwidth", "1GiB")
	var dids []string
	for _, a := range n.Accounts() {
		dids = append(dids, a.DID())
	}
	stop := x.startTuned(t, args, m.tune())
	reason := func() string {
		why := x.paused(t, "/stats").Paused["backfill"]
		if len(why) == 1 && strings.HasSuffix(why[0], " received today, 1.0 MiB allowed") {
			return why[0]
		}
		return fmt.Sprint(len(why), " reasons ", why)
	}
	x.await(t, "the budget to be spent", func() error {
		if why := reason(); !strings.HasPrefix(why, "bandwidth: ") {
			_, counts := x.counts(t.Context())
			return errors.Join(fmt.Errorf("%s", x.paused(t, "/stats").Conditions[0].Reason), counts, x.call(t.Context(), "POST", "/repos/resync", dids, nil))
		}
		return nil
	})
	stop()
	stop = x.startTuned(t, args, m.tune())
	if why := reason(); !strings.HasPrefix(why, "bandwidth: ") {
		t.Errorf("after a restart: %s", why)
	}
	m.set(func() { m.now = m.now.Add(24 * time.Hour) })
	m.look(t, x)
	x.wantPaused(t, "", "")
	x.settle(t, map[string]int64{"synced": active(n.Accounts())})
	stop()
	x.wantStore(t, n.Accounts())
}
