package backfill_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestHostPlaceReused: while the table of hosts is full of hosts in use, repositories of another
// host wait, and their rows state why. Once all repositories of one host are forgotten, they are
// fetched.
func TestHostPlaceReused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{
		net:   simnet.Options{Hosts: 3, Repos: 6, RecordsMedian: 3},
		store: store.Options{HostsMax: 128}, // two that are addresses
	})
	at := map[string][]string{}
	for _, did := range w.Net.DIDs() {
		name := strings.TrimPrefix(w.Net.Account(did).Host().URL(), "http://")
		at[name] = append(at[name], did)
	}
	var hosts []string
	for name := range at {
		hosts = append(hosts, name)
	}
	slices.Sort(hosts)
	first, last := hosts[0], hosts[len(hosts)-1]
	if len(hosts) != 3 {
		t.Fatalf("hosts %v", at)
	}
	for _, name := range hosts[:2] {
		w.Add(at[name]...)
		w.Settle(at[name]...)
	}
	w.Add(at[last]...)
	w.Until("the others to wait", func() bool {
		return w.Store.Counts()["resync"] == int64(len(at[last])) && w.Run.Syncing() == 0
	})
	for _, did := range at[last] {
		if r := w.Row(did); !strings.Contains(r.Retry.Error, "in use") {
			t.Errorf("%s waits since %q", did, r.Retry.Error)
		}
	}
	w.Filter(filter.Config{Excludes: at[first]})
	w.Until("the first to be forgotten", func() bool { return !slices.ContainsFunc(at[first], w.Known) })
	w.Clock.Advance(2 * time.Hour)
	w.Run.Wake()
	w.Until("the others to be fetched", func() bool {
		return !slices.ContainsFunc(at[last], func(did string) bool {
			return w.Row(did).State != store.StateSynced
		})
	})
	for i, name := range hosts {
		_, err := w.Store.HostNamed(name)
		if i == 0 && !errors.Is(err, store.ErrNotFound) || i > 0 && err != nil {
			t.Errorf("host %d: %v", i, err)
		}
	}
	for _, did := range append(at[hosts[1]], at[last]...) {
		w.Equal(did)
	}
}
