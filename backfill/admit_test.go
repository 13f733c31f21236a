package backfill_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/pace"
	"cistern/ingest/simnet"
)

// TestAdmit: requests beside tasks share the host's permits with them, wait for one, are refused while the host is
// to be left alone, and give back what they took.
func TestAdmit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 30, RecordsMedian: 3}, runner: backfill.Options{PerHost: 2}})
	id := w.hostOf(w.net.Host(0))
	w.net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 10 * time.Millisecond})
	w.add(w.net.DIDs()...)
	var mu sync.Mutex
	var all sync.WaitGroup
	running, most := 0, 0
	for range 8 {
		all.Go(func() {
			for range 5 {
				done, err := backfill.Admit(t.Context(), w.run, id)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				running++
				most = max(most, running)
				if now := w.run.HostStanding(id).Running; now > 2 {
					t.Errorf("%d requests at a time", now)
				}
				mu.Unlock()
				time.Sleep(time.Millisecond)
				mu.Lock()
				running--
				mu.Unlock()
				done(nil)
			}
		})
	}
	all.Wait()
	if most > 2 {
		t.Errorf("%d were let in at a time", most)
	}
	w.until("all to be synced", func() bool { return w.store.Counts()["synced"] == 30 })

	var done []func(error)
	for range 2 {
		d, err := backfill.Admit(t.Context(), w.run, id)
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, d)
	}
	refused := make(chan error, 1)
	third := func(ctx context.Context) {
		all.Go(func() {
			_, err := backfill.Admit(ctx, w.run, id)
			refused <- err
		})
		w.until("it to wait", func() bool { return backfill.Waiters(w.run, id) == 1 })
	}
	ctx, cancel := context.WithCancel(t.Context())
	third(ctx)
	cancel()
	if err := <-refused; !errors.Is(err, context.Canceled) {
		t.Errorf("a third was let in: %v", err)
	}
	third(t.Context())
	done[0](errors.New("connection refused"))
	if err := <-refused; !backfill.IsBusy(err) {
		t.Errorf("who waits for a host that is parked then gets %v", err)
	}
	done[1](nil)
	if now := w.run.HostStanding(id); now.Running != 0 || now.State() != "parked" {
		t.Errorf("it stands as %+v", now)
	}
}

// TestAdmitWindows: they count on the host's windows.
func TestAdmitWindows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1},
		runner: backfill.Options{HostRules: pace.Rules{{Glob: "*", Override: pace.Override{PerSecond: 50, PerHour: 5}}}}})
	id := w.hostOf(w.net.Host(0))
	done, err := backfill.Admit(t.Context(), w.run, id)
	if err != nil {
		t.Fatal(err)
	}
	done(nil)
	if _, err := backfill.Admit(t.Context(), w.run, id); !backfill.IsBusy(err) {
		t.Errorf("a second within twelve minutes: %v", err)
	}
	w.clock.advance(13 * time.Minute)
	if done, err = backfill.Admit(t.Context(), w.run, id); err != nil {
		t.Fatal(err)
	}
	done(nil)
}
