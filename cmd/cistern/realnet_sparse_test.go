//go:build realnet

// The part of the comparison in which the reference PDSes send only the wanted parts of
// repositories.

package main_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestRealnetSparse makes every copy from parts: the answers of the reference PDS to sync.getRecord
// and sync.getBlocks must yield exactly the wanted records, at first, after changes, and with one
// more collection.
func TestRealnetSparse(t *testing.T) {
	hosts := startRealHosts(t)
	hosts.node(t, "seed.mjs", fmt.Sprint(realAccounts), fmt.Sprint(realRecords))
	hosts.node(t, "seed.mjs", fmt.Sprint(quietAccounts), "1")
	follows := "app.bsky.graph.follow"
	types := func() realTruth { return hosts.truth(t).wanted(signalCollection, secondCollection) }
	seeded := types()
	index := newRealIndex(t, hosts)
	index.more = []string{"--mode", "filter", "--signal", signalCollection, "--collection", secondCollection, "--strategy", "sparse"}

	index.start(t)
	index.waitFor(t, map[string]int64{"synced": realAccounts - 1, "records": seeded.count()})
	index.compareQueries(t, seeded)
	events := index.stream(t, 0, int(seeded.count()))
	compareChanges(t, events, realTruth{}.changes(seeded), seeded, false)
	head := events[len(events)-1].ID

	hosts.mutate(t, "delete u003 org.example.types", "batch u004", "create u001 2", "update u002")
	changed := types()
	dids := []string{hosts.did(t, "u001"), hosts.did(t, "u002"), hosts.did(t, "u003"), hosts.did(t, "u004")}
	wantChanges := seeded.changes(changed)
	index.resync(t, dids)
	index.waitFor(t, map[string]int64{"synced": realAccounts - 1, "records": changed.count()})
	index.compareQueries(t, changed)
	events = index.stream(t, head+1, len(wantChanges))
	compareChanges(t, events, wantChanges, changed, false)
	head = events[len(events)-1].ID

	index.patchFilter(t, fmt.Sprintf(`{"collections": {%q: true}}`, follows))
	widened := hosts.truth(t).wanted(signalCollection, secondCollection, follows)
	wantChanges = changed.changes(widened)
	index.waitFor(t, map[string]int64{"synced": realAccounts - 1, "records": widened.count(), "lacking": 0})
	index.waitFilter(t)
	index.compareQueries(t, widened)
	events = index.stream(t, head+1, len(wantChanges))
	compareChanges(t, events, wantChanges, widened, false)

	fetches := index.metricLines(t, "cistern_backfill_fetches_total")
	t.Log(fetches)
	if sparse := fetches[`{strategy="sparse"}`]; sparse == "0" || sparse == "" || fetches[`{strategy="fallback"}`] != "0" || fetches[`{strategy="full"}`] != "0" {
		t.Errorf("not all copies were made of parts: %v", fetches)
	}
	index.stop(t)
	index.check(t)
}

// metricLines returns the values of a metric by its labels.
func (x *realIndex) metricLines(t *testing.T, name string) map[string]string {
	t.Helper()
	res, err := http.Get("http://" + x.admin + "/metrics")
	must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if labels, ok := strings.CutPrefix(line, name); ok {
			key, value, _ := strings.Cut(strings.TrimSpace(labels), " ")
			values[key] = value
		}
	}
	return values
}
