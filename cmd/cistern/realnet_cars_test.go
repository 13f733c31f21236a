//go:build realnet

// CARs of Cistern, verified by the libraries that the protocol's clients use.

package main_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"
)

const realOperations = 500 // of the random history

// active returns the DIDs of the accounts that their hosts serve, sorted.
func (w realTruth) active() (dids []string) {
	for _, did := range slices.Sorted(maps.Keys(w.accounts)) {
		if w.accounts[did].Active {
			dids = append(dids, did)
		}
	}
	return dids
}

// compareCARs has cars.mjs verify repositories and proofs of all active accounts.
func (x *realIndex) compareCARs(t *testing.T, want realTruth) {
	t.Helper()
	dids := want.active()
	out := x.hosts.node(t, append([]string{"cars.mjs", "http://" + x.public}, dids...)...)
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if len(lines) != len(dids) {
		t.Fatalf("cars.mjs verified %d accounts of %d", len(lines), len(dids))
	}
	proofs, refused := 0, 0
	for i, line := range lines {
		var got struct {
			DID, Root                string
			Records, Proofs, Refused int
		}
		must(t, json.Unmarshal(line, &got))
		did := dids[i]
		head, records := want.accounts[did].Head, len(want.records[did])
		if got.DID != did || got.Root != head || got.Records != records {
			t.Errorf("the CAR of %s: %s, want root %s with %d records", did, line, head, records)
		}
		if got.Proofs == 0 || got.Refused <= got.Proofs {
			t.Errorf("the CAR of %s: %s: nothing was proven or refused", did, line)
		}
		proofs, refused = proofs+got.Proofs, refused+got.Refused
	}
	t.Logf("verified %d repositories with %d records and %d proofs; %d wrong keys and CARs refused",
		len(dids), want.count(), proofs, refused)
	t.Logf("%d blocks are in streamable order", x.checkOrders(t, dids))
}

// TestRealnetHistory follows the PDSes through a random history, and compares all answers and CARs
// with theirs before it and after it.
func TestRealnetHistory(t *testing.T) {
	seed := cmp.Or(os.Getenv("CISTERNTEST_SEED"), fmt.Sprint(time.Now().UnixNano()))
	t.Logf("CISTERNTEST_SEED=%s repeats these operations", seed)
	hosts := startRealHosts(t)
	hosts.node(t, "seed.mjs", fmt.Sprint(realAccounts), fmt.Sprint(realRecords))
	seeded := hosts.truth(t)
	index := newRealIndex(t, hosts)
	index.follows = true
	index.start(t)
	index.waitFor(t, map[string]int64{"synced": realAccounts, "records": seeded.count()})
	index.waitFollowing(t)
	index.compareCARs(t, seeded)

	args := []string{"history.mjs", seed, fmt.Sprint(realOperations)}
	t.Logf("operations: %s", hosts.node(t, append(args, seeded.active()...)...))
	changed := hosts.truth(t)
	if n := len(seeded.changes(changed)); n < realOperations {
		t.Fatalf("the history made %d changes: too few to show anything", n)
	}
	index.waitTruth(t, changed)
	index.waitFor(t, map[string]int64{
		"synced": realAccounts, "records": changed.count(), "buffered": 0,
	})
	index.compareQueries(t, changed)
	index.compareAnswers(t, changed)
	index.compareCARs(t, changed)
	index.stop(t)
	index.check(t)
}
