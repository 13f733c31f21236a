package hosts_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/store"
	"cistern/store/storetest"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newTable makes a table and the id of a host. A nil clock is the real one.
func newTable(t *testing.T, o hosts.Options, c *clock) (*hosts.Table, uint32) {
	t.Helper()
	o.Store = storetest.Open(t, store.Options{})
	if c != nil {
		o.Now = c.time
	}
	table, err := hosts.New(o)
	if err != nil {
		t.Fatal(err)
	}
	id, err := o.Store.HostID("pds.test")
	if err != nil {
		t.Fatal(err)
	}
	return table, id
}

func isBusy(err error) bool {
	var busy *hosts.BusyError
	return errors.As(err, &busy)
}

// fetch takes permits of a host as the dispatcher does, until ctx ends.
func fetch(ctx context.Context, table *hosts.Table, id uint32) {
	for ctx.Err() == nil {
		table.Offer(id)
		if _, p := table.Pick(time.Now(), func(uint32) bool { return true }); p != nil {
			time.Sleep(time.Millisecond)
			p.Leave()
			p.Close()
		}
	}
}

// TestAdmit: requests beside fetches share the host's permits with them, wait for one, are refused
// while the host is to be left alone, and give back what they took.
func TestAdmit(t *testing.T) {
	t.Parallel()
	table, id := newTable(t, hosts.Options{PerHost: 2}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var all, fetches sync.WaitGroup
	for range 4 {
		fetches.Go(func() { fetch(ctx, table, id) })
	}
	var mu sync.Mutex
	running, most := 0, 0
	for range 8 {
		all.Go(func() {
			for range 5 {
				p, err := hosts.Admit(ctx, table, id)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				running++
				most = max(most, running)
				if now := table.Standing(id).Running; now > 2 {
					t.Errorf("%d requests at a time", now)
				}
				mu.Unlock()
				time.Sleep(time.Millisecond)
				mu.Lock()
				running--
				mu.Unlock()
				p.Close()
			}
		})
	}
	all.Wait()
	cancel()
	fetches.Wait()
	if most > 2 || table.Free() != 32 {
		t.Errorf("%d were let in at a time, %d permits are free", most, table.Free())
	}
	testRefused(t, table, id)
}

// testRefused has a third request wait for a permit of a host that has two.
func testRefused(t *testing.T, table *hosts.Table, id uint32) {
	t.Helper()
	hosts.Trust(table, id)
	var permits []*hosts.Permit
	for range 2 {
		p, err := hosts.Admit(t.Context(), table, id)
		if err != nil {
			t.Fatal(err)
		}
		permits = append(permits, p)
	}
	refused := make(chan error, 1)
	var all sync.WaitGroup
	third := func(ctx context.Context) {
		all.Go(func() {
			_, err := hosts.Admit(ctx, table, id)
			refused <- err
		})
		for hosts.Waiters(table, id) != 1 {
			time.Sleep(time.Millisecond)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	third(ctx)
	cancel()
	if err := <-refused; !errors.Is(err, context.Canceled) {
		t.Errorf("a third was let in: %v", err)
	}
	third(t.Context())
	permits[0].Note(pace.Outcome{Fault: pace.HardFault}, "connection refused")
	permits[0].Close()
	if err := <-refused; !isBusy(err) {
		t.Errorf("a request that waits for a host that is parked then gets %v", err)
	}
	permits[1].Close()
	permits[1].Close()
	all.Wait()
	now := table.Standing(id)
	if now.Running != 0 || now.State() != "parked" || now.Error != "connection refused" {
		t.Errorf("it stands as %+v", now)
	}
}

// TestAdmitWindows: requests that are sent count on the host's windows.
func TestAdmitWindows(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	rules := pace.Rules{{Glob: "*", Override: pace.Override{PerSecond: 50, PerHour: 5}}}
	table, id := newTable(t, hosts.Options{Rules: rules, Transport: answers{code: 200, body: "{}"}}, c)
	query := func() error {
		_, err := table.Query(t.Context(), "https://pds.test", "m", nil, 100, time.Minute)
		return err
	}
	for range 2 {
		p, err := hosts.Admit(t.Context(), table, id)
		if err != nil {
			t.Fatalf("one that is not sent counts: %v", err)
		}
		p.Close()
	}
	if err := query(); err != nil {
		t.Fatal(err)
	}
	if err := query(); !isBusy(err) {
		t.Errorf("a second within twelve minutes: %v", err)
	}
	c.advance(13 * time.Minute)
	if err := query(); err != nil {
		t.Fatal(err)
	}
}

// TestBanned: a banned host is asked nothing, until its row changes.
func TestBanned(t *testing.T) {
	t.Parallel()
	rules := pace.Rules{{Glob: "pds.test", Banned: true}}
	table, id := newTable(t, hosts.Options{Rules: rules}, nil)
	if _, err := hosts.Admit(t.Context(), table, id); !errors.Is(err, hosts.ErrBanned) || !table.Banned(id) {
		t.Errorf("a banned host is asked: %v", err)
	}
	if p, soon := table.Acquire(id); p != nil || soon {
		t.Errorf("a banned host gives a permit: %v, %v", p, soon)
	}
	table.Offer(id)
	if got, _ := table.Pick(time.Now(), func(uint32) bool { return true }); got != 0 {
		t.Errorf("host %d is picked", got)
	}
}
