package simnet_test

import (
	"strings"
	"testing"
	"time"

	"cistern/ingest/simnet"
)

// A relay's own decision is told on its stream alone; what it holds back, others pass on.
func TestDecide(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 1, Repos: 2, Hosts: 1, Relays: 2, RecordsMedian: 5})
	a, relay, other := n.Accounts()[0], n.Relays()[0], n.Relays()[1]
	for _, c := range []struct {
		status simnet.Status
		want   string // the kinds of message on the relay's stream
	}{{simnet.Takendown, "account account commit"}, {simnet.Throttled, "account identity account commit"}} {
		from, there := relay.Head(), other.Head()
		relay.Decide(a, c.status)
		if got := relay.Decided(); len(got) != 1 || got[0] != a || a.Status() != simnet.Active {
			t.Errorf("%s: %d accounts are decided about, its host says %s", c.status, len(got), a.Status())
		}
		_, _ = a.Mutate(1)
		a.AnnounceIdentity()
		relay.Decide(a, simnet.Active)
		_, _ = a.Mutate(1)
		if got := kindsOf(t, relay, from); got != c.want {
			t.Errorf("%s: the relay tells %s", c.status, got)
		}
		if got := kindsOf(t, other, there); got != "commit identity commit" {
			t.Errorf("%s: another relay tells %s", c.status, got)
		}
	}
}

// A former host's word comes over the relays, from a clock that is ahead; a host that imported a repository names a rev which
// its commit does not have.
func TestFormerHost(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 1, Repos: 1, Hosts: 2, RecordsMedian: 5})
	a := n.Accounts()[0]
	home, to := a.Host(), n.Host(1)
	rev := a.Truth().Rev
	a.Migrate(to)
	latest := getJSON[struct{ CID, Rev string }](t, to.URL()+"/xrpc/com.atproto.sync.getLatestCommit?did="+a.DID(), 200)
	if truth := a.Truth(); latest.Rev <= rev || truth.Rev != rev || latest.CID != truth.Commit.String() {
		t.Errorf("the new host is at %+v, the commit is %s of %s", latest, truth.Commit, truth.Rev)
	}
	if a.FormerHost() != home {
		t.Error("it has no former host")
	}
	from, there := n.RelayHost().Head(), home.Head()
	a.FormerSays(simnet.Deleted, 4*time.Minute)
	if a.Status() != simnet.Active || kindsOf(t, n.RelayHost(), from) != "account" || kindsOf(t, home, there) != "account" {
		t.Error("the former host was not heard")
	}
	_, _ = a.Mutate(1)
	if latest := getJSON[struct{ CID, Rev string }](t, to.URL()+"/xrpc/com.atproto.sync.getLatestCommit?did="+a.DID(), 200); latest.Rev != a.Truth().Rev {
		t.Errorf("after a commit of %s the host is at %s", a.Truth().Rev, latest.Rev)
	}
}

// kindsOf lists the kinds of message that a stream has after a cursor.
func kindsOf(t *testing.T, h *simnet.Host, after int64) string {
	t.Helper()
	var kinds []string
	for _, f := range frames(t, h, after) {
		kinds = append(kinds, strings.TrimPrefix(f.kind, "#"))
	}
	return strings.Join(kinds, " ")
}
