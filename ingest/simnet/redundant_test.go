package simnet_test

import (
	"testing"

	"cistern/ingest/simnet"
)

// TestMutateRedundantly wants every form of a redundant commit, each true to the tree before and after it.
func TestMutateRedundantly(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 2, Repos: 1, Hosts: 1, RecordsMedian: 20})
	a := n.Accounts()[0]
	for range 100 {
		if _, err := a.MutateRedundantly(); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	for _, f := range frames(t, n.RelayHost(), 0) {
		verifyCommit(t, f.commit, a.Truth().Key)
		net := netCommit(f.commit)
		if _, blocks := readCommit(t, f.commit.Blocks); len(net.Ops) == 0 && blocks <= 2 {
			seen["nothing changes, no nodes"]++
		}
		paths := map[string]string{}
		for _, op := range f.commit.Ops {
			switch before := paths[op.Path]; {
			case before != "":
				seen[before+" and "+op.Action]++
			case op.Cid != nil && op.Prev != nil && *op.Cid == *op.Prev:
				seen["no-op update"]++
			case op.Action == "delete" && op.Prev == nil:
				seen["delete of nothing"]++
			}
			paths[op.Path] = op.Action
		}
	}
	for _, form := range []string{
		"nothing changes, no nodes", "no-op update", "delete of nothing", "create and delete", "delete and create", "update and update",
	} {
		if seen[form] == 0 {
			t.Errorf("no %s in %v", form, seen)
		}
	}
}
