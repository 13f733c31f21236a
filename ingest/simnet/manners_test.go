package simnet_test

import (
	"fmt"
	"slices"
	"testing"

	"cistern/ingest/simnet"
)

// A relay like indigo's says nothing of a gap: neither of a cursor that is too old, nor of one that is too new.
func TestIndigoRelayAnnouncesNoGap(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 2, Hosts: 1, RecordsMedian: 3, Manners: simnet.Indigo})
	a, relay := n.Accounts()[0], n.RelayHost()
	start := relay.Head()
	for range 5 {
		post(t, a, "hello")
	}
	relay.SetWindow(2)
	if f := read(t, dial(t, relay, fmt.Sprintf("?cursor=%d", start+1))); f.kind != "#commit" || f.seq != start+4 {
		t.Errorf("an old cursor begins with %s %d, want the oldest #commit, %d", f.kind, f.seq, start+4)
	}
	conn := dial(t, relay, fmt.Sprintf("?cursor=%d", start+1000))
	if err := relay.WaitConnections(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	post(t, a, "more")
	if f := read(t, conn); f.kind != "#commit" || f.seq != start+6 {
		t.Errorf("a cursor above the head begins with %s %d, want the next #commit, %d", f.kind, f.seq, start+6)
	}
}

// It lists active accounts only, whatever became of the others; the hosts list them all.
func TestIndigoRelayListsActiveAccounts(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 5, Hosts: 1, RecordsMedian: 3, Manners: simnet.Indigo})
	accounts := n.Accounts()
	accounts[0].SetStatus(simnet.Takendown)
	accounts[1].SetStatus(simnet.Deleted)
	accounts[2].SetStatus(simnet.Deactivated)
	if got, want := listedBy(t, n.Relay()), n.DIDs()[3:]; !slices.Equal(got, want) {
		t.Errorf("the relay lists %v, want %v", got, want)
	}
	if got := listedBy(t, n.Host(0).URL()); len(got) != 4 {
		t.Errorf("the host lists %v, want all but the deleted account", got)
	}
}

// A relay that lost its data counts from where it is told, and knows what it has heard of since.
func TestEmptiedRelayKnowsWhatItHeardSince(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 6, Hosts: 2, RecordsMedian: 3, Manners: simnet.Indigo})
	relay, a := n.RelayHost(), n.Accounts()[3]
	conn := dial(t, relay, "")
	if err := relay.WaitConnections(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	relay.Empty(1)
	if _, _, err := conn.ReadMessage(); err == nil {
		t.Error("the connection outlives the relay's data")
	}
	if got := listedBy(t, n.Relay()); len(got) != 0 {
		t.Errorf("an emptied relay lists %v", got)
	}
	post(t, a, "hello")
	if got := frames(t, relay, 0); len(got) != 1 || got[0].seq != 1 {
		t.Errorf("an emptied relay sends %s, want one message with seq 1", outline(n, got))
	}
	if got := listedBy(t, n.Relay()); !slices.Equal(got, []string{a.DID()}) {
		t.Errorf("the relay lists %v, want the account that it heard of since", got)
	}
	hosts := getJSON[struct{ Hosts []struct{ Hostname string } }](t, n.Relay()+"/xrpc/com.atproto.sync.listHosts", 200).Hosts
	if len(hosts) != 1 || "http://"+hosts[0].Hostname != a.Host().URL() {
		t.Errorf("the relay lists the hosts %v, want that of the account", hosts)
	}
}

// A relay with an account limit is silent about the accounts of a host past it.
func TestRelayAccountLimit(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 4, Hosts: 1, RecordsMedian: 3})
	relay := n.RelayHost()
	relay.SetAccountLimit(2)
	start := relay.Head()
	for _, a := range n.Accounts() {
		post(t, a, "hello")
	}
	if got := outline(n, frames(t, relay, start)); got != "commit0 commit1" {
		t.Errorf("the relay sends %s, want the first two accounts", got)
	}
	if got := outline(n, frames(t, n.Host(0), 0)); got != "commit0 commit1 commit2 commit3" {
		t.Errorf("the host sends %s, want all four accounts", got)
	}
	if got, want := listedBy(t, n.Relay()), n.DIDs()[:2]; !slices.Equal(got, want) {
		t.Errorf("the relay lists %v, want %v", got, want)
	}
	relay.SetAccountLimit(0)
	post(t, n.Accounts()[3], "again")
	if got := outline(n, frames(t, relay, start)); got != "commit0 commit1 commit3" {
		t.Errorf("without a limit the relay has sent %s", got)
	}
}
