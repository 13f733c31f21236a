package backfill_test

import (
	"testing"
	"time"

	"cistern/backfill"
	"cistern/store"
)

// TestDecideMissing: answers that a repository is not found count as failures, hide its account or
// wipe its data, by the number of answers, the time that they span, and what is known of the
// account (invariant 14).
func TestDecideMissing(t *testing.T) {
	t.Parallel()
	active, deleted, notFound, takendown := store.StatusActive, store.StatusDeleted, store.StatusNotFound, store.StatusTakendown
	relay, host, directory := store.OriginRelay, store.OriginHost, store.OriginDirectory
	failure := backfill.Decision{}
	hides := func(s store.Status, o store.Origin) backfill.Decision {
		return backfill.Decision{Hidden: true, Status: s, Origin: o}
	}
	wipes := func(o store.Origin) backfill.Decision {
		return backfill.Decision{Hidden: true, Wiped: true, Status: deleted, Origin: o}
	}
	const minute, hour, days = time.Minute, time.Hour, 72 * time.Hour
	for name, c := range map[string]struct {
		held    bool
		status  store.Status
		origin  store.Origin
		newer   bool // a commit newer than the copy was seen
		missing uint32
		absent  bool
		age     time.Duration
		want    backfill.Decision
	}{
		// No data is at stake.
		"no data, second answer": {status: active, missing: 2, age: days, want: failure},
		"no data, third answer":  {status: active, missing: 3, age: minute, want: hides(notFound, host)},
		"no data, no document":   {status: active, missing: 3, age: minute, absent: true, want: hides(notFound, directory)},
		"no data, for long":      {status: active, missing: 9, age: days, want: hides(notFound, host)},

		// A host that restarts may report the same for a moment.
		"data, third answer at once": {held: true, status: active, missing: 3, age: hour - 1, want: failure},
		"data, two answers for long": {held: true, status: active, missing: 2, age: days, want: failure},
		"data, an hour":              {held: true, status: active, missing: 3, age: hour, want: hides(notFound, host)},
		"data, just before the end":  {held: true, status: active, missing: 9, age: days - 1, want: hides(notFound, host)},
		"data, for long":             {held: true, status: active, missing: 3, age: days, want: wipes(host)},
		"data, no document for long": {held: true, status: active, missing: 3, age: days, absent: true, want: wipes(directory)},

		// The first answer confirms a deletion that was announced.
		"deletion announced":             {held: true, status: deleted, origin: relay, missing: 1, want: wipes(host)},
		"deletion announced, tombstone":  {held: true, status: deleted, origin: relay, missing: 1, absent: true, want: wipes(directory)},
		"deletion contradicted":          {held: true, status: deleted, origin: relay, newer: true, missing: 2, age: days, want: failure},
		"deletion contradicted, thrice":  {held: true, status: deleted, origin: relay, newer: true, missing: 3, want: wipes(host)},
		"deleted and wiped before":       {status: deleted, origin: host, missing: 9, age: days, want: hides(deleted, host)},
		"hidden, first answers":          {held: true, status: takendown, origin: host, missing: 2, age: days, want: hides(takendown, host)},
		"hidden, three answers at once":  {held: true, status: takendown, origin: host, missing: 3, age: minute, want: hides(takendown, host)},
		"hidden, an hour":                {held: true, status: takendown, origin: host, missing: 3, age: hour, want: hides(notFound, host)},
		"hidden and contradicted":        {held: true, status: takendown, origin: host, newer: true, missing: 2, age: days, want: failure},
		"hidden by a relay":              {held: true, status: takendown, origin: relay, missing: 3, age: hour, want: hides(takendown, relay)},
		"hidden by a relay, no document": {held: true, status: takendown, origin: relay, missing: 3, age: hour, absent: true, want: hides(takendown, relay)},
		// The host confirmed for days that nothing is left of it. The relay's decision stands.
		"hidden by a relay, for long": {
			held: true, status: takendown, origin: relay, missing: 3, age: days,
			want: backfill.Decision{Hidden: true, Wiped: true, Status: takendown, Origin: relay},
		},
	} {
		row := &store.Repo{Status: c.status, Origin: c.origin, Missing: c.missing, Rev: "3kaaaaaaaaaaa"}
		if c.held {
			row.Ordinal = 7
		}
		if c.newer {
			row.SeenRev = "3kaaaaaaaaaab"
		}
		if got := backfill.DecideMissing(row, c.absent, c.age); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
