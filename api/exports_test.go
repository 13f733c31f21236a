package api_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/api"
	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

const getRepo = "com.atproto.sync.getRepo"

// car requests a CAR.
func (w *world) car(t testing.TB, method string, q url.Values) []byte {
	t.Helper()
	var text string
	res := call(t, "GET", w.public.URL+"/xrpc/"+method+"?"+q.Encode(), "", nil, &text)
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/vnd.ipld.car" {
		t.Fatalf("%s %v: %d %s %.300s", method, q, res.StatusCode, res.Header.Get("Content-Type"), text)
	}
	return []byte(text)
}

// carRecords reads the records of a whole CAR, whose root must be signed by the commit of the row.
func (w *world) carRecords(t testing.TB, car []byte, row *store.Repo) storetest.Records {
	t.Helper()
	c, err := repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	commit, ok, err := c.Block(c.Root())
	if err != nil || !ok || !bytes.Equal(commit, row.Commit) {
		t.Fatalf("the root is not the commit: %v", err)
	}
	m := storetest.Records{}
	err = c.Walk(row.Data, func(l repo.Leaf) error {
		m[string(l.Key)] = bytes.Clone(l.Record)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (w *world) row(t testing.TB, did string) store.Repo {
	t.Helper()
	row, err := w.store.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

func TestGetRepo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	m := storetest.Random(rand.New(rand.NewPCG(1, 1)), 2000)
	w.hold(t, alice, m)
	w.hold(t, bob, storetest.Records{})
	row := w.row(t, alice)
	q := url.Values{"did": {alice}}
	for range 2 { // the second time the tree is known
		if diff := cmp.Diff(m, w.carRecords(t, w.car(t, getRepo, q), &row)); diff != "" {
			t.Fatal(diff)
		}
	}
	empty := w.row(t, bob)
	if n := len(w.carRecords(t, w.car(t, getRepo, url.Values{"did": {bob}}), &empty)); n != 0 {
		t.Errorf("%d records of an empty repository", n)
	}
	for _, method := range []string{"GET", "HEAD"} {
		var text string
		res := call(t, method, w.public.URL+"/xrpc/"+getRepo+"?"+q.Encode(), "", nil, &text)
		if rev := res.Header.Get("Atproto-Repo-Rev"); res.StatusCode != 200 || rev != row.Rev || (text == "") != (method == "HEAD") {
			t.Errorf("%s: %d, rev %q, %d bytes", method, res.StatusCode, rev, len(text))
		}
	}
}

func TestGetRepoRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.add(t, bob)
	for _, c := range []struct {
		q          url.Values
		name, says string
	}{
		{nil, "InvalidRequest", `"did" is missing`},
		{url.Values{"did": {"alice.test"}}, "InvalidRequest", "is a handle"},
		{url.Values{"did": {alice, bob}}, "InvalidRequest", "2 times"},
		{url.Values{"did": {alice}, "since": {"yesterday"}}, "InvalidRequest", `since "yesterday"`},
		{url.Values{"did": {bob}}, "RepoNotFound", bob},     // known, but there is no copy
		{url.Values{"did": {carol}}, "RepoNotFound", carol}, // unknown
	} {
		w.refuses(t, getRepo, c.q, 400, c.name, c.says)
	}
	for status, name := range map[store.Status]string{
		store.StatusTakendown: "RepoTakendown", store.StatusSuspended: "RepoSuspended",
		store.StatusDeactivated: "RepoDeactivated", store.StatusInactive: "RepoDeactivated",
		store.StatusDeleted: "RepoNotFound", store.StatusNotFound: "RepoNotFound",
	} {
		w.update(t, alice, func(b *store.Batch, r *store.Repo) {
			b.Hide(r, status, store.OriginHost, store.Retry{})
		})
		w.refuses(t, getRepo, url.Values{"did": {alice}}, 400, name, alice)
	}
}

// TestGetRepoFiltered: what the filter has left out or hides is never missing from a CAR that claims
// to be whole.
func TestGetRepoFiltered(t *testing.T) {
	t.Parallel()
	wanted := storetest.Records{} // more than is sent before the first record that is not wanted
	for i := range 500 {
		wanted["app.test.a/"+storetest.Rev(i)] = storetest.Text(fmt.Sprint(strings.Repeat("x", 300), i))
	}
	m := maps.Clone(wanted)
	m["app.test.b/two"] = storetest.Text("y")
	for _, c := range []struct {
		config filter.Config
		held   storetest.Records
		whole  bool
	}{
		{filter.Config{}, m, true},
		{filter.Config{Collections: []string{"app.test.a"}}, wanted, false},
		{filter.Config{Collections: []string{"app.test.a"}, Store: filter.StoreAll}, m, false},
		{filter.Config{Collections: []string{"app.test.*"}, Store: filter.StoreAll}, m, true},
	} {
		w := newWorld(t, api.Options{})
		if _, err := w.store.SetFilter(c.config); err != nil {
			t.Fatal(err)
		}
		w.holdFiltered(t, alice, m, c.held)
		if !c.whole {
			w.refuses(t, getRepo, url.Values{"did": {alice}}, 400, "RepoIncomplete", alice)
			continue
		}
		row := w.row(t, alice)
		if diff := cmp.Diff(m, w.carRecords(t, w.car(t, getRepo, url.Values{"did": {alice}}), &row)); diff != "" {
			t.Errorf("%+v: %s", c.config, diff)
		}
	}
}

// holdFiltered gives did a first copy of m, of which the filter in force has held chosen.
func (w *world) holdFiltered(t testing.TB, did string, m, held storetest.Records) {
	t.Helper()
	w.add(t, did)
	row := w.row(t, did)
	w.revs++
	im := held.Import(row, storetest.Rev(w.revs))
	im.Filter = w.store.Filter().Selection
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Errorf("import: %v", err)
		}
	}
	im.Complete = func(b *store.Batch, r *store.Repo) {
		b.Complete(r)
		r.Filter, r.Rev, r.Data = im.Filter, im.Rev, m.Root()
		r.Commit = storetest.Commit(did, r.Rev, r.Data)
	}
	w.store.BeginFetch(did)
	defer w.store.EndFetch(did)
	if err := w.store.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	if err := w.store.FlushImports(); err != nil {
		t.Fatal(err)
	}
}

// TestGetRepoTorn: while a difference is written in part, the records belong to no rev.
func TestGetRepoTorn(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(r *store.Repo){
		"torn":  func(r *store.Repo) { r.Torn = true },
		"lacks": func(r *store.Repo) { r.Lacks = true },
	} {
		w := newWorld(t, api.Options{})
		w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
		w.update(t, alice, func(b *store.Batch, r *store.Repo) {
			b.Enqueue(r, store.PriorityRetry)
			change(r)
		})
		t.Log(what)
		w.refuses(t, getRepo, url.Values{"did": {alice}}, 400, "RepoIncomplete", alice)
	}
}

// TestGetRepoMismatch: a copy that does not agree with its commit is not exported, and is fetched
// again once for each rev.
func TestGetRepoMismatch(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	w := newWorld(t, api.Options{Registerer: reg})
	m := storetest.Records{"app.test.a/one": storetest.Text("x"), "app.test.b/two": storetest.Text("y")}
	w.holdFiltered(t, alice, m, storetest.Records{"app.test.a/one": m["app.test.a/one"]})
	refuses := func(says string) {
		t.Helper()
		w.refuses(t, getRepo, url.Values{"did": {alice}}, 400, "RepoIncomplete", says)
	}
	state := func(want store.State) uint64 {
		t.Helper()
		row := w.row(t, alice)
		if row.State != want {
			t.Errorf("the repository is %s, want %s", row.State, want)
		}
		return row.Attempt
	}
	completed := func(rev int, verified store.Verified) {
		w.update(t, alice, func(b *store.Batch, r *store.Repo) {
			if r.State != store.StatePending {
				b.Enqueue(r, store.PriorityRetry)
			}
			b.Complete(r)
			r.Rev, r.Verified = storetest.Rev(rev), verified
			r.Commit = storetest.Commit(alice, r.Rev, r.Data)
		})
	}
	refuses("fetched again")
	first := state(store.StatePending)
	refuses("fetched again")
	if n := state(store.StatePending); n != first || w.woken.Load() == 0 {
		t.Errorf("attempt %d after another request, want %d; woken %d times", n, first, w.woken.Load())
	}
	completed(1, store.VerifiedFull) // by the same records
	refuses("fetched again")
	state(store.StateSynced)
	completed(50, store.VerifiedFull)
	refuses("fetched again")
	state(store.StatePending)
	// A commit without a proof may have changed more than it states.
	completed(60, store.VerifiedOps)
	refuses("cannot show")
	state(store.StateSynced)
	if n := counted(t, reg, "cistern_api_export_mismatches_total"); n != 2 {
		t.Errorf("%v mismatches are counted, want 2", n)
	}
}

// counted returns the value of a counter without labels.
func counted(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// scriptedWriter is the client of an answer that has a script for each piece.
type scriptedWriter struct {
	*httptest.ResponseRecorder
	piece     func(n int) error // called before the nth piece is taken
	n         atomic.Int64      // pieces so far
	deadlines []time.Time
}

func (s *scriptedWriter) Write(p []byte) (int, error) {
	n := s.n.Add(1)
	if s.piece != nil {
		if err := s.piece(int(n)); err != nil {
			return 0, err
		}
	}
	return s.ResponseRecorder.Write(p)
}

func (s *scriptedWriter) SetWriteDeadline(d time.Time) error {
	s.deadlines = append(s.deadlines, d)
	return nil
}

// serve answers a request, and reports whether the connection was broken.
func (w *world) serve(ctx context.Context, s *scriptedWriter, path, client string) (broken bool) {
	r := httptest.NewRequestWithContext(ctx, "GET", path, nil)
	r.RemoteAddr = client + ":1"
	defer func() {
		if p := recover(); p != nil {
			broken = p == http.ErrAbortHandler
		}
	}()
	w.server.Public().ServeHTTP(s, r)
	return false
}

// TestGetRepoStops: a CAR is broken off when its account is hidden or wiped, its client goes away,
// or does not read.
func TestGetRepoStops(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		stop func(w *world, cancel func()) error
		more int // pieces that are taken nevertheless
	}{
		"hidden": {func(w *world, _ func()) error {
			w.update(t, alice, func(b *store.Batch, r *store.Repo) {
				b.Hide(r, store.StatusTakendown, store.OriginHost, store.Retry{})
			})
			return nil
		}, 1},
		"wiped": {func(w *world, _ func()) error {
			w.one(t, "DELETE", "/repos?purge=true", alice, "purged")
			return nil
		}, 1},
		"gone":     {func(_ *world, cancel func()) error { cancel(); return nil }, 1},
		"not read": {func(*world, func()) error { return os.ErrDeadlineExceeded }, 0},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, api.Options{})
			m := storetest.Records{}
			for i := range 2000 {
				m["app.test.a/"+storetest.Rev(i)] = storetest.Text(fmt.Sprint(strings.Repeat("x", 300), i))
			}
			w.hold(t, alice, m)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := &scriptedWriter{ResponseRecorder: httptest.NewRecorder(), piece: func(n int) error {
				if n == 3 {
					return c.stop(w, cancel)
				}
				return nil
			}}
			begun := time.Now()
			broken := w.serve(ctx, s, "/xrpc/"+getRepo+"?did="+alice, "192.0.2.1")
			if want := (2 + c.more) * 64 << 10; !broken || s.Body.Len() != want {
				t.Errorf("broken %v after %d bytes, want %d", broken, s.Body.Len(), want)
			}
			for i, d := range s.deadlines {
				most := time.Minute + time.Duration(i)*250*time.Millisecond
				if left := d.Sub(begun); left < most || left > most+time.Since(begun) {
					t.Errorf("piece %d has %s, want %s", i, left, most)
				}
			}
		})
	}
}

// TestGetRepoSmallIsNeverBroken: an account that is hidden before anything was sent is refused.
func TestGetRepoSmallIsNeverBroken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	s := &scriptedWriter{ResponseRecorder: httptest.NewRecorder()}
	if w.serve(t.Context(), s, "/xrpc/"+getRepo+"?did="+alice, "192.0.2.1") || s.n.Load() != 1 || s.Code != 200 {
		t.Errorf("status %d, %d pieces", s.Code, s.n.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s = &scriptedWriter{ResponseRecorder: httptest.NewRecorder()}
	if w.serve(ctx, s, "/xrpc/"+getRepo+"?did="+alice, "192.0.2.1") || s.Code != 503 {
		t.Errorf("status %d for a client that is gone", s.Code)
	}
}

// TestGetRepoSince leaves out the records of earlier revs.
func TestGetRepoSince(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	m := storetest.Records{}
	for i := range 300 {
		m["app.test.a/"+storetest.Rev(i)] = storetest.Text(fmt.Sprint(i))
	}
	w.hold(t, alice, m)
	old := w.row(t, alice)
	base := w.car(t, getRepo, url.Values{"did": {alice}})
	fresh := storetest.Text("fresh")
	before, gone := "app.test.a/"+storetest.Rev(7), "app.test.a/"+storetest.Rev(8)
	again := m["app.test.a/"+storetest.Rev(9)] // deleted, and written again as it was
	for _, ops := range [][]store.Op{
		{{Path: []byte(gone)}, {Path: []byte("app.test.a/" + storetest.Rev(9))}},
		{{Path: []byte(before), CID: repo.HashCID(fresh), Record: fresh},
			{Path: []byte("app.test.a/" + storetest.Rev(9)), CID: repo.HashCID(again), Record: again}},
	} {
		w.commit(t, alice, m, ops...)
	}
	row := w.row(t, alice)
	diff := w.car(t, getRepo, url.Values{"did": {alice}, "since": {old.Rev}})
	if !bytes.Contains(diff, fresh) || !bytes.Contains(diff, again) || bytes.Contains(diff, m["app.test.a/"+storetest.Rev(10)]) {
		t.Error("the difference does not have exactly what was written since")
	}
	// A client that has the old blocks has the new repository.
	_, rest, _ := bytes.Cut(base, old.Commit)
	if diff := cmp.Diff(m, w.carRecords(t, append(diff, rest...), &row)); diff != "" {
		t.Error(diff)
	}
	for _, since := range []string{row.Rev, storetest.Rev(1 << 30)} {
		car := w.car(t, getRepo, url.Values{"did": {alice}, "since": {since}})
		if !bytes.HasSuffix(car, row.Commit) {
			t.Errorf("since %s: %d bytes", since, len(car))
		}
	}
}

// commit applies a commit to a repository whose records are m, which it changes.
func (w *world) commit(t testing.TB, did string, m storetest.Records, ops ...store.Op) {
	t.Helper()
	for _, op := range ops {
		if m[string(op.Path)] = op.Record; op.Record == nil {
			delete(m, string(op.Path))
		}
	}
	w.revs++
	rev := storetest.Rev(w.revs)
	w.update(t, did, func(b *store.Batch, r *store.Repo) {
		r.Rev, r.Data = rev, m.Root()
		r.Commit = storetest.Commit(did, rev, r.Data)
		if err := b.Apply(r, true, rev, ops); err != nil {
			t.Error(err)
		}
	})
}

// TestGetRepoWhileWritten: whatever is written meanwhile, a CAR has the records of its commit.
func TestGetRepoWhileWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	m := storetest.Random(rand.New(rand.NewPCG(3, 3)), 3000)
	w.hold(t, alice, m)
	paths := m.Paths()
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	for range 2 {
		g.Go(func() error {
			for ctx.Err() == nil {
				res, err := http.Get(w.public.URL + "/xrpc/" + getRepo + "?did=" + alice)
				if err != nil {
					return err
				}
				car, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil {
					return err
				}
				c, err := repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{})
				if err != nil {
					return fmt.Errorf("%.200s: %w", car, err)
				}
				block, _, err := c.Block(c.Root())
				if err != nil {
					return err
				}
				commit, err := repo.ParseCommit(block)
				if err != nil {
					return err
				}
				if err := c.Walk(commit.Data, func(repo.Leaf) error { return nil }); err != nil {
					return err
				}
				_ = c.Close()
			}
			return nil
		})
	}
	rng := rand.New(rand.NewPCG(4, 4))
	for i := range 60 {
		var ops []store.Op
		for range 20 {
			op := store.Op{Path: []byte(paths[rng.IntN(len(paths))])}
			if rng.IntN(2) == 0 {
				op.Record = storetest.Text(fmt.Sprint("new ", i))
				op.CID = repo.HashCID(op.Record)
			} else if m[string(op.Path)] == nil {
				continue
			}
			if !slices.ContainsFunc(ops, func(o store.Op) bool { return bytes.Equal(o.Path, op.Path) }) {
				ops = append(ops, op)
			}
		}
		slices.SortFunc(ops, func(a, b store.Op) int { return bytes.Compare(a.Path, b.Path) })
		w.commit(t, alice, m, ops...)
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
