package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestBoxes checks that boxes stop in the reverse order of their start, whatever begins the stop.
func TestBoxes(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	rows := []struct {
		name   string
		middle func(context.Context) error // of three boxes
		want   error
		order  string
	}{
		{"asked to", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, nil, "c b a"},
		{"one ends", func(context.Context) error { return nil }, nil, "b c a"},
		{"one fails", func(context.Context) error { return broken }, broken, "b c a"},
		// a is never stopped: it might be what the stuck box writes to
		{"one is stuck", func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Hour); return nil }, errBudget, "c"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var order []string
				note := func(name string, run func(context.Context) error) box {
					return box{name, func(ctx context.Context) error {
						defer func() { mu.Lock(); order = append(order, name); mu.Unlock() }()
						return run(ctx)
					}}
				}
				wait := func(ctx context.Context) error {
					select {
					case <-ctx.Done():
					case <-time.After(2 * time.Hour): // the bubble wants goroutines to end
					}
					return nil
				}
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Minute, cancel)
				asked := false
				err := boxes{list: []box{note("a", wait), note("b", row.middle), note("c", wait)}, budget: time.Second,
					stopping: func() { asked = true }}.Run(ctx)
				if !asked {
					t.Error("stopping was not called")
				}
				if !errors.Is(err, row.want) {
					t.Errorf("got %v, want %v", err, row.want)
				}
				mu.Lock()
				got := strings.Join(order, " ")
				mu.Unlock()
				if got != row.order {
					t.Errorf("ended in the order %q, want %q", got, row.order)
				}
				time.Sleep(3 * time.Hour)
			})
		})
	}
}

// A daemon does not close the store while boxes or requests may still read it.
func TestStoreStaysOpenForWhatIsLeft(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	for _, c := range []struct {
		name string
		run  func(context.Context) error
		want error
	}{
		{"stuck", func(context.Context) error { <-release; return nil }, errBudget},
		{"requests", func(context.Context) error { return api.ErrDraining }, api.ErrDraining},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Data: t.TempDir(), PLC: []string{"http://127.0.0.1:1"}, AllowPrivate: true, Verify: "full"}
			d, err := newDaemon(cfg, slog.New(slog.DiscardHandler), listeners{listenAny(t), listenAny(t)}, tuning{
				budget: 50 * time.Millisecond,
				store:  func(o *store.Options) { o.FS = vfs.NewMem() },
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := d.run(ctx, box{c.name, c.run}); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.name) {
				t.Errorf("got %v", err)
			}
			if _, err := d.store.Repo("did:web:nobody.example"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("the store answers %v", err)
			}
			storetest.Check(t, d.store) // open, in memory
		})
	}
}

// TestNotReadyWhileStopping: /readyz refuses from the beginning of a stop on, so that no new clients are sent to a daemon
// that still waits for a part.
func TestNotReadyWhileStopping(t *testing.T) {
	t.Parallel()
	cfg := Config{Data: t.TempDir(), PLC: []string{"http://127.0.0.1:1"}, AllowPrivate: true, Verify: "full"}
	l := listeners{listenAny(t), listenAny(t)}
	d, err := newDaemon(cfg, slog.New(slog.DiscardHandler), l, tuning{store: func(o *store.Options) { o.FS = vfs.NewMem() }})
	if err != nil {
		t.Fatal(err)
	}
	ready := func() (int, string) {
		res, err := http.Get("http://" + l.admin.Addr().String() + "/readyz")
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return res.StatusCode, string(body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// The last box stops first, so that api still serves while it waits.
	err = d.run(ctx, box{"slow", func(ctx context.Context) error {
		if status, body := ready(); status != 200 {
			t.Errorf("%d %s while it runs", status, body)
		}
		cancel()
		<-ctx.Done()
		if status, body := ready(); status != 503 || !strings.Contains(body, "stopping") {
			t.Errorf("%d %s while it stops", status, body)
		}
		return nil
	}})
	if err != nil {
		t.Error(err)
	}
}

func listenAny(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
