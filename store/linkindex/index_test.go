package linkindex_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/gate"
	"cistern/store"
	"cistern/store/linkindex"
	"cistern/store/storetest"
)

// newHistory returns a history without crashes, whose index is not opened yet.
func newHistory(t *testing.T) (*history, *storetest.Author) {
	h := &history{t: t, rng: rand.New(rand.NewPCG(1, 2)), clock: time.Unix(1_800_000_000, 0)}
	h.store = storetest.Open(t, store.Options{Now: func() time.Time { return h.clock },
		Retention: time.Hour, SubscriptionRetention: 2 * time.Hour})
	a := &storetest.Author{T: t, Store: h.store, Rand: h.rng, Repos: repos, Record: h.record}
	return h, a
}

func (h *history) openIndex(o linkindex.Options) *linkindex.Index {
	h.t.Helper()
	o.Store, o.Dir = h.store, "links"
	x, err := linkindex.OpenTuned(o, max(h.small, 1), nil)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := x.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return x
}

// TestRun: an index that is opened over a store with records has them, and then follows the log until
// its context ends. While its gate is shut it does nothing.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, a := newHistory(t)
		for range 60 {
			a.Step()
		}
		var g gate.Gate
		g.Shut(gate.Cause{Name: "disk"})
		x := h.openIndex(linkindex.Options{Gate: &g})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- x.Run(ctx) }()
		time.Sleep(time.Minute)
		if st := x.State(); !st.Building || st.Links != 0 {
			t.Errorf("at a shut gate: %+v", st)
		}
		g.Open("disk")
		for range 4 {
			time.Sleep(10 * time.Second)
			synctest.Wait()
			compare(t, h.rng, h.store, x)
			for range 20 {
				a.Step()
			}
			storetest.Head(t, h.store)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n, _, err := x.Check(t.Context(), func(d string) { t.Error(d) }); n > 0 || err != nil {
			t.Errorf("at the end: %d differences, %v", n, err)
		}
	})
}

// TestHiddenBefore: links of an account that is hidden are not in pages, also before the index has
// the event, and neither are those of an account that the store does not know any more.
func TestHiddenBefore(t *testing.T) {
	t.Parallel()
	h, a := newHistory(t)
	for range 100 {
		a.Step()
	}
	x := h.openIndex(linkindex.Options{})
	h.catchUp(x)
	source := linkindex.Source{Collection: "app.test.c0", Path: ".subject.uri"}
	hidden := ""
	for n := 0; n < targets; n++ {
		for _, r := range readRecords(t, x, target(n), source, linkindex.Query{Limit: 100}) {
			if hidden == "" {
				hidden = r.DID
				wait, err := h.store.UpdateRepo(hidden, func(b *store.Batch, r *store.Repo) error {
					b.Hide(r, store.StatusTakendown, store.OriginHost, store.Retry{})
					b.Account(r)
					b.PutRepo(r)
					return nil
				})
				if err := errors.Join(err, wait()); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, r := range readRecords(t, x, target(n), source, linkindex.Query{Limit: 100}) {
			if r.DID == hidden {
				t.Errorf("%+v is shown", r)
			}
		}
		for _, did := range readDIDs(t, x, target(n), source, 100) {
			if did == hidden {
				t.Errorf("%s is shown", did)
			}
		}
	}
	if hidden == "" {
		t.Fatal("no target has a link")
	}
	h.catchUp(x)
	compare(t, h.rng, h.store, x)
}

// TestTargetsKeepOrder: of a large run, rows by target are made while the links are read for others.
func TestTargetsKeepOrder(t *testing.T) {
	t.Parallel()
	h, _ := newHistory(t)
	x := h.openIndex(linkindex.Options{RunBytes: 1 << 30})
	w := x.NewWriter()
	for round := range 2 { // the links of the second replace those of the first
		for i := range 50 {
			err := w.Put(storetest.DID(1), []byte("app.test.a"), []byte(storetest.Rev(i)), []linkindex.TestLink{
				{Source: linkindex.Source{Collection: "app.test.a", Path: ".a"}, Target: storetest.DID(100*round + i)}})
			if err != nil {
				t.Fatal(err)
			}
		}
		if keep, adds, removes, err := w.TargetsKeepOrder(); err != nil || !keep || adds != 50 || removes != 50*round {
			t.Errorf("%d links and %d that go, in their order: %v, %v", adds, removes, keep, err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPagesEnd: a page ends after some thousand rows, though it may be empty, and the next goes on.
func TestPagesEnd(t *testing.T) {
	t.Parallel()
	h, _ := newHistory(t)
	x := h.openIndex(linkindex.Options{RunBytes: 1 << 30})
	w := x.NewWriter()
	source := linkindex.Source{Collection: "app.test.c0", Path: ".x"}
	for n := range 10_000 { // of accounts that the store does not know
		did := storetest.DID(100 + n/100)
		if err := w.Put(did, []byte(source.Collection), []byte(fmt.Sprint(n)), []linkindex.TestLink{{Source: source, Target: "did:x:y"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, d, err := x.Count("did:x:y", source); n != 10_000 || d != 100 || err != nil {
		t.Errorf("counted %d of %d accounts, %v", n, d, err)
	}
	pages := 0
	for after := linkindex.Cursor(0); pages == 0 || after != 0; pages++ {
		page, next, err := x.Records("did:x:y", source, linkindex.Query{After: after, Limit: 10})
		if len(page) > 0 || err != nil {
			t.Fatalf("%v, %v", page, err)
		}
		after = next
	}
	if pages != 3 {
		t.Errorf("%d pages for 10,000 rows", pages)
	}
}

// TestManySources: a run may give more sources than are kept in memory, and gives each one number.
func TestManySources(t *testing.T) {
	t.Parallel()
	h, _ := newHistory(t)
	x := h.openIndex(linkindex.Options{RunBytes: 1 << 30})
	w := x.NewWriter()
	long := strings.Repeat(".long", 200)
	source := func(n int) linkindex.Source {
		return linkindex.Source{Collection: "app.test.c0", Path: fmt.Sprint(long, n)}
	}
	const sources = 12_000
	for round := range 2 {
		for n := range sources {
			rkey := []byte(fmt.Sprint(round, "-", n))
			if err := w.Put(storetest.DID(1), []byte("app.test.c0"), rkey, []linkindex.TestLink{{Source: source(n), Target: "did:x:y"}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for n := range sources {
		if records, dids, err := x.Count("did:x:y", source(n)); records != 2 || dids != 1 || err != nil {
			t.Fatalf("source %d: %d records of %d accounts, %v", n, records, dids, err)
		}
	}
	if all, err := x.Sources("did:x:y"); len(all) != 10_000 || err != nil {
		t.Errorf("%d sources, %v", len(all), err)
	}
}

// TestAnotherLog: an index of another log, or of one that was pruned beyond what it has, is built
// anew; and events stay for an index that has not got them, but not for ever.
func TestAnotherLog(t *testing.T) {
	t.Parallel()
	h, a := newHistory(t)
	x := h.openIndex(linkindex.Options{})
	prune := func(later time.Duration) {
		h.clock = h.clock.Add(later)
		if err := h.store.Prune(t.Context(), func(int64, int64) {}); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		a.Step()
	}
	keep := h.store.KeepLog()
	keep.Keep(1)
	prune(time.Minute)
	for range 2 { // 90 minutes: beyond the retention, within that for readers
		prune(45 * time.Minute)
	}
	if h.store.Tail() != 1 {
		t.Errorf("the log begins at %d though a reader needs 1", h.store.Tail())
	}
	keep.Release()
	h.catchUp(x)
	compare(t, h.rng, h.store, x)
	for range 20 {
		a.Step()
	}
	for range 6 {
		prune(45 * time.Minute)
	}
	if h.store.Tail() <= x.State().Through+1 {
		t.Fatalf("the log begins at %d, the index is at %d", h.store.Tail(), x.State().Through)
	}
	h.catchUp(x)
	compare(t, h.rng, h.store, x)
	other, b := newHistory(t)
	for range 50 {
		b.Step()
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	y, err := linkindex.Open(linkindex.Options{Store: other.store, Dir: "links", FS: h.store.FS()})
	if err != nil {
		t.Fatal(err)
	}
	other.catchUp(y)
	compare(t, h.rng, other.store, y)
	if err := y.Close(); err != nil {
		t.Error(err)
	}
}

// TestLargeRun: a run with more links than are sorted at once, to few targets and to many.
func TestLargeRun(t *testing.T) {
	t.Parallel()
	h, _ := newHistory(t)
	x := h.openIndex(linkindex.Options{RunBytes: 1 << 30})
	w := x.NewWriter()
	source := linkindex.Source{Collection: "app.test.c0", Path: ".x"}
	const records = 20_000
	for n := range records {
		one := linkindex.TestLink{Source: source, Target: fmt.Sprint("did:x:", h.rng.IntN(5_000))}
		popular := linkindex.TestLink{Source: source, Target: fmt.Sprint("did:x:popular", n%2)}
		if err := w.Put(storetest.DID(1+n/300), []byte(source.Collection), fmt.Appendf(nil, "%05d", n),
			[]linkindex.TestLink{one, popular}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, dids, err := x.Count("did:x:popular1", source); n != records/2 || dids != 67 || err != nil {
		t.Errorf("%d links of %d accounts, %v", n, dids, err)
	}
	if n, _, err := x.Check(t.Context(), func(d string) { t.Error(d) }); n > 0 || err != nil {
		t.Errorf("%d differences, %v", n, err)
	}
}

// TestFormat: an index of another version is emptied and built anew, and the operator is told.
func TestFormat(t *testing.T) {
	t.Parallel()
	h, a := newHistory(t)
	for range 100 {
		a.Step()
	}
	x := h.openIndex(linkindex.Options{})
	h.catchUp(x)
	if err := errors.Join(x.WriteVersion(1), x.Close()); err != nil {
		t.Fatal(err)
	}
	o := linkindex.Options{Store: h.store, Dir: "links", ReadOnly: true}
	if _, err := linkindex.Open(o); err == nil || !strings.Contains(err.Error(), "version 1") {
		t.Errorf("open an old index to read it: %v", err)
	}
	var said strings.Builder
	o.ReadOnly, o.Logger = false, slog.New(slog.NewTextHandler(&said, nil))
	y, err := linkindex.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "built anew") || !y.State().Building {
		t.Errorf("%+v; logged %s", y.State(), said.String())
	}
	h.catchUp(y)
	compare(t, h.rng, h.store, y)
	if err := y.Close(); err != nil {
		t.Error(err)
	}
}
