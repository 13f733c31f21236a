package archive_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/archive"
	"cistern/objects"
	"cistern/objects/objectstest"
	"cistern/store"
)

// TestForged: a segment or a frame that no archive wrote is damaged, also if its sum is right.
func TestForged(t *testing.T) {
	t.Parallel()
	for _, forged := range []func() (map[string]error, error){archive.Forged, archive.ForgedFrames} {
		said, err := forged()
		if err != nil {
			t.Fatal(err)
		}
		for what, err := range said {
			if (what == "nothing") != (err == nil) || err != nil && (!errors.Is(err, objects.ErrDamaged) || len(err.Error()) > 300) {
				t.Errorf("%s: %.400v", what, err)
			}
		}
	}
}

// hung is a destination of which nothing can be read before the context ends.
type hung struct{ objects.Destination }

func (hung) GetRange(ctx context.Context, name string, at, n int64) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestHungDestination: pages and searches by time in segments that do not arrive end after a time,
// also those that wait for others; and the log of the store is read meanwhile.
func TestHungDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to, _ := objectstest.Directory(t)
		w := newWorld(t, 5, to)
		defer w.end()
		since := w.clock.now().UnixMicro()
		w.write(100)
		if err := w.a.Offload(t.Context(), none); err != nil {
			t.Fatal(err)
		}
		w.prune()
		w.write(10)
		a := w.open(hung{to}, nil)
		begun := time.Now()
		results := make(chan error)
		for range 3 * archive.ReadersMax {
			go func() {
				_, err := a.FirstSince(since + 5000)
				results <- err
			}()
			go func() {
				_, err := a.ReadLog(t.Context(), 1, 5, func(*store.Event) error { return nil })
				results <- err
			}()
		}
		synctest.Wait()
		if _, err := a.ReadLog(t.Context(), w.s.Tail(), 5, func(*store.Event) error { return nil }); err != nil || time.Since(begun) > 0 {
			t.Errorf("in the log: %v, after %s", err, time.Since(begun))
		}
		for range 6 * archive.ReadersMax {
			err := <-results
			if err == nil || !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "did not arrive within 1m0s") {
				t.Errorf("%v", err)
			}
		}
		// Each reader has taken one minute for each page, and nothing waits longer than for all of these.
		if d := time.Since(begun); d > 7*time.Minute {
			t.Errorf("it took %s", d)
		}
	})
}
