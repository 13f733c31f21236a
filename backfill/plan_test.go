package backfill_test

import (
	"slices"
	"testing"

	"cistern/backfill"
	"cistern/filter"
	"cistern/store"
)

// TestPlan: what an attempt asks a host is decided before the first request, by the row and the
// filter.
func TestPlan(t *testing.T) {
	t.Parallel()
	compiled := func(c filter.Config) *filter.Filter {
		f, err := filter.Compile(c)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	const first, now = 1, 2 // selections
	signals := store.FilterVersion{Filter: compiled(filter.Config{Signals: []string{posts}, Collections: []string{feeds}}), Selection: now}
	full := store.FilterVersion{Filter: compiled(filter.Config{Mode: filter.ModeFull}), Selection: now}
	held := func(change func(*store.Repo)) store.Repo {
		row := store.Repo{Ordinal: 7, Rev: "3kaaaaaaaaaaa", Filter: now, Tracked: store.ByOperator, Recheck: true}
		change(&row)
		return row
	}
	found := func(change func(*store.Repo)) store.Repo {
		row := store.Repo{Tracked: store.ByNetwork}
		change(&row)
		return row
	}
	asIs := func(*store.Repo) {}
	for name, c := range map[string]struct {
		row     store.Repo
		by      store.FilterVersion
		earlier filter.Config // of the selection first
		whole   bool
		want    []string
	}{
		// The relay's decision stands, so a copy would stay hidden.
		"hidden by a relay": {row: held(func(r *store.Repo) { r.Status, r.Origin = store.StatusTakendown, store.OriginRelay }), by: full, want: []string{"status"}},
		// Only data whose deletion is confirmed is wiped.
		"not followed, deletion announced": {row: held(func(r *store.Repo) { r.Status, r.Tracked = store.StatusDeleted, store.Untracked }), by: full, want: []string{"status"}},
		// The host may show the account again.
		"hidden by its host": {row: held(func(r *store.Repo) { r.Status, r.Origin = store.StatusTakendown, store.OriginHost }), by: full, want: []string{"latest", "copy"}},

		"complete":            {row: held(asIs), by: full, want: []string{"latest", "copy"}},
		"a copy is wanted":    {row: held(func(r *store.Repo) { r.Recheck = false }), by: full, want: []string{"copy"}},
		"never completed":     {row: held(func(r *store.Repo) { r.Rev = "" }), by: full, want: []string{"copy"}},
		"torn":                {row: held(func(r *store.Repo) { r.Torn = true }), by: full, want: []string{"copy"}},
		"records are missing": {row: held(func(r *store.Repo) { r.Lacks = true }), by: full, want: []string{"copy"}},
		// The refilter pass deletes what is too much.
		"narrower filter": {row: held(func(r *store.Repo) { r.Filter = first }), by: signals, earlier: filter.Config{Collections: []string{"app.bsky.*"}}, want: []string{"latest", "copy"}},
		"wider filter":    {row: held(func(r *store.Repo) { r.Filter = first }), by: signals, earlier: filter.Config{Collections: []string{posts}}, want: []string{"copy"}},
		// Its number is deleted with its last row.
		"unknown filter": {row: held(func(r *store.Repo) { r.Filter = 9 }), by: full, want: []string{"copy"}},
		// The stored records do not show whether it has a signal: likes were not stored.
		"signal unknown": {row: held(func(r *store.Repo) { r.Filter, r.Tracked = first, store.BySignal }), by: store.FilterVersion{Filter: compiled(filter.Config{Signals: []string{follows}, Collections: []string{posts}}), Selection: now},
			earlier: filter.Config{Signals: []string{posts}, Collections: []string{posts}}, want: []string{"copy"}},

		"network no longer followed": {row: found(asIs), by: signals, want: []string{"collections", "copy"}},
		"network followed":           {row: found(asIs), by: full, want: []string{"copy"}},
		// Its signal was seen.
		"found by a signal": {row: found(func(r *store.Repo) { r.Tracked = store.BySignal }), by: signals, want: []string{"copy"}},
		// Followed without a signal.
		"added by name": {row: found(func(r *store.Repo) { r.Tracked = store.ByOperator }), by: signals, want: []string{"copy"}},
		// The copy that is stored shows its collections.
		"fetched before": {row: held(func(r *store.Repo) { r.Tracked, r.Recheck = store.ByNetwork, false }), by: signals, want: []string{"copy"}},
		// The host accepted no more queries in the attempt before.
		"no queries": {row: found(asIs), by: signals, whole: true, want: []string{"copy"}},
	} {
		filterAt := func(selection uint32) (*filter.Filter, error) {
			if selection != first {
				return nil, store.ErrNotFound
			}
			return compiled(c.earlier), nil
		}
		got := backfill.PlanOf(&c.row, c.by, filterAt, func(string) bool { return c.whole })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: asks for %v, want %v", name, got, c.want)
		}
	}
}
