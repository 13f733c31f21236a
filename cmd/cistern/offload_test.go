package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
)

// TestOffload moves the log of a daemon into a directory, again and again while it follows a
// network, and deletes what was moved. A replay from the beginning, of this daemon and of one that
// goes on with its store, equals the network. Without the option the store begins where its own log
// begins, and with the option again the segments are back.
func TestOffload(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	seed := testNumber(t, "CISTERNTEST_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CISTERNTEST_SEED=%d repeats this run", seed)
	n := startNetwork(t, simnet.Options{Seed: seed, Repos: 15, Hosts: 2, RecordsMedian: 10, RecordsMax: 100})
	x, to := newTestIndex(t), filepath.Join(t.TempDir(), "events")
	tune := hasty()
	usual := tune.store
	tune.store = func(o *store.Options) {
		usual(o)
		o.Retention, o.SnapshotRetention, o.PruneEvery = time.Millisecond, 0, 20*time.Millisecond
	}
	plain := x.args(n, "--mode", "full", "--relay", n.Relay())
	args := append(plain[:len(plain):len(plain)], "--offload", to, "--offload-after", "7d")
	stop := x.startTuned(t, args, tune)
	x.prime(t, n, n.RelayHost())
	l := liveliness{t: t, network: n, rng: rand.New(rand.NewPCG(seed, 1)), only: 30}
	for range 6 {
		l.act(40)
		x.moveLog(t)
	}
	l.bringBack()
	wantAll := func() {
		t.Helper()
		x.awaitRevs(t, n.Accounts())
		x.settle(t, map[string]int64{"repos": int64(len(n.Accounts())), "synced": active(n.Accounts())})
		x.wantLog(t, n.Accounts())
	}
	wantAll()
	if tail := x.tail(t); tail < 2 {
		t.Errorf("the log of the store still begins at %d", tail)
	}
	stop()
	stop = x.startTuned(t, args, tune)
	wantAll()
	l.act(20)
	x.moveLog(t)
	wantAll()
	stop()
	tune.store = usual // without a short retention: nothing is deleted
	stop = x.startTuned(t, plain, tune)
	if oldest, tail := x.stats(t).Log.Tail, x.tail(t); oldest != tail || tail < 2 {
		t.Errorf("a daemon without segments says that its log begins at %d, and it begins at %d", oldest, tail)
	}
	stop()
	stop = x.startTuned(t, args, tune)
	wantAll()
	stop()
	x.wantStore(t, n.Accounts())
}

// moveLog moves what there is of the log, and waits until some of it is deleted.
func (x *testIndex) moveLog(t *testing.T) {
	t.Helper()
	before := x.tail(t)
	x.await(t, "the log to be moved", func() error {
		for _, op := range []string{"offload", "prune"} {
			if out, err := x.command(t.Context(), nil, "maintain", "run", op); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
		}
		if x.tail(t) == before {
			return errors.New("nothing was deleted")
		}
		return nil
	})
}

// tail returns the oldest event of the store's own log.
func (x *testIndex) tail(t *testing.T) (tail uint64) {
	t.Helper()
	err := x.call(t.Context(), "GET", "/metrics", nil, func(b []byte) error {
		_, rest, _ := strings.Cut(string(b), "\ncistern_store_tail ")
		var f float64
		_, err := fmt.Sscan(rest, &f)
		tail = uint64(f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tail
}
