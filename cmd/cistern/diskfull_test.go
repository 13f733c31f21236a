package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/condition"
	"cistern/ingest/simnet"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of some bytes, and returns its directory.
func smallDisk(t *testing.T, bytes int64) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes))
	if errors.Is(err, unix.EPERM) {
		t.Skip("mounting a small file system needs root")
	}
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill writes a file until a disk has no more than some bytes free. Others write meanwhile.
func fill(t *testing.T, dir string, leave uint64) (empty func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 1<<16); ; {
		free, _, err := condition.System().Disk(dir)
		if err != nil {
			t.Fatal(err)
		}
		if free <= leave {
			break
		}
		_, err = f.Write(block[:min(uint64(len(block)), free-leave)])
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Error(err)
		}
	}
}

// TestDiskFull fills the disk of a daemon that fetches, follows a firehose, compacts and is backed up.
// Below the reserve it pauses, says so, and goes on by itself; below a quarter of it, or without a
// byte left, it ends with an error that says why, does not start before there is room, and then goes
// on. Nothing is lost.
//
// CISTERNTEST_SEED repeats a run's decisions.
func TestDiskFull(t *testing.T) {
	storetest.WithoutRace(t)
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	seed := testNumber(t, "CISTERNTEST_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CISTERNTEST_SEED=%d repeats this run", seed)
	dir := smallDisk(t, 256<<20)
	n := startNetwork(t, simnet.Options{Seed: seed, Clutter: true, Repos: 40, Hosts: 4, RecordsMedian: 15, RecordsMax: 300})
	k := newKillRun(t, n, seed, 20*time.Millisecond)
	x, to := k.index, filepath.Join(t.TempDir(), "backups")
	x.dir = filepath.Join(dir, "data")
	args := x.args(n, "--mode", "full", "--relay", n.Relay())
	start := func(reserve string) *child {
		args[slices.Index(args, "--disk-reserve")+1] = reserve
		c := startChild(t, args)
		x.await(t, "the daemon to answer", func() error { _, err := x.counts(t.Context()); return err })
		return c
	}
	stop := func(c *child) {
		t.Helper()
		if err := errors.Join(c.cmd.Process.Signal(os.Interrupt), c.wait(t)); err != nil {
			t.Errorf("the daemon ends with %v\n%s", err, c.stderr)
		}
	}
	c := start("64MiB")
	x.prime(t, n, n.RelayHost())
	stop(c)
	l := &liveliness{t: t, network: n, rng: k.rng, only: 70}
	const guarded, noSpace = "less than a quarter of the reserve", "no space left on device"
	for _, round := range []struct {
		reserve string
		leave   uint64
		says    []string // one of these by the daemon that ends; none if it goes on
	}{
		{"64MiB", 48 << 20, nil},
		{"0", 0, []string{noSpace}},
		{"64MiB", 8 << 20, []string{guarded, noSpace}}, // it looks every two seconds
		{"0", 0, []string{noSpace}},
	} {
		c := start(round.reserve)
		k.under(l, func() {
			var g errgroup.Group
			ctx, cancel := context.WithCancel(t.Context())
			for _, command := range [][]string{{"maintain", "run", "compact"}, {"backup", to, "--keep", "2"}} {
				g.Go(func() error {
					for ctx.Err() == nil {
						_, _ = x.command(ctx, nil, command...) // fails while the daemon does not run
						pause(ctx, 100*time.Millisecond)
					}
					return nil
				})
			}
			pause(t.Context(), time.Duration(k.rng.IntN(300))*time.Millisecond)
			empty := fill(t, dir, round.leave)
			if round.says == nil {
				x.awaitDisk(t, true)
				empty()
				x.awaitDisk(t, false)
			} else {
				wantFull(t, c, round.says...)
				args[slices.Index(args, "--disk-reserve")+1] = "64MiB"
				wantFull(t, startChild(t, args), guarded)
				empty()
				c = start(round.reserve)
			}
			cancel()
			_ = g.Wait()
		})
		stop(c)
	}
	c = start("64MiB")
	l.bringBack()
	accounts := n.Accounts()
	x.awaitRevs(t, accounts)
	x.settle(t, map[string]int64{"repos": int64(len(accounts)), "synced": active(accounts), "records": records(accounts), "buffered": 0})
	x.wantLog(t, accounts)
	stop(c)
	x.wantStore(t, accounts)
}

// wantFull waits until a daemon has ended because its disk is full.
func wantFull(t *testing.T, c *child, says ...string) {
	t.Helper()
	err := c.wait(t)
	if err == nil || !slices.ContainsFunc(says, func(why string) bool { return strings.Contains(c.stderr.String(), why) }) {
		t.Errorf("the daemon ends with %v, and does not say %q:\n%s", err, says, c.stderr)
	}
}

// awaitDisk waits until /stats says that backfill and the crawler are paused because of the disk, or
// are not.
func (x *testIndex) awaitDisk(t *testing.T, short bool) {
	t.Helper()
	x.await(t, fmt.Sprintf("the disk to be short: %t", short), func() error {
		return x.call(t.Context(), "GET", "/stats", nil, func(b []byte) error {
			var stats struct{ Paused map[string][]string }
			if err := json.Unmarshal(b, &stats); err != nil {
				return err
			}
			for _, part := range []string{"backfill", "crawler"} {
				paused := slices.ContainsFunc(stats.Paused[part], func(reason string) bool {
					return strings.Contains(reason, "free")
				})
				if paused != short {
					return fmt.Errorf("paused %v", stats.Paused)
				}
			}
			return nil
		})
	})
}
