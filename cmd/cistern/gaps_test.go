package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store/storetest"
)

// TestGaps plays seeded histories of commits against relays that forget most of what they sent,
// restart their numbering and announce none of it. Unlike in TestModel no account announces its
// state at the end: a gap is found because the last message of each relay does not follow the
// cursor, or was found before.
//
// CISTERNTEST_SEEDS is the number of seeds, CISTERNTEST_SEED the first of them.
func TestGaps(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	first := testNumber(t, "CISTERNTEST_SEED", 1)
	for seed := first; seed < first+testNumber(t, "CISTERNTEST_SEEDS", storetest.Seeds(30)); seed++ {
		t.Run(fmt.Sprintf("CISTERNTEST_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 9))
			m := &model{t: t, seed: seed, rng: rng, before: map[string]bool{}, plan: plan{relays: 1 + rng.IntN(2), steps: 20 + rng.IntN(40)}}
			m.playGaps()
		})
	}
}

func (m *model) playGaps() {
	m.net = startNetwork(m.t, simnet.Options{Seed: m.seed, Hosts: 2, Repos: 3 + m.rng.IntN(6), Relays: 2, RecordsMedian: 1 + m.rng.IntN(12),
		RecordsMax: 60, Manners: simnet.Indigo})
	history := m.net.History(m.seed, simnet.Weights{Commit: 60, Empty: 4, Burst: 8, Sync: 2})
	m.open()
	m.connected()
	for _, a := range m.net.Accounts() { // so that every source has a cursor
		a.AnnounceIdentity()
	}
	m.begun()
	for range m.plan.steps {
		history.Step()
		if m.rng.IntN(3) == 0 {
			time.Sleep(time.Duration(m.rng.IntN(3000)) * time.Microsecond)
		}
		relay := m.streams()[m.rng.IntN(len(m.streams()))]
		switch m.rng.IntN(12) {
		case 0:
			relay.SetWindow(1 + m.rng.IntN(8))
			relay.DropConnections()
			history.Run(m.rng.IntN(8))
		case 1:
			relay.Recount(1 + 1000*m.rng.Int64N(2_000_000)) // below or above all that was
			history.Run(m.rng.IntN(8))
		case 2:
			m.stop()
			history.Run(m.rng.IntN(8))
			m.start()
		}
	}
	m.connected()
	if _, err := m.net.Accounts()[0].Commit(); err != nil {
		m.t.Fatal(err)
	}
	m.settle()
	m.stop()
	m.fold().wantTruth(m)
}
