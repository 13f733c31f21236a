package logs

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// kindsMax bounds the kinds that are remembered, at about 100 bytes each. The daemon has some 100
// messages.
const kindsMax = 1024

// kind is what lines that say the same have in common.
type kind struct {
	level   slog.Level
	message string
}

// tally counts the lines of one kind in the current window.
type tally struct {
	begun   time.Time
	written int
	left    int // left out, and not reported yet
}

// omission is how many lines of a kind were left out.
type omission struct {
	kind
	left int
}

// kinds counts lines by kind.
type kinds struct {
	burst  int
	window time.Duration

	mu    sync.Mutex
	all   map[kind]*tally // mu guards
	swept time.Time       // mu guards: when windows that have ended were last looked for
}

func newKinds(burst int, window time.Duration) *kinds {
	return &kinds{burst: burst, window: window, all: map[kind]*tally{}}
}

// admit reports whether a line of a kind is to be written, and how many were left out before it
// since the last report.
func (k *kinds) admit(of kind, now time.Time) (left int, write bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.all[of]
	if t == nil && len(k.all) >= kindsMax {
		of = kind{of.level, "others"}
		t = k.all[of]
	}
	if t == nil {
		t = &tally{begun: now}
		k.all[of] = t
	}
	if k.over(t, now) {
		left = t.left
		*t = tally{begun: now}
	}
	if t.written >= k.burst {
		t.left++
		return 0, false
	}
	t.written++
	return left, true
}

// over reports whether a window has ended. A clock that was set back ends it too.
func (k *kinds) over(t *tally, now time.Time) bool {
	passed := now.Sub(t.begun)
	return passed < 0 || passed >= k.window
}

// sweep returns what was left out in windows that have ended, once in each window.
func (k *kinds) sweep(now time.Time) []omission {
	k.mu.Lock()
	defer k.mu.Unlock()
	if passed := now.Sub(k.swept); passed >= 0 && passed < k.window {
		return nil
	}
	k.swept = now
	return k.take(func(t *tally) bool { return k.over(t, now) })
}

// drain returns what was left out and not reported yet.
func (k *kinds) drain() []omission {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.take(func(*tally) bool { return true })
}

// take forgets the tallies that are over, and returns their omissions by severity. Called with mu
// held.
func (k *kinds) take(over func(*tally) bool) (all []omission) {
	for of, t := range k.all {
		if !over(t) {
			continue
		}
		if t.left > 0 {
			all = append(all, omission{of, t.left})
		}
		delete(k.all, of)
	}
	slices.SortFunc(all, func(a, b omission) int {
		return cmp.Or(cmp.Compare(b.level, a.level), cmp.Compare(a.message, b.message))
	})
	return all
}
