package pages_test

import (
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"

	"cistern/backfill/discover/pages"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"
)

// decode decodes a page of repos or hosts, and returns the number of its entries.
func decode(key string, text []byte) (int, error) {
	var repos pages.Page
	var hosts pages.HostPage
	if key == "repos" {
		err := json.Unmarshal(text, &repos)
		return len(repos.Repos), err
	}
	err := json.Unmarshal(text, &hosts)
	return len(hosts.Hosts), err
}

// TestHugePages: a page of nothing but commas takes no more memory than its bytes. Not
// parallel: it measures the allocations of the process.
func TestHugePages(t *testing.T) {
	for _, key := range []string{"repos", "hosts"} {
		for _, entry := range []string{"{}", "null"} {
			text := []byte(`{"` + key + `":[` + strings.Repeat(entry+",", 800_000) + entry + `]}`)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			n, err := decode(key, text)
			runtime.ReadMemStats(&after)
			if grew := after.TotalAlloc - before.TotalAlloc; err == nil || n != 0 || grew > uint64(len(text)) {
				t.Errorf("%s of %s: %d entries, error %v, and %d bytes were allocated", key, entry, n, err, grew)
			}
		}
		text := []byte(`{"cursor":"x","` + key + `":[` + strings.Repeat(`{"did":"did:web:x","head":"y","rev":"z","active":true,"status":""},`, 999) + `{}]}`)
		if n, err := decode(key, text); n != 1000 || err != nil {
			t.Errorf("%s: %d entries, error %v", key, n, err)
		}
	}
}

// TestWellFormed: a page names each account once, by its latest rev. Entries without an account are
// left out, and a rev that is none, or is of a distant future, is below every other.
func TestWellFormed(t *testing.T) {
	t.Parallel()
	rev := func(n int) string { return storetest.Rev(n << 10) } // a microsecond each
	now := repo.TIDTime(rev(8)).Add(-repo.RevSkewMax)
	got := pages.WellFormed([]pages.Entry{
		{DID: "did:web:c.test", Rev: rev(9)}, {DID: ""}, {DID: "c.test"},
		{DID: "did:web:a.test", Rev: rev(7)}, {DID: "did:web:b.test", Rev: "zzz"},
		{DID: "did:web:a.test", Rev: rev(8)},
	}, now)
	want := []pages.Entry{
		{DID: "did:web:a.test", Rev: rev(8)}, {DID: "did:web:b.test"}, {DID: "did:web:c.test"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if names := pages.Accounts(got); !slices.Equal(names, []string{"did:web:a.test", "did:web:b.test", "did:web:c.test"}) {
		t.Errorf("accounts %q", names)
	}
}

// TestHidden: an entry shows a status unless its account is available, or its servers only have
// trouble with each other.
func TestHidden(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for _, c := range []struct {
		active *bool
		text   string
		status store.Status
		hidden bool
	}{
		{nil, "takendown", 0, false}, {&yes, "takendown", 0, false}, // active counts, not the text
		{&no, "deleted", store.StatusDeleted, true}, {&no, "takendown", store.StatusTakendown, true},
		{&no, "suspended", store.StatusSuspended, true}, {&no, "deactivated", store.StatusDeactivated, true},
		{&no, "", store.StatusInactive, true}, {&no, "new in this year", store.StatusInactive, true},
		{&no, "throttled", 0, false}, {&no, "desynchronized", 0, false},
	} {
		e := pages.Entry{Active: c.active, Status: c.text}
		if status, hidden := e.Hidden(); status != c.status || hidden != c.hidden {
			t.Errorf("%q is %v, %v, want %v, %v", c.text, status, hidden, c.status, c.hidden)
		}
	}
}
