package dump_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/dump"
	"cistern/objects"
	"cistern/objects/lease"
	"cistern/objects/objectstest"
	"cistern/store"
	"cistern/store/storetest"
)

var errCrash = errors.New("crash")

// crashing is a destination whose changes fail from some number of them on, the first of these
// applied or not, as if the process had ended.
type crashing struct {
	objects.Destination
	left    int // changes before the crash
	applied bool
	crashed bool
}

func (c *crashing) change(fn func() error) error {
	if c.crashed {
		return errCrash
	}
	if c.left--; c.left >= 0 {
		return fn()
	}
	c.crashed = true
	if c.applied {
		if err := fn(); err != nil {
			return err
		}
	}
	return errCrash
}

func (c *crashing) Put(ctx context.Context, name string, o objects.Content) error {
	return c.change(func() error { return c.Destination.Put(ctx, name, o) })
}

func (c *crashing) Delete(ctx context.Context, name string) error {
	return c.change(func() error { return c.Destination.Delete(ctx, name) })
}

// Lock locks nothing: the lock of a process that has ended is gone.
func (c *crashing) Lock(string) (func() error, error) { return func() error { return nil }, nil }

func names(t testing.TB, d objects.Destination) (all []string) {
	t.Helper()
	err := d.List(t.Context(), "", func(o objects.Object) error {
		all = append(all, o.Name)
		return nil
	})
	if err != nil && !errors.Is(err, objects.ErrNotFound) {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// TestRunThroughCrashes exports a store that changes, and crashes after changes of the destination,
// or is cancelled in the middle of a part. The export that is complete in the end has each record once, and nothing else is
// left.
func TestRunThroughCrashes(t *testing.T) {
	t.Parallel()
	objectstest.Each(t, func(t *testing.T, at objects.Destination) {
		for seed := range storetest.Seeds(6) {
			for _, name := range formats {
				prefix := fmt.Sprintf("%d-%s/", seed, name)
				a := author(t, seed)
				for range 60 {
					a.Step()
				}
				rng := rand.New(rand.NewPCG(seed, 9))
				f := events(t, nil, nil)
				src := &busy{Store: a.Store, onlyAt: 30, page: func() {
					if rng.IntN(6) == 0 {
						a.Step()
					}
				}}
				o := dump.Options{Source: src, Prefix: prefix, Format: format(t, name), PartRows: 25,
					TempDir: t.TempDir()}
				var m dump.Manifest
				for runs := 0; ; runs++ {
					d := &crashing{Destination: at, left: rng.IntN(6), applied: rng.IntN(2) == 0}
					o.Destination = d
					ctx, cancel := context.WithCancel(t.Context())
					pages := rng.IntN(40)
					o.Progress = func(dump.Progress) {
						if pages--; pages < 0 {
							cancel() // in the middle of a part
						}
					}
					var err error
					m, err = dump.Run(ctx, o)
					cancel()
					if errors.Is(err, dump.ErrComplete) {
						break
					}
					if err != nil && !errors.Is(err, errCrash) && !errors.Is(err, context.Canceled) {
						t.Fatalf("seed %d: %v", seed, err)
					}
					if runs > 200 {
						t.Fatalf("seed %d: no end after %d runs", seed, runs)
					}
				}
				o.Destination = at
				m = manifest(t, at, prefix)
				got := fold(t, readParts(t, at, prefix, m))
				if int64(len(got)) != m.Rows {
					t.Errorf("seed %d: %d rows, not %d", seed, len(got), m.Rows)
				}
				follow(t, a.Store, m.Head, f, got)
				wantEqual(t, shown(t, a.Store, authored, f), got)
				var want []string
				for _, p := range m.Parts {
					want = append(want, prefix+p.Name)
				}
				left := slices.DeleteFunc(names(t, at), func(n string) bool {
					return !strings.HasPrefix(n, prefix) || n == prefix+"manifest.json" || strings.HasSuffix(n, ".json")
				})
				if !slices.Equal(left, want) {
					t.Errorf("seed %d: left are %q, the manifest has %q", seed, left, want)
				}
			}
		}
	})
}

// TestRunRefuses: parts of another export are not mixed with those of this one.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	a := author(t, 3)
	for range 60 {
		a.Step()
	}
	at, _ := objectstest.Directory(t)
	begun := func(o dump.Options) dump.Options {
		o.Source, o.Format, o.PartRows, o.TempDir = a.Store, format(t, "ndjson"), 10, t.TempDir()
		return o
	}
	_, err := dump.Run(t.Context(), begun(dump.Options{Destination: &crashing{Destination: at, left: 3}}))
	if !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	for what, change := range map[string]func(o *dump.Options){
		"format": func(o *dump.Options) { o.Format = format(t, "parquet") },
		"filter": func(o *dump.Options) { o.Collections = []string{"app.test.c1"} },
		"cbor":   func(o *dump.Options) { o.CBOR = true },
		"store":  func(o *dump.Options) { o.Source = author(t, 3).Store },
	} {
		o := begun(dump.Options{Destination: at})
		change(&o)
		if _, err := dump.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another export") {
			t.Errorf("%s: %v", what, err)
		}
	}
	o := begun(dump.Options{Destination: at})
	o.Progress = func(dump.Progress) { // while it runs
		if _, err := dump.Run(t.Context(), begun(dump.Options{Destination: at})); !errors.Is(err, lease.ErrLocked) {
			t.Errorf("a second export: %v", err)
		}
	}
	m, err := dump.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, shown(t, a.Store, authored, events(t, nil, nil)), fold(t, readParts(t, at, "", m)))
	if _, err := dump.Run(t.Context(), o); !errors.Is(err, dump.ErrComplete) {
		t.Error(err)
	}
}

// TestRunBeginsAnew: an interrupted export whose events the log has lost begins anew.
func TestRunBeginsAnew(t *testing.T) {
	t.Parallel()
	for _, name := range formats {
		a := author(t, 4)
		for range 60 {
			a.Step()
		}
		at, _ := objectstest.Directory(t)
		src := &busy{Store: a.Store}
		o := dump.Options{Source: src, Format: format(t, name), PartRows: 10, TempDir: t.TempDir(),
			Destination: &crashing{Destination: at, left: 5}}
		if _, err := dump.Run(t.Context(), o); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		for range 20 {
			a.Step()
		}
		storetest.Head(t, a.Store)
		lost := true
		src.fail = func() error {
			if lost {
				lost = false
				return fmt.Errorf("pruned: %w", store.ErrOutdatedCursor)
			}
			return nil
		}
		o.Destination = at
		m, err := dump.Run(t.Context(), o)
		if err != nil || m.Head != a.Store.Head() {
			t.Fatalf("head %d of %d: %v", m.Head, a.Store.Head(), err)
		}
		wantEqual(t, shown(t, a.Store, authored, events(t, nil, nil)), fold(t, readParts(t, at, "", m)))

		// One that has only begun fails, and the next run begins anew.
		src.fail = func() error { return fmt.Errorf("pruned: %w", store.ErrOutdatedCursor) }
		o.Destination, _ = objectstest.Directory(t)
		if _, err := dump.Run(t.Context(), o); !errors.Is(err, store.ErrOutdatedCursor) {
			t.Error(err)
		}
	}
}

// TestRunOfNothing: an export without records has a part, so that readers find columns.
func TestRunOfNothing(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for _, name := range formats {
		at, _ := objectstest.Directory(t)
		m, err := dump.Run(t.Context(), dump.Options{Source: s, Format: format(t, name), Destination: at})
		if err != nil || m.Rows != 0 || len(m.Parts) != 1 {
			t.Fatalf("%+v, %v", m, err)
		}
		if rows := readParts(t, at, "", m); len(rows) != 0 {
			t.Error(rows)
		}
	}
}

// TestMaker makes exports as a daemon does: each with a name of its own, those that were interrupted
// continued, and no more kept than asked for.
func TestMaker(t *testing.T) {
	t.Parallel()
	a := author(t, 5)
	for range 60 {
		a.Step()
	}
	at, _ := objectstest.Directory(t)
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	d := &crashing{Destination: at}
	m, err := dump.NewMaker(dump.MakerOptions{Source: a.Store, Destination: d, Keep: 2,
		Format: format(t, "parquet"), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	last := func() time.Time {
		t.Helper()
		last, err := m.Last(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return last
	}
	if got := last(); !got.IsZero() {
		t.Error(got)
	}
	for i := range 4 {
		*d = crashing{Destination: at, left: 1}
		if err := m.Make(t.Context(), nil); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		*d = crashing{Destination: at, left: 1 << 30}
		begun := now
		now = now.Add(time.Hour)
		if err := m.Make(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got := last(); !got.Equal(begun) {
			t.Errorf("%d: last %s, want %s", i, got, begun)
		}
	}
	manifests := 0
	for _, n := range names(t, at) {
		if strings.HasSuffix(n, "/manifest.json") {
			manifests++
		}
		if !strings.HasPrefix(n, "20261201T0") || !strings.Contains(n, a.Store.Epoch()+"/") {
			t.Error(n)
		}
	}
	if manifests != 2 {
		t.Errorf("%d exports are kept: %q", manifests, names(t, at))
	}
}

// intruding is a destination in which something else replaces the first part.
type intruding struct{ objects.Destination }

func (i intruding) Put(ctx context.Context, name string, o objects.Content) error {
	if strings.HasPrefix(name, "records-00002") {
		if err := objects.PutText(ctx, i.Destination, "records-00001.ndjson.zst", []byte("x")); err != nil {
			return err
		}
	}
	return i.Destination.Put(ctx, name, o)
}

// TestRunDamaged: no manifest says that an export is complete whose parts were changed meanwhile.
func TestRunDamaged(t *testing.T) {
	t.Parallel()
	a := author(t, 6)
	for range 60 {
		a.Step()
	}
	at, _ := objectstest.Directory(t)
	_, err := dump.Run(t.Context(), dump.Options{Source: a.Store, Format: format(t, "ndjson"), PartRows: 10,
		Destination: intruding{at}})
	if !errors.Is(err, objects.ErrDamaged) || slices.Contains(names(t, at), "manifest.json") {
		t.Errorf("%v; %q", err, names(t, at))
	}
}
