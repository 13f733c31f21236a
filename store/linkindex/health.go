package linkindex

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"cistern/loop"
	"cistern/store"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sync/errgroup"
)

// retryEvery is how long writing rests after an error that may pass, such as a full disk. The
// engine itself rests a tenth of it after a flush or a compaction failed: it would try again at
// once, and without end.
const retryEvery = 10 * time.Second

// health is whether the index can be written.
type health struct {
	// lost is closed when the engine has lost its log or its manifest. Goroutines of the engine are
	// held up then, with the engine's locks: it is not used for writing any more, nor closed.
	lost chan struct{}
	// closing is closed before the engine is closed, so that nothing rests.
	closing chan struct{}
	stuck   chan struct{} // has an element when the engine rests
	rest    time.Duration // retryEvery, but for tests

	mu      sync.Mutex
	failed  error // mu guards; the first failure that does not pass
	resting error // mu guards; why the engine rests, nil once a flush or a compaction succeeded
	trouble error // mu guards; why the last run could not be written, nil once one was
	gone    bool  // mu guards; the engine is left as it is: lost, or stuck at the end
}

func newHealth(rest time.Duration) *health {
	return &health{lost: make(chan struct{}), closing: make(chan struct{}),
		stuck: make(chan struct{}, 1), rest: rest}
}

// fail records the first failure that does not pass. Nothing is written after it; what is there may
// be read.
func (h *health) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed == nil {
		h.failed = fmt.Errorf("the index of links failed: %w", err)
	}
}

// failure returns the first failure that does not pass, nil without one.
func (h *health) failure() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

// err returns why nothing can be written now, nil if it can.
func (h *health) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.failed != nil:
		return h.failed
	case h.resting != nil:
		return h.resting
	}
	return h.trouble
}

// rests returns why the engine rests, nil if it does not.
func (h *health) rests() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.resting
}

// settle records that the engine rests, and wakes a guard.
func (h *health) settle(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resting = err
	loop.Wake(h.stuck)
}

// awake records that the engine does not rest any more, so that no later guard takes it to be
// stuck.
func (h *health) awake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resting = nil
	select {
	case <-h.stuck:
	default:
	}
}

// wrote records whether a run could be written. changed reports whether it is otherwise than
// before.
func (h *health) wrote(err error) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed = (h.trouble == nil) != (err == nil)
	h.trouble = err
	return changed
}

// lose records that the engine has lost its log or its manifest.
func (h *health) lose(err error) {
	h.fail(err)
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.lost:
	default:
		h.gone = true
		close(h.lost)
	}
}

// abandon has the engine left as it is.
func (h *health) abandon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
}

func (h *health) abandoned() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gone
}

// permanent reports whether an error does not pass by trying again.
func permanent(err error) bool {
	return errors.Is(err, store.ErrCorrupt) || pebble.IsCorruptionError(err) ||
		errors.Is(err, errNumbers)
}

// listener returns what the engine tells of its flushes and compactions. It calls all of it with
// its locks held, so that writes wait while it rests; reads do not.
func (h *health) listener() *pebble.EventListener {
	ended := func(err error) {
		if err == nil {
			h.awake()
		}
	}
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			err = fmt.Errorf("flush or compaction: %w", err)
			if permanent(err) {
				h.fail(err)
			}
			h.settle(err)
			loop.Sleep(context.Background(), h.rest/10, h.closing)
		},
		FlushEnd:      func(info pebble.FlushInfo) { ended(info.Err) },
		CompactionEnd: func(info pebble.CompactionInfo) { ended(info.Err) },
		// Whatever read the damaged table gets an error. The engine's default is to end the process.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			h.fail(fmt.Errorf("damaged table %s: %w", info.Path, info.Details))
		},
	}
}

// engineLogger passes Pebble's messages on.
type engineLogger struct {
	log    *slog.Logger
	health *health
}

// Infof implements pebble.Logger.
func (l engineLogger) Infof(format string, args ...any) {
	l.log.Debug("storage engine", "text", fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (l engineLogger) Errorf(format string, args ...any) {
	l.log.Error("the storage engine reports an error", "err", fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger. Pebble calls it when its log or its manifest is lost, with locks
// held, in its own goroutines too, and expects not to return: it would go on with what it does not
// have on disk. A panic would end the daemon. So the goroutine is held up for ever.
func (l engineLogger) Fatalf(format string, args ...any) {
	l.health.lose(fmt.Errorf("pebble: "+format, args...))
	select {}
}

// guard runs a write of the engine, and returns without its end if the engine is lost, or if it
// rests after stop was closed. Nothing is written after that.
func (h *health) guard(stop <-chan struct{}, write func() error) error {
	if err := h.failure(); err != nil {
		return err
	}
	var g errgroup.Group
	done := make(chan error, 1)
	g.Go(func() error {
		defer func() {
			if p := recover(); p != nil {
				h.lose(fmt.Errorf("%v", p))
			}
		}()
		done <- write()
		return nil
	})
	select {
	case err := <-done:
		return err
	case <-h.lost:
		return h.failure()
	case <-stop:
	}
	select {
	case err := <-done:
		return err
	case <-h.lost:
		return h.failure()
	case <-h.stuck:
		h.abandon()
		return fmt.Errorf("stopped while the engine rests: %w", h.rests())
	}
}
