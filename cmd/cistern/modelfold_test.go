package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
)

// logged is the state of a consumer of the log.
type logged struct {
	records map[string]map[string]repo.CID
	status  map[string]store.Status
	handles map[string]string
	repos   map[string]string // what repo events tell, and why
	changes int               // record events that are live

	// relisted allows creates of known records, which a store that keeps events only lists again.
	relisted bool
}

func newLogged() logged {
	return logged{map[string]map[string]repo.CID{}, map[string]store.Status{}, map[string]string{}, map[string]string{}, 0, false}
}

// fold reads the whole log. With strict, an event that does not follow from those before it is an
// error, so each change is there exactly once.
func (m *model) fold() logged {
	t := m.t
	t.Helper()
	l := newLogged()
	readWholeLog(t, m.store, l.apply)
	return l
}

func (l *logged) apply(e *store.Event) error {
	switch e.Kind {
	case store.KindAccount:
		l.status[e.DID] = e.Status
		if e.Status.Hidden() {
			delete(l.records, e.DID)
		}
		return nil
	case store.KindIdentity:
		l.handles[e.DID] = e.Handle
		return nil
	case store.KindRepo:
		told := fmt.Sprint(e.Condition, " ", e.Reason, " ", e.Status)
		if l.repos[e.DID] == told {
			return fmt.Errorf("event %d: that %s is %s is told twice", e.ID, e.DID, told)
		}
		l.repos[e.DID] = told
		return nil
	}
	path := string(e.Collection) + "/" + string(e.Rkey)
	held, known := l.records[e.DID][path]
	again := l.relisted && !e.Live && e.Action == store.Create && known
	if known == (e.Action == store.Create) && !again || e.Action == store.Update && held == e.CID {
		return fmt.Errorf("event %d (%s, live %v): action %s of %s/%s %s when it is %s", e.ID, e.Rev, e.Live, e.Action, e.DID, path, e.CID, held)
	}
	if e.Live {
		l.changes++
	}
	if e.Action == store.Delete {
		delete(l.records[e.DID], path)
		return nil
	}
	if repo.HashCID(e.Record) != e.CID {
		return fmt.Errorf("event %d: the record is not %s", e.ID, e.CID)
	}
	if l.records[e.DID] == nil {
		l.records[e.DID] = map[string]repo.CID{}
	}
	l.records[e.DID][path] = e.CID
	return nil
}

// wantRepos compares what repo events leave with the rows, as GET /repos shows them.
func (l logged) wantRepos(m *model) {
	m.t.Helper()
	for _, did := range m.net.DIDs() {
		row, err := m.store.Repo(did)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			m.t.Fatal(err)
		}
		want := map[store.State]string{store.StateSynced: "synced", store.StateDraining: "synced", store.StateGone: "gone",
			store.StateIdle: "untracked", store.StatePending: "pending", store.StateResync: "failing", 0: "untracked"}[row.State]
		kind, status := row.Retry.Kind, store.StatusActive
		switch {
		case row.Tracked == store.Untracked:
			want = "untracked"
		case row.Status.Hidden():
			want, status = "gone", row.Status
		case want == "pending" && kind != store.NoError:
			want = "failing"
		}
		if want != "failing" {
			kind = store.NoError
		}
		got, told := l.repos[did]
		if want = fmt.Sprint(want, " ", kind, " ", status); got != want && (told || row.State != 0 && row.State != store.StatePending && row.Tracked != store.Untracked) {
			m.t.Errorf("%s: the log leaves it %q, want %q: %s %+v", did, got, want, row.State, row.Retry)
		}
	}
}

// wantTruth compares the state of a consumer with the network, and with the rows.
func (l logged) wantTruth(m *model) {
	m.t.Helper()
	l.wantRepos(m)
	for _, a := range m.net.Accounts() {
		truth := a.Truth()
		if m.before[truth.DID] && truth.Status != simnet.Active {
			continue
		}
		if got := l.status[truth.DID]; got != statuses[truth.Status] {
			m.t.Errorf("%s: the log leaves it %s, want %s", truth.DID, got, truth.Status)
		}
		if h, ok := l.handles[truth.DID]; ok && truth.Status == simnet.Active && h != truth.Handle {
			m.t.Errorf("%s: the log leaves the handle %s, want %s", truth.DID, h, truth.Handle)
		}
		want := map[string]repo.CID{}
		if truth.Status == simnet.Active {
			maps.Copy(want, truth.Records)
			maps.DeleteFunc(want, func(path string, _ repo.CID) bool { _, _, ok := repo.SplitPath([]byte(path)); return !ok })
		}
		if m.consumer != nil {
			m.consumer.forgive(truth.DID, l.records[truth.DID], want)
		}
		if got := l.records[truth.DID]; !maps.Equal(got, want) {
			m.t.Errorf("%s: the log leaves %d records, want %d: %s", truth.DID, len(got), len(want), mapDiff(got, want))
		}
	}
}

func mapDiff(got, want map[string]repo.CID) string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			fmt.Fprintf(&b, " -%s %s (got %s)", path, want[path], got[path])
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			fmt.Fprintf(&b, " +%s", path)
		}
	}
	if b.Len() > 600 {
		return b.String()[:600]
	}
	return b.String()
}
