package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cistern/archive"
	"cistern/backup"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/objects"
	"cistern/store"
	"cistern/store/storetest"
)

// TestOffloadRestored loses a daemon that moves its log into segments, restores a backup, and goes on
// with the same segments: the newest backup, one that was made by a daemon that was restored itself,
// and an older one. The lost daemon has written segments after the backup, whose ids become other
// events. A replay from the first event has all ids once, those of the backup as they were before;
// and no segment is ever changed.
func TestOffloadRestored(t *testing.T) {
	storetest.WithoutRace(t)
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	seed := testNumber(t, "CISTERNTEST_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CISTERNTEST_SEED=%d repeats this run", seed)
	n := startNetwork(t, simnet.Options{Seed: seed, Repos: 8, Hosts: 2, RecordsMedian: 8, RecordsMax: 30})
	r := &restored{testIndex: newTestIndex(t), t: t, n: n, rng: rand.New(rand.NewPCG(seed, 1)),
		segments: filepath.Join(t.TempDir(), "events"), backups: filepath.Join(t.TempDir(), "backups"), files: map[string][32]byte{}}
	r.args = r.testIndex.args(n, "--mode", "full", "--relay", n.Relay(), "--offload", r.segments, "--offload-after", "7d")
	stop := r.run()
	r.prime(t, n, n.RelayHost())
	first := r.backUp()
	second := r.backUp()
	stop = r.lose(stop, second)
	third := r.backUp()
	for _, made := range []*madeBackup{third, first, second} {
		stop = r.lose(stop, made)
	}
	stop()
	r.wantStore(t, n.Accounts())
	epochs, err := filepath.Glob(filepath.Join(r.segments, "log", "*"))
	if err != nil || len(epochs) != 5 {
		t.Errorf("%d epochs, %v", len(epochs), err)
	}
	for _, epoch := range epochs { // all have given ids behind the first backup
		all, err := filepath.Glob(filepath.Join(epoch, "*"))
		if err != nil || len(all) == 0 {
			t.Fatal(epoch, all, err)
		}
		if name := filepath.Base(all[len(all)-1]); name < fmt.Sprintf("%020d", first.Head) {
			t.Errorf("%s ends with %s, the first backup with %d", epoch, name, first.Head)
		}
	}
}

// restored is a daemon that is lost and restored.
type restored struct {
	*testIndex
	t                 *testing.T
	n                 *simnet.Network
	rng               *rand.Rand
	args              []string
	segments, backups string // directories
	files             map[string][32]byte
}

// madeBackup is a backup, and the log that it has.
type madeBackup struct {
	backup.Generation
	log []frame
}

func (r *restored) run() (stop func()) {
	tune := hasty()
	usual := tune.store
	tune.store = func(o *store.Options) {
		usual(o)
		o.Retention, o.SnapshotRetention, o.PruneEvery = time.Millisecond, 0, 20*time.Millisecond
	}
	tune.archive = func(o *archive.Options) { o.SegmentBytes, o.FrameEvents = 4<<10, 20 }
	return r.startTuned(r.t, r.args, tune)
}

// act has accounts commit, and waits until the daemon has it all. No event is ever hidden.
func (r *restored) act() {
	r.t.Helper()
	accounts := r.n.Accounts()
	for range 60 {
		if _, err := accounts[r.rng.IntN(len(accounts))].Mutate(1 + r.rng.IntN(4)); err != nil {
			r.t.Fatal(err)
		}
	}
	r.awaitRevs(r.t, accounts)
	r.settle(r.t, map[string]int64{"repos": int64(len(accounts)), "synced": active(accounts), "records": records(accounts)})
	r.await(r.t, "the log to have it all", func() error { // rows are shown before their events are durable
		shown, missing, extra := fold{}, 0, 0
		for _, f := range r.replay(r.t) {
			shown.take(&delivered{what: f.Type, did: f.did(), active: f.Account.Active, collection: f.Record.Collection,
				rkey: f.Record.Rkey, action: f.Record.Action, cid: f.Record.CID})
		}
		for _, a := range accounts {
			extra += len(shown[a.DID()])
			for path, cid := range a.Truth().Records {
				if _, _, ok := repo.SplitPath([]byte(path)); ok && shown[a.DID()][path] != cid.String() {
					missing++
				} else if ok {
					extra--
				}
			}
		}
		if missing+extra > 0 {
			return fmt.Errorf("%d records differ, %d are too many", missing, extra)
		}
		return nil
	})
}

// whole returns the log from the first event on, which has all ids and leaves what the network has.
func (r *restored) whole() []frame {
	r.t.Helper()
	frames, got := r.replay(r.t), fold{}
	for i, f := range frames {
		if f.ID != uint64(i)+1 {
			r.t.Fatalf("event %d is number %d of the log", f.ID, i+1)
		}
		if err := got.apply(f); err != nil {
			r.t.Error(err)
		}
	}
	got.wantTruth(r.t, r.n.Accounts())
	return frames
}

// unchanged fails if a segment that was there has changed or is gone.
func (r *restored) unchanged() {
	r.t.Helper()
	now, err := filepath.Glob(filepath.Join(r.segments, "log", "*", "*.seg"))
	if err != nil {
		r.t.Fatal(err)
	}
	sums := map[string][32]byte{}
	for _, name := range now {
		b, err := os.ReadFile(name)
		if err != nil {
			r.t.Fatal(err)
		}
		sums[name] = sha256.Sum256(b)
	}
	for name, sum := range r.files {
		if sums[name] != sum {
			r.t.Errorf("%s is not what it was", name)
		}
	}
	r.files = sums
}

// backUp makes a backup between two moves of the log, and lets the daemon go on.
func (r *restored) backUp() *madeBackup {
	r.t.Helper()
	r.act()
	r.moveLog(r.t)
	r.act() // is in the log of the backup
	log := r.whole()
	if out, err := r.command(r.t.Context(), nil, "backup", r.backups); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	g, err := backup.Find(r.t.Context(), objects.NewDirectory(r.backups), "")
	if err != nil || g.Head != log[len(log)-1].ID {
		r.t.Fatalf("%+v, %v; the head is %d", g, err, log[len(log)-1].ID)
	}
	r.act() // is in no backup
	r.moveLog(r.t)
	r.unchanged()
	return &madeBackup{g, log}
}

// lose stops the daemon, loses its directory, and goes on with what a backup had.
func (r *restored) lose(stop func(), b *madeBackup) func() {
	r.t.Helper()
	stop()
	if err := os.RemoveAll(r.dir); err != nil {
		r.t.Fatal(err)
	}
	if out, err := r.command(r.t.Context(), nil, "restore", r.backups, "--data", r.dir, "--generation", b.Name); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	r.readOnly(b)
	stop = r.run()
	for range 2 { // what was moved before the backup, then also what is moved now
		r.act()
		now := r.whole()
		for i, f := range b.log {
			if !bytes.Equal(f.raw, now[i].raw) {
				r.t.Fatalf("event %d is %s, and was %s", f.ID, now[i].raw, f.raw)
			}
		}
		r.moveLog(r.t)
		r.unchanged()
	}
	r.whole()
	return stop
}

// readOnly reads the log of a restored directory without changing it.
func (r *restored) readOnly(b *madeBackup) {
	r.t.Helper()
	copied := filepath.Join(r.t.TempDir(), "data")
	if err := errors.Join(os.MkdirAll(copied, 0o755), os.CopyFS(copied, os.DirFS(r.dir))); err != nil {
		r.t.Fatal(err)
	}
	args := append(strings.Fields("run --read-only --allow-private --log-level warn --disk-reserve 0 --offload"), r.segments, "--data", copied,
		"--listen", r.public, "--admin", r.admin, "--plc", r.n.PLC())
	stop := r.start(r.t, args)
	now := r.replay(r.t)
	if len(now) != len(b.log) {
		r.t.Errorf("read-only: %d events, want %d", len(now), len(b.log))
	}
	for i, f := range now {
		if !bytes.Equal(f.raw, b.log[i].raw) {
			r.t.Fatalf("read-only: event %d is %s, and was %s", f.ID, f.raw, b.log[i].raw)
		}
	}
	stop()
}
