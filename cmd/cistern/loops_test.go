package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// TestLiveDuringHugeBackfill holds the import of a large repository at each of its steps, and has
// other accounts write meanwhile: their commits are stored while the import stands still, so that no
// step of it delays them. (A subscriber of the stream has to read the 60,000 events of the import
// before later ones.)
func TestLiveDuringHugeBackfill(t *testing.T) {
	storetest.WithoutRace(t) // the repository is large
	if testing.Short() {
		t.Skip("makes a large repository")
	}
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 31, Repos: 20, Hosts: 2})
	small := n.Accounts()
	huge := n.AddAccount(n.Host(0))
	var writes []simnet.Write
	for i := range 60_000 {
		writes = append(writes, simnet.Write{Path: fmt.Sprintf("com.example.thing/%06d", i),
			Record: simnet.EncodeRecord(map[string]any{"$type": "com.example.thing", "n": i, "text": "one of very many records"})})
	}
	if _, err := huge.Commit(writes...); err != nil {
		t.Fatal(err)
	}
	huge.CAR() // makes its blocks
	var holding atomic.Bool
	entered, release := make(chan string), make(chan struct{})
	tune := hasty()
	hastyStore := tune.store
	tune.store = func(o *store.Options) {
		hastyStore(o)
		o.Step = func(step string) {
			switch step {
			case "before ingest", "after ingest", "flipped":
				if holding.Load() {
					entered <- step
					<-release
				}
			}
		}
	}
	x, d, stop := startInside(t, n, tune)
	x.track(t, small...)
	x.settle(t, map[string]int64{"synced": 20})
	x.prime(t, n, n.RelayHost())
	holding.Store(true)
	x.track(t, huge)
	for _, want := range []string{"before ingest", "after ingest", "flipped"} {
		if step := <-entered; step != want {
			t.Fatalf("the import is at step %s, want %s", step, want)
		}
		writeLive(t, d, small, 30)
		release <- struct{}{}
	}
	holding.Store(false)
	x.settle(t, map[string]int64{"synced": 21})
	stop()
	x.wantStore(t, n.Accounts())
}

// startInside runs a daemon in this process, whose parts the test can access.
func startInside(t *testing.T, n *simnet.Network, tune tuning) (x *testIndex, d *daemon, stop func()) {
	t.Helper()
	x = newTestIndex(t)
	relay, err := firehose.ParseSource(n.Relay(), false)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Data: x.dir, PLC: []string{n.PLC()}, Relays: []store.Source{relay}, AllowPrivate: true, Verify: "full"}
	public, err := net.Listen("tcp", x.public)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := net.Listen("tcp", x.admin)
	if err != nil {
		t.Fatal(err)
	}
	if d, err = newDaemon(cfg, newLogger(io.Discard, 0), listeners{public, admin}, tune); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	end := startDaemon(t, d, result)
	return x, d, func() {
		end()
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
}

// track adds accounts by name.
func (x *testIndex) track(t *testing.T, accounts ...*simnet.Account) {
	t.Helper()
	var dids []string
	for _, a := range accounts {
		dids = append(dids, a.DID())
	}
	if err := x.call(t.Context(), "PUT", "/repos", dids, nil); err != nil {
		t.Fatal(err)
	}
}

// writeLive has accounts write in turn, and waits until the index has each change.
func writeLive(t *testing.T, d *daemon, accounts []*simnet.Account, writes int) {
	t.Helper()
	for i := range writes {
		a := accounts[i%len(accounts)]
		begun := time.Now()
		c, err := a.Put("com.example.thing/"+a.NextTID(), map[string]any{"$type": "com.example.thing", "n": i})
		if err != nil {
			t.Fatal(err)
		}
		for {
			if row, err := d.store.Repo(a.DID()); err != nil {
				t.Fatal(err)
			} else if row.Rev == c.Rev {
				break
			}
			if time.Since(begun) > time.Minute {
				t.Fatalf("commit %d of %s does not come", i, a.DID())
			}
			pause(t.Context(), 100*time.Microsecond)
		}
	}
}

// TestBackfillDuringLiveFlood resyncs many repositories while more live commits arrive than can be
// applied: the resync ends before the flood does. The log has the times, alone and beside the flood.
func TestBackfillDuringLiveFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 32, Repos: 60, Hosts: 3})
	busy, fetched := n.Accounts()[:20], n.DIDs()[20:]
	x := newTestIndex(t)
	stop := x.start(t, x.args(n, "--mode", "full", "--relay", n.Relay()))
	x.settle(t, map[string]int64{"synced": 60})
	x.prime(t, n, n.RelayHost())
	fetch := func() time.Duration {
		begun := time.Now()
		if err := x.call(t.Context(), "POST", "/repos/resync", fetched, nil); err != nil {
			t.Fatal(err)
		}
		x.await(t, "the resync", func() error {
			counts, err := x.counts(t.Context())
			if err == nil && counts["pending"] > 0 {
				err = fmt.Errorf("%d pending", counts["pending"])
			}
			return err
		})
		return time.Since(begun)
	}
	quiet := fetch()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var g errgroup.Group
	commits := 0
	g.Go(func() error {
		for ctx.Err() == nil {
			if _, err := busy[commits%len(busy)].Mutate(1); err != nil {
				return err
			}
			commits++
		}
		return nil
	})
	flooded := fetch()
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d repositories took %s in quiet, and %s beside %d commits", len(fetched), quiet, flooded, commits)
	x.awaitRevs(t, n.Accounts())
	stop()
	x.wantStore(t, n.Accounts())
}
