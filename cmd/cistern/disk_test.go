package main

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cistern/gate"
)

// TestDiskGuard lets a disk become full, be emptied, and become full for good.
func TestDiskGuard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		var shortage atomic.Value
		shortage.Store("")
		free.Store(500)
		var part, other gate.Gate
		g := newDiskGuard("/data", reserve{bytes: 100}, slog.New(slog.DiscardHandler),
			func(reason string) { shortage.Store(reason) }, &part, &other)
		g.free = func(string) (uint64, uint64, error) { return free.Load(), 1000, nil }
		other.Shut(gate.Cause{Name: "operator"})
		result := make(chan error, 1)
		go func() { result <- g.Run(t.Context()) }()
		for _, step := range []struct {
			free uint64
			want string
		}{{500, ""}, {100, ""}, {99, "99 B"}, {25, "25 B"}, {101, ""}, {500, ""}, {99, "99 B"}} {
			free.Store(step.free)
			time.Sleep(2 * diskEvery)
			synctest.Wait()
			if said := shortage.Load().(string); strings.Contains(said, " free, less") != (step.want != "") || !strings.Contains(said, step.want) {
				t.Errorf("%d free: the shortage is %q", step.free, said)
			}
			for gate, own := range map[*gate.Gate]int{&part: 0, &other: 1} {
				causes := gate.Causes()[own:]
				if len(causes) > 1 || (len(causes) == 1) != (step.want != "") {
					t.Fatalf("%d free: shut by %v", step.free, causes)
				}
				if len(causes) == 1 && (!causes[0].Halts || !strings.Contains(causes[0].Reason, step.want+" free")) {
					t.Errorf("%d free: shut by %v", step.free, causes)
				}
			}
		}
		free.Store(24)
		if err := <-result; err == nil || !strings.Contains(err.Error(), "--disk-reserve") || !strings.Contains(err.Error(), "24 B free") {
			t.Errorf("stopped with %v", err)
		}
	})
}

func TestDiskFree(t *testing.T) {
	t.Parallel()
	free, total, err := diskFree(t.TempDir())
	if err != nil || total == 0 || free > total {
		t.Errorf("%d of %d, %v", free, total, err)
	}
	if _, _, err := diskFree("/does/not/exist"); err == nil {
		t.Error("no error for a directory that is not there")
	}
}
