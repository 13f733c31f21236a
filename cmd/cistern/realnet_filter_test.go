//go:build realnet

// The part of the comparison in which only some accounts and collections of the reference PDSes are
// wanted, and more of them later.

package main_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const (
	signalCollection = "app.bsky.feed.post"
	secondCollection = "org.example.types"
	quietAccounts    = 10 // with a profile and nothing else
)

// TestRealnetFilter follows accounts with posts, for their posts only. An account that starts to
// post is found. A second collection is wanted later, comes with its history and without a restart,
// and is dropped again.
func TestRealnetFilter(t *testing.T) {
	hosts := startRealHosts(t)
	hosts.node(t, "seed.mjs", fmt.Sprint(realAccounts), fmt.Sprint(realRecords))
	hosts.node(t, "seed.mjs", fmt.Sprint(quietAccounts), "1")
	posts := func() realTruth { return hosts.truth(t).wanted(signalCollection, signalCollection) }
	both := func() realTruth { return hosts.truth(t).wanted(signalCollection, signalCollection, secondCollection) }
	seeded := posts()
	if len(seeded.accounts) != realAccounts-1 {
		t.Fatalf("%d accounts have posts: one is empty, and some are quiet", len(seeded.accounts))
	}
	index := newRealIndex(t, hosts)
	index.follows = true
	index.more = []string{"--mode", "filter", "--signal", signalCollection, "--collection", signalCollection}

	index.start(t)
	index.waitFor(t, map[string]int64{"synced": realAccounts - 1, "records": seeded.count()})
	index.waitFollowing(t)
	index.compareQueries(t, seeded)
	events := index.stream(t, 0, int(seeded.count()))
	compareChanges(t, events, realTruth{}.changes(seeded), seeded, false)

	// What is not wanted moves the rev and nothing else; the first post of an account makes it one to follow.
	hosts.mutate(t, "create u001 2", "update u002", "delete u003 org.example.types", "batch u004", "update u021", "create u022 1")
	live := posts()
	index.waitTruth(t, live)
	index.waitFor(t, map[string]int64{"synced": realAccounts, "records": live.count(), "buffered": 0})
	index.compareQueries(t, live)
	events = index.stream(t, 0, int(live.count()))
	compareFold(t, events, live)
	head := events[len(events)-1].ID

	index.patchFilter(t, fmt.Sprintf(`{"collections": {%q: true}}`, secondCollection))
	widened := both()
	wantChanges := live.changes(widened)
	if len(wantChanges) < realAccounts {
		t.Fatalf("the second collection has %d records: too few to show anything", len(wantChanges))
	}
	index.waitFor(t, map[string]int64{"synced": realAccounts, "records": widened.count(), "buffered": 0, "lacking": 0})
	index.waitFilter(t)
	index.compareQueries(t, widened)
	events = index.stream(t, head+1, len(wantChanges))
	compareChanges(t, events, wantChanges, widened, false)
	head = events[len(events)-1].ID

	hosts.mutate(t, "delete u005 org.example.types", "create u006 1", "deactivate u007")
	moved := both()
	index.waitTruth(t, moved)
	wantChanges = widened.changes(moved)
	events = index.stream(t, head+1, len(wantChanges))
	compareChanges(t, events, wantChanges, moved, true)
	head = events[len(events)-1].ID

	index.patchFilter(t, fmt.Sprintf(`{"collections": {%q: false}}`, secondCollection))
	narrowed := posts()
	index.waitFor(t, map[string]int64{"synced": realAccounts - 1, "gone": 1, "lacking": 0})
	index.waitFilter(t)
	index.compareQueries(t, narrowed)
	compareFold(t, index.stream(t, 0, 1), narrowed)
	index.stop(t)
	index.check(t)
}

// wanted returns the part of the truth about accounts with a record in the collection of the
// signal, and about records in some other collections.
func (w realTruth) wanted(signal string, collections ...string) realTruth {
	part := realTruth{accounts: map[string]realAccount{}, records: map[string]map[string]realRecord{}}
	for did, account := range w.accounts {
		if account.Active && !slices.Contains(account.Collections, signal) {
			continue
		}
		account.Collections = slices.DeleteFunc(slices.Clone(account.Collections), func(c string) bool { return !slices.Contains(collections, c) })
		part.accounts[did] = account
		part.records[did] = maps.Clone(w.records[did])
		maps.DeleteFunc(part.records[did], func(path string, _ realRecord) bool {
			collection, _, _ := strings.Cut(path, "/")
			return !slices.Contains(collections, collection)
		})
	}
	return part
}

// patchFilter changes the filter.
func (x *realIndex) patchFilter(t *testing.T, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "http://"+x.admin+"/filter", strings.NewReader(body))
	must(t, err)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	must(t, err)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("PATCH /filter %s: %s: %s", body, res.Status, answer)
	}
}

// waitFilter waits until every repository agrees with the filter in force.
func (x *realIndex) waitFilter(t *testing.T) {
	t.Helper()
	eventually(t, settleLimit, func() error {
		var filter struct{ Change any }
		err := getJSON("http://"+x.admin+"/filter", nil, &filter)
		if err == nil && filter.Change != nil {
			err = fmt.Errorf("the change goes on: %v", filter.Change)
		}
		return err
	})
}
