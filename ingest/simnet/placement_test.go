package simnet_test

import (
	"runtime"
	"slices"
	"testing"

	"cistern/ingest/simnet"
)

// listedBy is what a host or relay lists.
func listedBy(t *testing.T, base string) []string {
	t.Helper()
	var dids []string
	for cursor := ""; ; {
		page := getJSON[struct {
			Cursor string
			Repos  []struct{ DID string }
		}](t, base+"/xrpc/com.atproto.sync.listRepos?limit=7&cursor="+cursor, 200)
		for _, r := range page.Repos {
			dids = append(dids, r.DID)
		}
		if cursor = page.Cursor; cursor == "" {
			return dids
		}
	}
}

// TestSkew wants half of all accounts on a few of a thousand hosts, and none without any, cheaply.
func TestSkew(t *testing.T) {
	before, goroutines := heap(), runtime.NumGoroutine()
	n := startNetwork(t, simnet.Options{Seed: 4, Hosts: 1000, Repos: 5000, Skew: 1.5, QuietEvery: 3})
	if more := runtime.NumGoroutine() - goroutines; more > 1100 {
		t.Errorf("%d goroutines", more)
	}
	t.Logf("%.1f MB, %d goroutines", float64(heap()-before)/1e6, runtime.NumGoroutine()-goroutines)
	count := map[*simnet.Host]int{}
	for _, a := range n.Accounts() {
		count[a.Host()]++
	}
	var sizes []int
	for _, h := range n.Hosts() {
		sizes = append(sizes, count[h])
	}
	slices.Sort(sizes)
	slices.Reverse(sizes)
	few := 0
	for _, size := range sizes[:6] {
		few += size
	}
	if few < 2500 || sizes[999] < 1 || sizes[700] > 2 {
		t.Errorf("six hosts have %d of 5,000, the least %d, number 700 %d", few, sizes[999], sizes[700])
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// TestQuietAccounts are known to their host, and to a relay from when they write.
func TestQuietAccounts(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 5, Hosts: 3, Repos: 30, QuietEvery: 3, RecordsMedian: 3})
	quiet := func(a *simnet.Account) bool { return a.Quiet() }
	loud := slices.DeleteFunc(slices.Clone(n.Accounts()), quiet)
	if len(loud) != 20 {
		t.Errorf("%d are not quiet", len(loud))
	}
	check := func() {
		t.Helper()
		var want, listed []string
		for _, a := range n.Accounts() {
			if !a.Quiet() {
				want = append(want, a.DID())
			}
		}
		if got := listedBy(t, n.Relay()); !slices.Equal(got, want) {
			t.Errorf("the relay lists %d, want %d", len(got), len(want))
		}
		for _, h := range n.Hosts() {
			listed = append(listed, listedBy(t, h.URL())...)
		}
		slices.Sort(listed)
		if want := slices.Sorted(slices.Values(n.DIDs())); !slices.Equal(listed, want) {
			t.Errorf("the hosts list %d, want %d", len(listed), len(want))
		}
	}
	check()
	a, b := n.Accounts()[2], n.Accounts()[5]
	status := n.Relay() + "/xrpc/com.atproto.sync.getRepoStatus?did=" + a.DID()
	getJSON[apiError](t, status, 400)
	if _, err := a.Mutate(1); err != nil {
		t.Fatal(err)
	}
	b.SetStatus(simnet.Deactivated)
	if a.Quiet() || b.Quiet() {
		t.Error("still quiet")
	}
	getJSON[map[string]any](t, status, 200)
	check()
}

// TestMovedAccountsAreListedByBoth hosts: the former one calls them deactivated.
func TestMovedAccountsAreListedByBoth(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Hosts: 2, Repos: 12, RecordsMedian: 3})
	a := n.Accounts()[0]
	for range 3 { // to and fro
		a.Migrate(n.Host(1))
		a.Migrate(n.Host(0))
	}
	a.Migrate(n.Host(1))
	for _, h := range n.Hosts() {
		got := listedBy(t, h.URL())
		want := map[*simnet.Host]int{n.Host(0): 6, n.Host(1): 7}[h]
		if len(got) != want || !slices.Contains(got, a.DID()) {
			t.Errorf("lists %d, want %d", len(got), want)
		}
	}
}
