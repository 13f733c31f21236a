package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"cistern/ingest/simnet"
)

// TestDaemonGap stops a daemon for longer than its relay remembers, whether or not the relay
// announces the gap. Listings of the relay and of the hosts show what the relay no longer sends:
// accounts that wrote, and accounts that are no longer active, which the listing of the relay
// leaves out. No later event names these accounts.
func TestDaemonGap(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		manners simnet.Manners
		lose    func(h *simnet.Host) // how events are lost while the daemon is stopped
	}{
		{"silent", simnet.Indigo, func(h *simnet.Host) { h.SetWindow(2) }},
		{"emptied relay", simnet.Indigo, func(h *simnet.Host) { h.Empty(1) }},
		{"outdated cursor", simnet.Polite, func(h *simnet.Host) { h.SetWindow(2) }},
		{"future cursor", simnet.Polite, func(h *simnet.Host) {
			h.InjectStream(simnet.StreamFault{Kind: simnet.StreamError, Error: "FutureCursor", Count: 1})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := startNetwork(t, simnet.Options{Seed: 23, Repos: 20, Hosts: 2, RecordsMedian: 8, Manners: c.manners})
			x := newTestIndex(t)
			args := x.args(n, "--relay", n.Relay())
			stop := x.start(t, args)
			x.track(t, n.Accounts()...)
			x.settle(t, map[string]int64{"synced": 20})
			x.prime(t, n, n.RelayHost())
			stop()
			accounts := n.Accounts()
			for i := range 40 {
				if _, err := accounts[i%10].Mutate(2); err != nil {
					t.Fatal(err)
				}
			}
			accounts[11].SetStatus(simnet.Deactivated)
			accounts[12].SetStatus(simnet.Takendown)
			deleted := accounts[13]
			deleted.SetStatus(simnet.Deleted)
			last := accounts[19] // whose events are kept
			for range 3 {
				if _, err := last.Mutate(1); err != nil {
					t.Fatal(err)
				}
			}
			c.lose(n.RelayHost())
			fetches := make(map[*simnet.Account]int)
			for _, a := range accounts {
				fetches[a] = len(a.Host().Log().Fetches[a.DID()])
			}
			stop = x.start(t, args)
			x.follow(t, n.RelayHost())
			// A relay that lost its data and sends nothing looks like an idle one: its first message, of an account that
			// missed nothing else, shows the gap.
			if _, err := last.Mutate(1); err != nil {
				t.Fatal(err)
			}
			x.awaitRevs(t, slices.Concat(accounts[:13], accounts[14:]))
			x.await(t, "the deletion to be found", func() error {
				var row struct{ State, Status string }
				err := x.call(t.Context(), "GET", "/repos/"+deleted.DID(), nil, func(b []byte) error { return json.Unmarshal(b, &row) })
				if err == nil && (row.State == "synced" || row.State == "pending") {
					err = fmt.Errorf("%+v", row)
				}
				return err
			})
			for i, a := range accounts {
				if got := len(a.Host().Log().Fetches[a.DID()]) - fetches[a]; got > 0 && i > 13 && i < 19 {
					t.Errorf("account %d has not changed, and was fetched %d times", i, got)
				}
			}
			// From here on it follows as before.
			if _, err := accounts[0].Put("com.example.thing/after", map[string]any{"$type": "com.example.thing"}); err != nil {
				t.Fatal(err)
			}
			x.awaitRevs(t, accounts[:1])
			stop()
		})
	}
}

// TestDaemonFollowsAddedRepos checks that an account added by name is followed whatever it writes,
// while signals select the others.
func TestDaemonFollowsAddedRepos(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 24, Repos: 4, Hosts: 1, RecordsMedian: 8})
	x := newTestIndex(t)
	stop := x.start(t, x.args(n, "--relay", n.Relay(), "--signal", "com.example.none"))
	told := n.Accounts()[0]
	x.follow(t, n.RelayHost())
	x.track(t, told)
	x.settle(t, map[string]int64{"repos": 1, "synced": 1, "records": records([]*simnet.Account{told})})
	for i := range 5 {
		if _, err := told.Mutate(1 + i); err != nil {
			t.Fatal(err)
		}
	}
	x.awaitRevs(t, []*simnet.Account{told})
	x.settle(t, map[string]int64{"repos": 1, "synced": 1, "records": records([]*simnet.Account{told})})
	// A new fetch takes nothing away either.
	if err := x.call(t.Context(), "POST", "/repos/resync", []string{told.DID()}, nil); err != nil {
		t.Fatal(err)
	}
	x.settle(t, map[string]int64{"repos": 1, "synced": 1, "pending": 0, "records": records([]*simnet.Account{told})})
	stop()
	x.wantStore(t, []*simnet.Account{told})
}
