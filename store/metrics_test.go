package store_test

import (
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/prometheus/client_golang/prometheus"
)

// TestGauges: the gauges for operators have their documented names.
func TestGauges(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := storetest.Open(t, store.Options{Registerer: reg})
	b := s.NewBatch()
	b.ForgeRepo(&store.Repo{DID: "did:plc:behind", State: store.StateResync, Tracked: store.ByOperator, SeenRev: "3b"})
	b.ForgeRepo(&store.Repo{DID: "did:plc:whole", State: store.StateResync, Tracked: store.ByOperator})
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			got[f.GetName()] += m.GetGauge().GetValue()
			for _, l := range m.Label {
				got[f.GetName()+" "+l.GetValue()] += m.GetGauge().GetValue()
			}
		}
	}
	for name, want := range map[string]float64{"cistern_repos_behind": 1, "cistern_repos_lacking": 0,
		"cistern_repos": 2, "cistern_repos resync": 2, "cistern_repos synced": 0} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
}
