package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/linkindex"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// TestKill kills a daemon at random moments, many times, while repositories are created, changed
// and deleted and a consumer follows the stream. The network lives on in this process. No published
// event may vanish or change, Check must find nothing, and the final state must equal the network.
//
// CISTERNTEST_KILLS is the number of kills (100), CISTERNTEST_SEED repeats a run's decisions.
func TestKill(t *testing.T) {
	storetest.WithoutRace(t)
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	kills := int(testNumber(t, "CISTERNTEST_KILLS", 100))
	seed := testNumber(t, "CISTERNTEST_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CISTERNTEST_SEED=%d CISTERNTEST_KILLS=%d repeats this run", seed, kills)
	n := startNetwork(t, simnet.Options{Seed: seed, Clutter: true, Repos: 40, Hosts: 4, RecordsMedian: 15, RecordsMax: 300})
	k := newKillRun(t, n, seed, 5*time.Millisecond)
	k.args, k.disturb = k.index.args(n, "--crawl", "repos::"+n.Relay(), "--backlinks"), k.disturbBackfill
	for _, did := range n.DIDs() {
		k.wanted[did] = true
	}
	for i := 1; i <= kills && !t.Failed(); i++ {
		k.purging = i > kills*2/3
		k.life(i)
		if i%10 == 0 || i == kills {
			k.check(i)
		}
	}
	if !t.Failed() {
		k.finish()
	}
}

// newKillRun returns a run on a network whose hosts answer late, so that kills hit fetches in
// flight.
func newKillRun(t *testing.T, n *simnet.Network, seed uint64, late time.Duration) *killRun {
	for _, h := range n.Hosts() {
		h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: late})
	}
	return &killRun{t: t, network: n, index: newTestIndex(t), rng: rand.New(rand.NewPCG(seed, 0)),
		wanted: map[string]bool{}, purged: map[string]bool{}, seen: map[uint64][32]byte{}, owner: map[uint64]string{}, lasting: map[uint64]bool{}}
}

func testNumber(t *testing.T, name string, standard uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return standard
	}
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// killRun is one run of TestKill.
type killRun struct {
	t       *testing.T
	network *simnet.Network
	index   *testIndex
	rng     *rand.Rand
	args    []string                  // of the daemon
	disturb func(ctx context.Context) // makes something happen
	purging bool                      // wiping is among the things that happen now, and what it hides leaves gaps
	wanted  map[string]bool           // accounts that were ever asked for
	purged  map[string]bool           // accounts of which a wipe was ever asked for
	busy    int                       // kills while repositories were being fetched
	drained int                       // kills while commits were buffered

	// mu guards what the consumer found out:
	mu      sync.Mutex
	seen    map[uint64][32]byte // id → hash of the frame as published
	owner   map[uint64]string   // id → DID
	lasting map[uint64]bool     // ids of account and identity events, which stay when records go
	last    uint64
}

// accountsMax bounds the growth of the network.
const accountsMax = 250

// life starts the daemon, keeps it busy, and kills it.
func (k *killRun) life(i int) {
	c := startChild(k.t, k.args)
	moment := 20*time.Millisecond + time.Duration(k.rng.Int64N(int64(380*time.Millisecond)))
	opening := k.rng.IntN(4) == 0 // count from the start of the process, so as to hit recovery, too
	if !opening {
		k.index.await(k.t, "the daemon to answer", func() error {
			select {
			case err := <-c.done:
				k.t.Fatalf("life %d: the daemon ended by itself: %v\n%s", i, err, c.stderr)
			default:
			}
			_, err := k.index.counts(k.t.Context())
			return err
		})
	}
	ctx, cancel := context.WithTimeout(k.t.Context(), moment)
	defer cancel()
	var g errgroup.Group
	overlap := uint64(k.rng.IntN(200))
	gone := make(chan struct{})
	g.Go(func() error { return k.consume(overlap, gone) })
	g.Go(func() error {
		for ctx.Err() == nil {
			k.disturb(ctx)
			pause(ctx, time.Duration(k.rng.IntN(20))*time.Millisecond)
		}
		return nil
	})
	<-ctx.Done()
	if counts, err := k.index.counts(k.t.Context()); err == nil {
		if counts["pending"] > 0 {
			k.busy++
		}
		if counts["buffered"] > 0 {
			k.drained++
		}
	}
	if err := c.cmd.Process.Kill(); err != nil {
		k.t.Errorf("life %d: %v", i, err)
	}
	err := c.wait(k.t)
	close(gone)
	if err == nil || !strings.Contains(err.Error(), "killed") {
		k.t.Errorf("life %d: the daemon ended by itself: %v\n%s", i, err, c.stderr)
	}
	if err := g.Wait(); err != nil {
		k.t.Errorf("life %d: %v\n%s", i, err, c.stderr)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// consume follows the stream until the daemon is gone. It starts a little before the last event of
// the previous connection.
func (k *killRun) consume(overlap uint64, gone <-chan struct{}) error {
	k.mu.Lock()
	cursor := max(k.last+1, overlap+1) - overlap
	k.mu.Unlock()
	for {
		connected := false
		err := k.index.stream(k.t.Context(), cursor, func(f frame) (bool, error) {
			connected = true
			return true, k.note(f)
		})
		var lost lostError
		if errors.As(err, &lost) {
			return err
		}
		if connected {
			return nil
		}
		select {
		case <-gone:
			return nil
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// lostError reports an event that was lost or changed.
type lostError struct{ text string }

func (e lostError) Error() string { return e.text }

// note records a published event, and fails if an event with its id was different before.
func (k *killRun) note(f frame) error {
	if f.Type == "error" {
		return lostError{fmt.Sprintf("the stream answers %s: %s (last event %d)", f.Error, f.Message, k.last)}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	hash := sha256.Sum256(f.raw)
	if before, ok := k.seen[f.ID]; ok && before != hash {
		return lostError{fmt.Sprintf("event %d is not what it was: %s", f.ID, f.raw)}
	}
	if f.ID > k.last+1 && !k.purging {
		return lostError{fmt.Sprintf("event %d follows %d, and nothing was wiped", f.ID, k.last)}
	}
	if f.Type != "record" {
		k.lasting[f.ID] = true
	}
	k.seen[f.ID], k.owner[f.ID], k.last = hash, f.did(), max(k.last, f.ID)
	return nil
}

// disturbBackfill changes the network or the tracked repositories. A call that fails was hit by the
// kill; whether it took effect is unknown and must not matter.
func (k *killRun) disturbBackfill(ctx context.Context) {
	accounts := k.network.Accounts()
	a := accounts[k.rng.IntN(len(accounts))]
	switch pick := k.rng.IntN(10); {
	case pick < 5:
		if _, err := a.Mutate(1 + k.rng.IntN(8)); err != nil {
			k.t.Errorf("mutate %s: %v", a.DID(), err)
		}
		_ = k.index.call(ctx, "POST", "/repos/resync", []string{a.DID()}, nil)
	case pick < 7 && len(accounts) < accountsMax:
		a = k.network.AddAccount(k.network.Host(k.rng.IntN(4)))
		k.wanted[a.DID()] = true
		_ = k.index.call(ctx, "PUT", "/repos", []string{a.DID()}, nil)
	case pick < 9 || !k.purging:
		var dids []string
		for range 10 {
			dids = append(dids, accounts[k.rng.IntN(len(accounts))].DID())
		}
		_ = k.index.call(ctx, "POST", "/repos/resync", dids, nil)
	default:
		k.purged[a.DID()] = true
		_ = k.index.call(ctx, "DELETE", "/repos?purge=true", []string{a.DID()}, nil)
		if k.rng.IntN(2) == 0 {
			_ = k.index.call(ctx, "PUT", "/repos", []string{a.DID()}, nil)
		}
	}
}

// check verifies the store that the kill left.
func (k *killRun) check(i int) {
	s, err := openForCheck(k.index.dir, newLogger(io.Discard, 0))
	if err != nil {
		k.t.Fatalf("after kill %d: %v", i, err)
	}
	defer s.Close()
	if n, err := s.Check(k.t.Context(), func(d string) { k.t.Errorf("after kill %d: difference: %s", i, d) }); n != 0 || err != nil {
		k.t.Errorf("after kill %d: %d differences, %v", i, n, err)
	}
	if head := s.Head(); head < k.last {
		k.t.Errorf("after kill %d: head %d, but %d was published", i, head, k.last)
	}
	k.checkBacklinks(i, s)
}

// checkBacklinks checks the backlinks index as a kill left it.
func (k *killRun) checkBacklinks(i int, s *store.Store) {
	x, err := linkindex.Open(linkindex.Options{Store: s, Dir: filepath.Join(k.index.dir, linksDir), ReadOnly: true})
	if err != nil {
		k.t.Fatalf("after kill %d: %v", i, err)
	}
	defer x.Close()
	if st := x.State(); st.Through > s.Head() {
		k.t.Errorf("after kill %d: the backlinks index is at %d, the head is %d", i, st.Through, s.Head())
	}
	if n, _, err := x.Check(k.t.Context(), func(d string) { k.t.Errorf("after kill %d: difference: %s", i, d) }); n != 0 || err != nil {
		k.t.Errorf("after kill %d: %d differences in backlinks, %v", i, n, err)
	}
}

// finish lets a daemon catch up, and compares its store and its log with the network.
func (k *killRun) finish() {
	t, x := k.t, k.index
	c := startChild(t, x.args(k.network))
	var dids []string
	for did := range k.wanted {
		dids = append(dids, did)
	}
	slices.Sort(dids)
	x.await(t, "the daemon to answer", func() error { _, err := x.counts(t.Context()); return err })
	for _, step := range []struct{ method, path string }{{"PUT", "/repos"}, {"POST", "/repos/resync"}} {
		if err := x.call(t.Context(), step.method, step.path, dids, nil); err != nil {
			t.Fatal(err)
		}
	}
	accounts := k.network.Accounts()
	x.settle(t, map[string]int64{"synced": int64(len(accounts)), "records": records(accounts)})
	frames := x.replay(t)
	got, present := fold{}, map[uint64]bool{}
	for i, f := range frames {
		if err := errors.Join(k.note(f), got.apply(f)); err != nil {
			t.Error(err)
		}
		if i > 0 && f.ID <= frames[i-1].ID {
			t.Errorf("event %d follows %d", f.ID, frames[i-1].ID)
		}
		present[f.ID] = true
	}
	for id, did := range k.owner {
		if !present[id] && !k.purged[did] {
			t.Errorf("event %d of %s was published and is missing", id, did)
		}
	}
	got.wantTruth(t, accounts)
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := c.wait(t); err != nil {
		t.Errorf("the last daemon: %v\n%s", err, c.stderr)
	}
	x.wantStore(t, accounts)
	x.wantBacklinks(t)
	t.Logf("%d kills with work in flight, %d accounts, %d wiped at times, %d events seen, head %d",
		k.busy, len(accounts), len(k.purged), len(k.seen), frames[len(frames)-1].ID)
	if strings.Contains(c.stderr.String(), "panic") {
		t.Errorf("%s", c.stderr)
	}
}
