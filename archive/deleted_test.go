package archive_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"cistern/filter"
	"cistern/objects"
	"cistern/objects/objectstest"
	"cistern/store"

	"github.com/google/go-cmp/cmp"
)

// TestDeletedSegments: when the operator deletes the oldest segments, the log begins at the oldest
// that is left; if all are missing, or one that is not among the oldest, nothing is forgotten.
func TestDeletedSegments(t *testing.T) {
	t.Parallel()
	to, _ := objectstest.Directory(t)
	w := newWorld(t, 9, to)
	defer func() { w.end() }()
	for len(w.s.Segments()) < 5 {
		w.write(100)
		if err := w.a.Offload(t.Context(), none); err != nil {
			t.Fatal(err)
		}
	}
	w.prune()
	all := w.s.Segments()
	last := len(all) - 1
	remove := func(seg *store.Segment) (restore func()) {
		t.Helper()
		name := objectOf(t, to, seg)
		b, err := objects.ReadAll(t.Context(), to, name, seg.Bytes)
		if err = errors.Join(err, to.Delete(t.Context(), name)); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := objects.PutText(t.Context(), to, name, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	same := func(oldest uint64) {
		t.Helper()
		if got := w.s.Oldest(); got != oldest {
			t.Fatalf("the oldest event is %d, want %d", got, oldest)
		}
		none := func(*store.Event) error { return nil }
		_, err := w.a.ReadLog(t.Context(), oldest-1, 1, none)
		if oldest > 1 && !errors.Is(err, store.ErrOutdatedCursor) {
			t.Errorf("below the oldest event: %v", err)
		}
		f, err := filter.CompileEvents(filter.EventsConfig{Kinds: filter.EventKinds})
		if err != nil {
			t.Fatal(err)
		}
		want := replay(t, w.twin, f, oldest, w.twin.Head(), 1000)
		if diff := cmp.Diff(want, replay(t, w.a, f, oldest, w.twin.Head(), 50)); diff != "" {
			t.Errorf("from %d: %s", oldest, diff)
		}
	}

	restore := remove(&all[1])
	if err := w.a.Offload(t.Context(), none); err != nil {
		t.Fatal(err)
	}
	restore()
	same(all[0].First)

	var restores []func()
	for i := range all {
		restores = append(restores, remove(&all[i]))
	}
	if err := w.a.Offload(t.Context(), none); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("without any segment: %v", err)
	}
	for _, restore := range restores {
		restore()
	}
	same(all[0].First)

	remove(&all[0])
	remove(&all[1])
	if err := w.a.Offload(t.Context(), none); err != nil {
		t.Fatal(err)
	}
	same(all[2].First)
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(w.o)
	if err != nil {
		t.Fatal(err)
	}
	w.use(s)
	same(all[2].First)
	for i := 2; i < last; i++ {
		remove(&all[i])
	}
	w.write(300)
	if err := w.a.Offload(t.Context(), none); err != nil {
		t.Fatal(err)
	}
	same(all[last].First)
	if n := len(w.s.Segments()); n < 2 {
		t.Errorf("%d segments: no new one follows", n)
	}
}

// objectOf returns the name of the object of a segment.
func objectOf(t *testing.T, to objects.Destination, seg *store.Segment) (name string) {
	t.Helper()
	part := fmt.Sprintf("/%020d-", seg.First)
	err := to.List(t.Context(), "log/", func(o objects.Object) error {
		if strings.Contains(o.Name, part) {
			name = o.Name
		}
		return nil
	})
	if err != nil || name == "" {
		t.Fatalf("no object has %s, %v", part, err)
	}
	return name
}
