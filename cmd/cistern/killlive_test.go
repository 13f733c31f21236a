package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store/storetest"
)

// TestKillLive kills a daemon at random moments while it follows a relay: accounts commit, appear,
// disappear and change their names, and repositories are fetched while their commits arrive. No
// repository is fetched again at the end: what the firehose sent before and between the kills must
// be enough. Its variables are those of TestKill.
func TestKillLive(t *testing.T) {
	storetest.WithoutRace(t)
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	kills := int(testNumber(t, "CISTERNTEST_KILLS", 100))
	seed := testNumber(t, "CISTERNTEST_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CISTERNTEST_SEED=%d CISTERNTEST_KILLS=%d repeats this run", seed, kills)
	n := startNetwork(t, simnet.Options{Seed: seed, Clutter: true, Repos: 40, Hosts: 4, RecordsMedian: 15, RecordsMax: 300})
	k := newKillRun(t, n, seed, 40*time.Millisecond)
	k.args = k.index.args(n, "--mode", "full", "--relay", n.Relay(), "--backlinks")
	k.purging = true // deletions and returns leave gaps
	c := startChild(t, k.args)
	k.index.await(t, "the daemon to answer", func() error { _, err := k.index.counts(t.Context()); return err })
	k.index.prime(t, n, n.RelayHost())
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.wait(t) // killed
	l := &liveliness{t: t, network: n, rng: k.rng, only: 70}
	k.disturb = func(ctx context.Context) { k.disturbLive(ctx, l) }
	for i := 1; i <= kills && !t.Failed(); i++ {
		k.life(i)
		if i%10 == 0 || i == kills {
			k.check(i)
		}
	}
	l.bringBack()
	if !t.Failed() {
		k.finishLive()
	}
}

// disturbLive makes accounts act, or requests fetches and makes their accounts commit meanwhile.
func (k *killRun) disturbLive(ctx context.Context, l *liveliness) {
	if k.rng.IntN(3) > 0 {
		l.act(1 + k.rng.IntN(4))
		return
	}
	accounts := k.network.Accounts()
	some := min(4, len(accounts))
	first := k.rng.IntN(len(accounts) - some + 1)
	var dids []string
	for _, a := range accounts[first : first+some] {
		dids = append(dids, a.DID())
	}
	_ = k.index.call(ctx, "POST", "/repos/resync", dids, nil) // a call that fails met the kill
	for range 3 * some {
		a := accounts[first+k.rng.IntN(some)]
		if a.Truth().Status != simnet.Active {
			continue
		}
		if _, err := a.Mutate(1 + k.rng.IntN(3)); err != nil {
			k.t.Errorf("mutate %s: %v", a.DID(), err)
		}
		pause(ctx, time.Duration(k.rng.IntN(15))*time.Millisecond)
	}
}

// finishLive lets a daemon catch up, and compares its store and its log with the network.
func (k *killRun) finishLive() {
	t, x, accounts := k.t, k.index, k.network.Accounts()
	c := startChild(t, k.args)
	x.await(t, "the daemon to answer", func() error { _, err := x.counts(t.Context()); return err })
	x.awaitRevs(t, accounts)
	x.settle(t, map[string]int64{"repos": int64(len(accounts)), "synced": active(accounts), "records": records(accounts), "buffered": 0})
	frames := x.replay(t)
	got, present, live := fold{}, map[uint64]bool{}, 0
	for i, f := range frames {
		if err := errors.Join(k.note(f), got.apply(f)); err != nil {
			t.Error(err)
		}
		if i > 0 && f.ID <= frames[i-1].ID {
			t.Errorf("event %d follows %d", f.ID, frames[i-1].ID)
		}
		present[f.ID] = true
		if f.Record.Live {
			live++
		}
	}
	gone, deleted := map[string]bool{}, 0
	for _, a := range accounts {
		if a.Truth().Status == simnet.Deleted {
			gone[a.DID()] = true
			deleted++
		}
	}
	for id, did := range k.owner {
		if !present[id] && (!gone[did] || k.lasting[id]) {
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
	t.Logf("%d kills with work in flight, %d with commits buffered, %d accounts (%d deleted), %d events seen, %d live of %d, head %d",
		k.busy, k.drained, len(accounts), deleted, len(k.seen), live, len(frames), frames[len(frames)-1].ID)
	if live == 0 || k.busy == 0 || k.drained == 0 {
		t.Error("the kills met nothing")
	}
	if strings.Contains(c.stderr.String(), "panic") {
		t.Errorf("%s", c.stderr)
	}
}
