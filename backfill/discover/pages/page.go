package pages

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"cistern/ingest/repo"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Page is one answer of listRepos or listReposByCollection.
type Page struct {
	Cursor string         `json:"cursor"`
	Repos  entries[Entry] `json:"repos"`
}

// HostPage is one answer of listHosts.
type HostPage struct {
	Cursor string             `json:"cursor"`
	Hosts  entries[HostEntry] `json:"hosts"`
}

// entries are the entries of a page. An entry may take two bytes of an answer and twenty times as
// much memory, so the entries are counted first.
type entries[T any] []T

// UnmarshalJSON reads an array.
func (l *entries[T]) UnmarshalJSON(text []byte) error {
	if n := bytes.Count(text, []byte{','}); n > commasMax {
		return fmt.Errorf("list with %d commas", n)
	}
	return json.Unmarshal(text, (*[]T)(l))
}

// Entry is the entry of a repository in a page.
type Entry struct {
	DID    string `json:"did"`
	Rev    string `json:"rev"`
	Active *bool  `json:"active"`
	Status string `json:"status"`
}

// IsActive reports whether the entry shows its account as available.
func (e Entry) IsActive() bool { return e.Active == nil || *e.Active }

// Hidden returns the status of an unavailable account. It ignores a status that only reports
// trouble between two hosts.
func (e Entry) Hidden() (s store.Status, ok bool) {
	if e.IsActive() || e.Status == "throttled" || e.Status == "desynchronized" {
		return 0, false
	}
	switch e.Status {
	case "deleted":
		return store.StatusDeleted, true
	case "takendown":
		return store.StatusTakendown, true
	case "suspended":
		return store.StatusSuspended, true
	case "deactivated":
		return store.StatusDeactivated, true
	}
	return store.StatusInactive, true
}

// HostEntry is the entry of a host in a page.
type HostEntry struct {
	Hostname string `json:"hostname"`
	Status   string `json:"status"`
}

// WellFormed returns the entries that name an account, each account once, in order of DID. It
// changes the argument.
func WellFormed(entries []Entry, now time.Time) []Entry {
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.DID, b.DID), -cmp.Compare(a.Rev, b.Rev))
	})
	entries = slices.CompactFunc(entries, func(a, b Entry) bool { return a.DID == b.DID })
	left := entries[:0]
	for _, e := range entries {
		if _, err := syntax.ParseDID(e.DID); err != nil {
			continue
		}
		_, err := repo.ParseTID(e.Rev)
		if err != nil || repo.TIDTime(e.Rev).After(now.Add(repo.RevSkewMax)) {
			e.Rev = "" // lower than any rev
		}
		left = append(left, e)
	}
	return left
}

// Accounts returns the DIDs of entries.
func Accounts(entries []Entry) []string {
	dids := make([]string, len(entries))
	for i, e := range entries {
		dids[i] = e.DID
	}
	return dids
}
