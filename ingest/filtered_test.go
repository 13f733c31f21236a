package ingest_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/google/go-cmp/cmp"
)

// TestFiltered: commits that touch wanted and unwanted records alike leave exactly what the filter
// of the row wants, and tell of that only, however the filter in force is changed meanwhile:
// bringing rows to it is not the business of commits. All are proven, for what the filter leaves
// out is stated by the host.
func TestFiltered(t *testing.T) {
	t.Parallel()
	for _, stores := range []string{filter.StoreWanted, filter.StoreAll} {
		t.Run(stores, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a, r := w.net.Accounts()[0], rand.New(rand.NewPCG(3, 4))
			collections := []string{"app.test.want", "app.test.wanted", "app.test.wanteds.x", "app.test.x"}
			filters := []filter.Config{
				{Store: stores, Collections: []string{"app.test.wanted"}},
				{Store: stores, Collections: []string{"app.test.x"}},
				{Collections: []string{"app.test.*"}, Store: filter.StoreAll},
				{},
			}
			if _, err := w.store.SetFilter(filters[0]); err != nil {
				t.Fatal(err)
			}
			w.write(a, r, collections, 20)
			w.hold(a)
			w.skip()
			shown := w.wanted(a)
			var told []string
			for i := range 60 {
				if i%7 == 6 {
					if _, err := w.store.SetFilter(filters[1+i%3]); err != nil {
						t.Fatal(err)
					}
				}
				w.write(a, r, collections, 1+r.IntN(8))
				w.pass()
				row, now := w.row(a), w.wanted(a)
				if row.State != store.StateSynced || row.Rev != a.Truth().Rev || row.Verified != store.VerifiedFull || row.Filter != 1 || row.Sweep || row.Lacks {
					t.Fatalf("commit %d: row %+v", i, row)
				}
				want := now
				if stores == filter.StoreAll {
					want = a.Truth().Records
				}
				if diff := cmp.Diff(want, w.held(row)); diff != "" {
					t.Fatalf("commit %d: held (-want +got):\n%s", i, diff)
				}
				if int(row.Records) != len(now) || int(row.Shelved) != len(want)-len(now) {
					t.Errorf("commit %d: %d records and %d shelved, want %d of %d", i, row.Records, row.Shelved, len(now), len(want))
				}
				told = append(told, changes(shown, now)...)
				shown = now
			}
			w.until("the log is durable", func() bool { lines, _ := w.log(a); return len(lines) >= len(told) })
			lines, _ := w.log(a)
			slices.Sort(lines)
			slices.Sort(told)
			if diff := cmp.Diff(told, lines); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

// write makes one commit of random writes.
func (w *world) write(a *simnet.Account, r *rand.Rand, collections []string, n int) {
	w.t.Helper()
	writes := map[string]simnet.Write{}
	for range n {
		path := fmt.Sprintf("%s/%d", collections[r.IntN(len(collections))], r.IntN(12))
		writes[path] = simnet.Write{Path: path, Record: simnet.EncodeRecord(simnet.Post(fmt.Sprint(r.IntN(1000))))}
		if a.Record(path) != nil && r.IntN(2) == 0 {
			writes[path] = simnet.Write{Path: path}
		}
	}
	var all []simnet.Write
	for _, path := range slices.Sorted(maps.Keys(writes)) {
		all = append(all, writes[path])
	}
	if _, err := a.Commit(all...); err != nil {
		w.t.Fatal(err)
	}
}

// wanted are the records of app.test.wanted.
func (w *world) wanted(a *simnet.Account) map[string]repo.CID {
	m := map[string]repo.CID{}
	for path, id := range a.Truth().Records {
		if strings.HasPrefix(path, "app.test.wanted/") {
			m[path] = id
		}
	}
	return m
}

// changes returns the events that lead from some records to others.
func changes(from, to map[string]repo.CID) (lines []string) {
	for path, id := range to {
		if old, there := from[path]; !there {
			lines = append(lines, "create "+path)
		} else if old != id {
			lines = append(lines, "update "+path)
		}
	}
	for path := range from {
		if _, there := to[path]; !there {
			lines = append(lines, "delete "+path)
		}
	}
	return lines
}
