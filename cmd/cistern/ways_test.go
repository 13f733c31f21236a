package main

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// outcome is the final state of one active account.
type outcome struct {
	Rev, Handle string
	Data        repo.CID
	Held        map[string]repo.CID // in the store, hidden paths too
	Told        map[string]repo.CID // by the log, folded
}

// TestModelWays checks that three ways end alike: a network that is copied in the middle of its
// history and then followed, one that is followed from the start, and one that is followed over two
// relays.
func TestModelWays(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	first := testNumber(t, "CISTERNTEST_SEED", 1)
	for seed := first; seed < first+testNumber(t, "CISTERNTEST_SEEDS", storetest.Seeds(20)); seed++ {
		t.Run(fmt.Sprintf("CISTERNTEST_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			live := follow(t, seed, plan{relays: 1})
			for name, p := range map[string]plan{"backfill, then live": {relays: 1, late: true}, "two relays": {relays: 2}} {
				other := follow(t, seed, p)
				if len(live) == 0 || len(other) == 0 {
					t.Fatal("no account is active in the end")
				}
				if diff := cmp.Diff(live, other); diff != "" {
					t.Errorf("%s is not as live only:\n%.2000s", name, diff)
				}
			}
		})
	}
}

// follow plays the history of the seed.
func follow(t *testing.T, seed uint64, p plan) map[string]outcome {
	m := &model{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), plan: p, before: map[string]bool{}}
	m.net = startNetwork(t, simnet.Options{Seed: seed, Clutter: true, Hosts: 2, Repos: 5, Relays: 2, Manners: simnet.Indigo, RecordsMedian: 5, RecordsMax: 40, OddKeys: 1})
	history := m.net.History(seed, simnet.Weights{})
	begin := func() {
		m.open()
		m.connected()
	}
	if !p.late {
		begin()
	}
	history.Run(40)
	m.undecide() // a daemon that starts now cannot learn of it
	if p.late {
		for _, a := range m.net.Accounts() {
			m.before[a.DID()] = a.Status() != simnet.Active
		}
		begin()
	}
	for _, a := range m.net.Accounts() {
		a.AnnounceIdentity() // at the same place in every way: it moves the clock of revs
	}
	history.Run(40)
	m.undecide()
	m.settle()
	m.stop()
	told := m.fold()
	told.wantTruth(m)
	out := map[string]outcome{}
	for _, a := range m.net.Accounts() {
		if a.Status() != simnet.Active {
			continue
		}
		row, err := m.store.Repo(a.DID())
		if err != nil {
			t.Fatal(err)
		}
		rows, err := m.store.Rows(row.Ordinal)
		if err != nil {
			t.Fatal(err)
		}
		o := outcome{Rev: row.Rev, Handle: row.Handle, Data: row.Data, Held: map[string]repo.CID{}, Told: told.records[a.DID()]}
		for rows.Next() {
			o.Held[string(rows.Row().Path)] = rows.Row().CID
		}
		if err := rows.Close(); err != nil {
			t.Fatal(err)
		}
		if len(o.Told) == 0 {
			o.Told = nil
		}
		out[a.DID()] = o
	}
	return out
}
