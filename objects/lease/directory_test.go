package lease_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"cistern/objects"
	"cistern/objects/lease"
)

// TestAlone: one user at a time has a directory, another one is refused at once, and no file is left. A
// file that a killed user left does not lock anything.
func TestAlone(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "some", "where")
	if err := os.MkdirAll(filepath.Join(root, "p"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "p", "locked"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var inside, ran atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				o := lease.Options{Destination: objects.NewDirectory(root), Prefix: "p/", What: "test"}
				err := lease.Alone(t.Context(), o, func(_ context.Context, held func() error) error {
					if n := inside.Add(1); n != 1 {
						t.Errorf("%d have the directory", n)
					}
					ran.Add(1)
					other := func(context.Context, func() error) error { return errors.New("has it too") }
					if err := lease.Alone(t.Context(), o, other); !errors.Is(err, lease.ErrLocked) {
						t.Errorf("another user: %v", err)
					}
					inside.Add(-1)
					return held()
				})
				if err != nil && !errors.Is(err, lease.ErrLocked) {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if ran.Load() == 0 {
		t.Error("none had the directory")
	}
	if left, err := os.ReadDir(filepath.Join(root, "p")); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
