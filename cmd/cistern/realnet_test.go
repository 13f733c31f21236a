//go:build realnet

// The comparison with the real thing: the reference PDS and PLC directory of testdata/realnet, indexed by the real binary.
// What the PDSes themselves answer about their accounts is the truth that everything is compared with.

package main_test

import (
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	realAccounts = 20
	realRecords  = 60 // of an ordinary account; seed.mjs gives one ten times as many and one none
)

// TestRealnet runs a backfill from nothing, then a resync of accounts that changed while the daemon
// was down, then a resync of accounts that returned, and of one that its host no longer knows.
func TestRealnet(t *testing.T) {
	hosts := startRealHosts(t)
	hosts.node(t, "seed.mjs", fmt.Sprint(realAccounts), fmt.Sprint(realRecords))
	seeded := hosts.truth(t)
	index := newRealIndex(t, hosts)

	index.start(t)
	index.waitFor(t, map[string]int64{"repos": realAccounts, "synced": realAccounts, "gone": 0, "records": seeded.count()})
	index.compareQueries(t, seeded)
	index.compareAnswers(t, seeded)
	events := index.stream(t, 0, int(seeded.count()))
	compareChanges(t, events, realTruth{}.changes(seeded), seeded, false)
	index.stop(t)
	index.check(t)

	hosts.mutate(t,
		"create u000 1", "create u001 3", "delete u001 app.bsky.graph.follow", "update u002", "delete u003 org.example.types",
		"batch u004", "batch u009", "handle u005 renamed005.test",
		"deactivate u006", "takedown u007")
	changed := hosts.truth(t)
	wantChanges := seeded.changes(changed)
	if len(wantChanges) < 10 {
		t.Fatalf("the mutations made %d changes: too few to show anything", len(wantChanges))
	}
	head := events[len(events)-1].ID

	index.start(t)
	index.resync(t, slices.Collect(maps.Keys(seeded.accounts)))
	index.waitFor(t, map[string]int64{"synced": realAccounts - 2, "gone": 2})
	index.compareQueries(t, changed)
	index.compareHidden(t, hosts.did(t, "u006"), "deactivated")
	index.compareHidden(t, hosts.did(t, "u007"), "takendown")
	index.compareAnswers(t, changed)
	events = index.stream(t, head+1, len(wantChanges))
	compareChanges(t, events, wantChanges, changed, false)
	compareAccountEvent(t, events, hosts.did(t, "u006"), "deactivated")
	compareAccountEvent(t, events, hosts.did(t, "u007"), "takendown")
	head = max(head, events[len(events)-1].ID)
	compareFold(t, index.streamTo(t, head), changed)
	index.stop(t)
	index.check(t)

	hosts.mutate(t, "activate u006", "untakedown u007", "create u006 1")
	returned := hosts.truth(t)
	index.start(t)
	index.resync(t, []string{hosts.did(t, "u006"), hosts.did(t, "u007")})
	index.waitFor(t, map[string]int64{"synced": realAccounts, "gone": 0})
	index.compareQueries(t, returned)
	events = index.stream(t, head+1, 1)
	compareFold(t, index.streamTo(t, events[len(events)-1].ID), returned)

	// One RepoNotFound that no event of a deletion goes with hides nothing for the first hour.
	hosts.mutate(t, "deleteaccount u008")
	index.resync(t, []string{hosts.did(t, "u008")})
	index.waitFor(t, map[string]int64{"synced": realAccounts - 1, "gone": 0, "resync": 1, "error_generic": 1})
	index.compareQueries(t, returned)
	index.compareReason(t, hosts.did(t, "u008"), "RepoNotFound")
	index.stop(t)
	index.check(t)
}

// TestRealnetLive follows the PDSes themselves while accounts change. The daemon misses some of it
// while it is down, and catches up from its cursors. No repository is resynced by hand.
func TestRealnetLive(t *testing.T) {
	hosts := startRealHosts(t)
	hosts.node(t, "seed.mjs", fmt.Sprint(realAccounts), fmt.Sprint(realRecords))
	seeded := hosts.truth(t)
	index := newRealIndex(t, hosts)
	index.follows = true

	index.start(t)
	index.waitFor(t, map[string]int64{"repos": realAccounts, "synced": realAccounts, "records": seeded.count()})
	index.waitFollowing(t)
	events := index.stream(t, 0, int(seeded.count()))
	head := events[len(events)-1].ID

	hosts.mutate(t,
		"create u000 1", "create u001 3", "delete u001 app.bsky.graph.follow", "update u002", "delete u003 org.example.types",
		"batch u004", "batch u009", "handle u005 renamed005.test",
		"deactivate u006", "takedown u007", "deleteaccount u008")
	changed := hosts.truth(t)
	wantChanges := seeded.changes(changed)
	index.waitTruth(t, changed)
	index.waitFor(t, map[string]int64{"synced": realAccounts - 3, "gone": 3, "buffered": 0})
	index.compareQueries(t, changed)
	index.compareHidden(t, hosts.did(t, "u006"), "deactivated")
	index.compareHidden(t, hosts.did(t, "u007"), "takendown")
	index.compareHidden(t, hosts.did(t, "u008"), "deleted")
	events = index.stream(t, head+1, len(wantChanges))
	compareChanges(t, events, wantChanges, changed, true)
	compareAccountEvent(t, events, hosts.did(t, "u006"), "deactivated")
	compareAccountEvent(t, events, hosts.did(t, "u007"), "takendown")
	compareAccountEvent(t, events, hosts.did(t, "u008"), "deleted")
	compareIdentityEvent(t, events, hosts.did(t, "u005"), "renamed005.test")
	index.stop(t)
	index.check(t)

	hosts.mutate(t, "activate u006", "untakedown u007", "create u006 1", "create u000 2", "delete u002", "update u010", "batch u011",
		"migrate u018", "create u018 1")
	returned := hosts.truth(t)
	index.start(t)
	index.waitTruth(t, returned)
	index.waitFor(t, map[string]int64{"synced": realAccounts - 1, "gone": 1, "buffered": 0})
	index.compareQueries(t, returned)
	events = index.stream(t, 0, int(returned.count()))
	compareFold(t, events, returned)

	// Migrations there and back, within seconds, and an account whose status changes back and forth.
	back := []string{}
	for range 2 {
		for _, name := range []string{"u012", "u013", "u014", "u015"} {
			back = append(back, "migrate "+name, "create "+name+" 1")
		}
	}
	for range 3 {
		back = append(back, "deactivate u016", "activate u016")
	}
	hosts.mutate(t, append(back, "create u016 1", "migrate u017", "create u017 1")...)
	moved := hosts.truth(t)
	index.waitTruth(t, moved)
	index.waitFor(t, map[string]int64{"synced": realAccounts - 1, "gone": 1, "buffered": 0, "returning": 0})
	index.compareQueries(t, moved)
	events = index.stream(t, 0, int(moved.count()))
	compareFold(t, events, moved)
	index.stop(t)
	index.check(t)
}

// compareReason checks that the row of a repository says why it is not synced, and until when.
func (x *realIndex) compareReason(t *testing.T, did, reason string) {
	t.Helper()
	var row struct {
		Reason string
		Next   string `json:"next_look"`
	}
	must(t, getJSON("http://"+x.admin+"/repos/"+did, nil, &row))
	if !strings.Contains(row.Reason, reason) || row.Next == "" {
		t.Errorf("%s waits because of %q until %q, want %q", did, row.Reason, row.Next, reason)
	}
}

// compareQueries compares every read endpoint with the answers of the hosts, for all active
// accounts.
func (x *realIndex) compareQueries(t *testing.T, want realTruth) {
	t.Helper()
	type listed struct {
		DID, Rev, Head, Status string
		Active                 bool
	}
	repos := map[string]listed{}
	must(t, getPages(x.xrpc("com.atproto.sync.listRepos"), url.Values{"limit": {"7"}}, "repos", func(r listed) { repos[r.DID] = r }))
	for did, account := range want.accounts {
		if !account.Active {
			continue
		}
		if got, wanted := repos[did], (listed{did, account.Rev, account.Head, "", true}); got != wanted {
			t.Errorf("listRepos: got %+v, want %+v", got, wanted)
		}
		x.compareRepo(t, account, want.records[did])
	}
	for did := range repos {
		if _, ok := want.accounts[did]; !ok && repos[did].Active {
			t.Errorf("listRepos shows %s, which no host has", did)
		}
	}
}

func (x *realIndex) compareRepo(t *testing.T, want realAccount, records map[string]realRecord) {
	t.Helper()
	var latest struct{ CID, Rev string }
	must(t, getJSON(x.xrpc("com.atproto.sync.getLatestCommit"), url.Values{"did": {want.DID}}, &latest))
	if latest.CID != want.Head || latest.Rev != want.Rev {
		t.Errorf("getLatestCommit %s: got %+v, want %s at %s", want.DID, latest, want.Head, want.Rev)
	}
	var status struct {
		Active      bool
		Status, Rev string
	}
	must(t, getJSON(x.xrpc("com.atproto.sync.getRepoStatus"), url.Values{"did": {want.DID}}, &status))
	if !status.Active || status.Rev != want.Rev {
		t.Errorf("getRepoStatus %s: got %+v, want active at %s", want.DID, status, want.Rev)
	}
	var described struct {
		DID         string
		Collections []string
	}
	must(t, getJSON(x.xrpc("com.atproto.repo.describeRepo"), url.Values{"repo": {want.DID}}, &described))
	if got, wanted := sorted(described.Collections), sorted(want.Collections); described.DID != want.DID || !slices.Equal(got, wanted) {
		t.Errorf("describeRepo %s: got %s with %v, want %v", want.DID, described.DID, got, wanted)
	}
	got := map[string]realRecord{}
	for _, collection := range described.Collections {
		x.listCollection(t, want.DID, collection, got)
	}
	compareRecords(t, "listRecords "+want.DID, got, records)
	x.compareEach(t, want.DID, records)
}

// listCollection adds all records of a collection to got, and checks that they are in the order of
// the PDS: by falling record key.
func (x *realIndex) listCollection(t *testing.T, did, collection string, got map[string]realRecord) {
	t.Helper()
	type record struct {
		URI, CID string
		Value    any
	}
	last := ""
	params := url.Values{"repo": {did}, "collection": {collection}, "limit": {"25"}}
	must(t, getPages(x.xrpc("com.atproto.repo.listRecords"), params, "records", func(r record) {
		path, ok := strings.CutPrefix(r.URI, "at://"+did+"/")
		if !ok || !strings.HasPrefix(path, collection+"/") || last != "" && path >= last {
			t.Errorf("listRecords %s %s: %s after %s", did, collection, r.URI, last)
		}
		last = path
		got[path] = realRecord{r.CID, r.Value}
	}))
}

// compareEach reads every record by its key.
func (x *realIndex) compareEach(t *testing.T, did string, records map[string]realRecord) {
	t.Helper()
	got := map[string]realRecord{}
	for path := range records {
		collection, rkey, _ := strings.Cut(path, "/")
		var record struct {
			URI, CID string
			Value    any
		}
		must(t, getJSON(x.xrpc("com.atproto.repo.getRecord"), url.Values{"repo": {did}, "collection": {collection}, "rkey": {rkey}}, &record))
		if record.URI != "at://"+did+"/"+path {
			t.Errorf("getRecord %s %s: uri is %s", did, path, record.URI)
		}
		got[path] = realRecord{record.CID, record.Value}
	}
	compareRecords(t, "getRecord "+did, got, records)
}

// compareHidden checks that an account that its host no longer serves appears in no query but that
// of its status. An empty status leaves open which one it is.
func (x *realIndex) compareHidden(t *testing.T, did, status string) {
	t.Helper()
	for method, params := range map[string]url.Values{
		"com.atproto.repo.getRecord":       {"repo": {did}, "collection": {"app.bsky.actor.profile"}, "rkey": {"self"}},
		"com.atproto.repo.listRecords":     {"repo": {did}, "collection": {"app.bsky.actor.profile"}},
		"com.atproto.repo.describeRepo":    {"repo": {did}},
		"com.atproto.sync.getLatestCommit": {"did": {did}},
	} {
		var answer any
		if err := getJSON(x.xrpc(method), params, &answer); err == nil {
			t.Errorf("%s answers for %s, which is hidden: %v", method, did, answer)
		}
	}
	var got struct {
		Active bool
		Status string
	}
	err := getJSON(x.xrpc("com.atproto.sync.getRepoStatus"), url.Values{"did": {did}}, &got)
	if status == "" { // deleted: its host does not know it any more, and neither do we
		if err == nil || !strings.Contains(err.Error(), "RepoNotFound") {
			t.Errorf("getRepoStatus %s: got %+v, %v, want RepoNotFound", did, got, err)
		}
		return
	}
	if err != nil || got.Active || got.Status != status {
		t.Errorf("getRepoStatus %s: got %+v, %v, want inactive %s", did, got, err, status)
	}
}

func compareRecords(t *testing.T, what string, got, want map[string]realRecord) {
	t.Helper()
	for path, record := range want {
		switch g, ok := got[path]; {
		case !ok:
			t.Errorf("%s: %s is missing", what, path)
		case g.CID != record.CID:
			t.Errorf("%s: %s is %s, want %s", what, path, g.CID, record.CID)
		case !reflect.DeepEqual(g.Value, record.Value):
			t.Errorf("%s: %s is\n%v, want\n%v", what, path, g.Value, record.Value)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s: %s is not on the host", what, path)
		}
	}
}

// compareChanges checks that each change is exactly one event, with the record of the host, and
// that there is no other record event. In a backfill all events have the rev of the host; a live
// event may have an earlier one.
func compareChanges(t *testing.T, events []realEvent, want []realChange, truth realTruth, live bool) {
	t.Helper()
	var got []realChange
	for _, e := range events {
		if e.Type != "record" {
			continue
		}
		r := e.Record
		path := r.Collection + "/" + r.RKey
		got = append(got, realChange{r.DID, path, r.Action, r.CID})
		if now := truth.accounts[r.DID].Rev; r.Live != live || r.Rev > now || !live && r.Rev != now {
			t.Errorf("event %d: rev %s live %v, and the host is at %s", e.ID, r.Rev, r.Live, now)
		}
		if value := truth.records[r.DID][path].Value; !reflect.DeepEqual(r.Record, value) {
			t.Errorf("event %d: %s %s is\n%v, want\n%v", e.ID, r.DID, path, r.Record, value)
		}
	}
	got, want = sortedChanges(got), sortedChanges(want)
	for _, change := range want {
		if i, ok := slices.BinarySearchFunc(got, change, compareChange); !ok {
			t.Errorf("no event for %+v", change)
		} else {
			got = slices.Delete(got, i, i+1)
		}
	}
	for _, change := range got {
		t.Errorf("an event too many: %+v", change)
	}
}

func compareAccountEvent(t *testing.T, events []realEvent, did, status string) {
	t.Helper()
	for _, e := range events {
		if e.Type == "account" && e.Account.DID == did && !e.Account.Active && e.Account.Status == status {
			return
		}
	}
	t.Errorf("no account event says that %s is %s", did, status)
}

func compareIdentityEvent(t *testing.T, events []realEvent, did, handle string) {
	t.Helper()
	for _, e := range events {
		if e.Type == "identity" && e.Identity.DID == did && e.Identity.Handle == handle {
			return
		}
	}
	t.Errorf("no identity event says that %s is %s", did, handle)
}

// compareFold checks that a consumer that applies all events in turn ends with the records of all
// active accounts.
func compareFold(t *testing.T, events []realEvent, want realTruth) {
	t.Helper()
	got := map[string]map[string]realRecord{}
	for _, e := range events {
		path := e.Record.Collection + "/" + e.Record.RKey
		switch {
		case e.Type == "record" && e.Record.Action == "delete":
			delete(got[e.Record.DID], path)
		case e.Type == "record":
			put(got, e.Record.DID, path, realRecord{e.Record.CID, e.Record.Record})
		}
	}
	for did, account := range want.accounts {
		if account.Active {
			compareRecords(t, "stream of "+did, got[did], want.records[did])
			delete(got, did)
		}
	}
	for did, records := range got {
		t.Errorf("the stream has %d records of %s, which is hidden", len(records), did)
	}
}
