package repo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	indigorepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"cistern/ingest/repo"
)

// indigoCIDOrNil is nil for the zero CID.
func indigoCIDOrNil(t *testing.T, c repo.CID) *cid.Cid {
	if !c.Defined() {
		return nil
	}
	out := indigoCID(t, c)
	return &out
}

// indigoSlice applies a change with indigo, in the order that its operations have, and returns those of the
// nodes of the tree after it that indigo puts into a commit message. Not ok if indigo makes another tree.
func indigoSlice(t *testing.T, c *change) (nodes []block, ok bool) {
	t.Helper()
	before := map[string]cid.Cid{}
	for k, v := range c.before {
		before[k] = indigoCID(t, v)
	}
	tree, err := mst.LoadTreeFromMap(before)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.RootCID(); err != nil { // from here on only what changes is dirty
		t.Fatal(err)
	}
	for _, op := range c.ops {
		if _, err := indigorepo.ApplyOp(tree, string(op.Path), indigoCIDOrNil(t, op.CID)); err != nil {
			t.Fatal(err)
		}
	}
	var dirty []*mst.Node
	var collect func(n *mst.Node)
	collect = func(n *mst.Node) {
		if n.Dirty {
			dirty = append(dirty, n)
		}
		for _, e := range n.Entries {
			if e.Child != nil {
				collect(e.Child)
			}
		}
	}
	collect(tree.Root)
	root, err := tree.RootCID()
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]bool{}
	for _, n := range dirty {
		sent[n.CID.String()] = true
	}
	data, nodes := c.after.tree()
	return slices.DeleteFunc(nodes, func(b block) bool { return !sent[b.cid.String()] }), root.String() == data.String()
}

// indigoInverts does what we are to do, with indigo.
func indigoInverts(t *testing.T, data repo.CID, nodes []block, ops []repo.SliceOp) (root string, err error) {
	t.Helper()
	commit := newBlock(encodeCommit(testDID, testRev, data, bytes.Repeat([]byte{1}, 64)))
	car := encodeCAR(commit.cid, append(slices.Clone(nodes), commit))
	_, r, err := indigorepo.LoadRepoFromCAR(context.Background(), bytes.NewReader(car))
	if err != nil {
		return "", err
	}
	for _, op := range slices.Backward(ops) {
		o := indigorepo.Operation{Path: string(op.Path), Value: indigoCIDOrNil(t, op.CID), Prev: indigoCIDOrNil(t, op.Prev)}
		if err := indigorepo.InvertOp(&r.MST, &o); err != nil {
			return "", err
		}
	}
	c, err := r.MST.RootCID()
	if err != nil {
		return "", err
	}
	return c.String(), nil
}

// TestInvertIndigo undoes commits of indigo from the messages of indigo. indigo itself, whose trees
// are wrong now and then when keys of high layers come and go, does so in most cases.
func TestInvertIndigo(t *testing.T) {
	t.Parallel()
	var s repo.Slice
	both, ours, wrong := 0, 0, 0
	for seed := range seeds(t) / 4 {
		m := newKeyMaker(seed)
		c := m.change(sizes(seed))
		nodes, ok := indigoSlice(t, c)
		if !ok {
			wrong++
			continue
		}
		want, _ := c.before.tree()
		data, _ := c.after.tree()
		ops := slices.Clone(c.ops)
		for range 2 {
			theirs, theirErr := indigoInverts(t, data, nodes, ops)
			readSlice(t, &s, nodes)
			got, err := s.Invert(data, ops)
			switch {
			case err == nil && got == want && theirErr == nil && theirs == want.String():
				both++
			case err == nil && got == want:
				ours++
			case len(nodes) == 0 && errors.Is(err, repo.ErrProof):
			default:
				t.Errorf("seed %d: %d ops on %d: root %s, want %s: %v; indigo %s: %v", seed, len(ops), len(c.before), got, want, err, theirs, theirErr)
			}
			m.Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
		}
	}
	t.Logf("%d by both, %d by us alone, %d trees of indigo wrong", both, ours, wrong)
	if both == 0 {
		t.Fatal("none by both")
	}
}

// TestInvertReal has commits as hosts sent them. Those of the second kind are from before sync v1.1.
func TestInvertReal(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		prev string
		err  error
	}{
		"commit-trim.json":   {prev: "bafyreicfeeojgjj7gtgl6go25tk5jmcuoytjp5hhulbdd7gwzk7gtqw3ka"},
		"commit-legacy.json": {err: repo.ErrProof},
	} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var msg comatproto.SyncSubscribeRepos_Commit
		if err := json.Unmarshal(b, &msg); err != nil {
			t.Fatal(err)
		}
		var s repo.Slice
		if err := s.Read(msg.Blocks); err != nil {
			t.Fatal(name, err)
		}
		if s.Root().String() != msg.Commit.String() {
			t.Fatalf("%s: root %s, message says %s", name, s.Root(), msg.Commit)
		}
		b, _ = s.Block(s.Root())
		commit, err := repo.ParseCommit(b)
		if err != nil || commit.Rev != msg.Rev || len(msg.Ops) != 1 {
			t.Fatal(name, commit, err)
		}
		op := repo.SliceOp{Path: []byte(msg.Ops[0].Path)}
		if op.CID, err = repo.ParseCID(msg.Ops[0].Cid.String()); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Block(op.CID); !ok {
			t.Fatalf("%s: no record", name)
		}
		if got, err := s.Find(commit.Data, op.Path); err != nil || got != op.CID {
			t.Fatalf("%s: find: %s %v", name, got, err)
		}
		prev, err := s.Invert(commit.Data, []repo.SliceOp{op})
		if !errors.Is(err, want.err) || err == nil && prev.String() != want.prev {
			t.Errorf("%s: %s, %v", name, prev, err)
		}
	}
}
