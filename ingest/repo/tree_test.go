package repo_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/ipfs/go-cid"

	"cistern/ingest/repo"
)

func rootOf(t *repo.Tree, leaves []leaf) repo.CID {
	t.Reset()
	for _, l := range leaves {
		t.Add([]byte(l.key), l.cid)
	}
	return t.Root()
}

// TestTree compares roots with those of the recursive builder, for sizes from none, and with one
// Tree for all of them.
func TestTree(t *testing.T) {
	t.Parallel()
	var tree repo.Tree
	for n := range 400 {
		for seed := range uint64(3) {
			w := newWorld(n, seed)
			if got := rootOf(&tree, w.leaves); got != w.data {
				t.Fatalf("%d records, seed %d: root %s, want %s", n, seed, got, w.data)
			}
		}
	}
	w := newWorld(20_000, 1)
	if got := rootOf(&tree, w.leaves); got != w.data {
		t.Fatalf("20,000 records: root %s, want %s", got, w.data)
	}
	w.leaves[777].cid[5] ^= 1
	if got := rootOf(&tree, w.leaves); got == w.data {
		t.Error("a changed record has the same root")
	}
}

// TestTreeEmpty: the root of no records is that of the protocol, and the zero value is usable.
func TestTreeEmpty(t *testing.T) {
	t.Parallel()
	const want = "bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm"
	if got := new(repo.Tree).Root(); got.String() != want {
		t.Errorf("root %s, want %s", got, want)
	}
}

// TestTreeIllegal: records of which a node would be longer than any block have no root.
func TestTreeIllegal(t *testing.T) {
	t.Parallel()
	var low []leaf
	for i := 0; len(low) < 2300; i++ {
		key := fmt.Sprintf("app.test.a/%s%08d", bytes.Repeat([]byte{'k'}, 900), i)
		// Keys that share nothing with each other are written out in full.
		key = fmt.Sprintf("%08d%s", i, key)
		if layerOf(key) == 0 {
			low = append(low, leaf{key: key, cid: repo.HashCID([]byte(key))})
		}
	}
	slices.SortFunc(low, func(a, b leaf) int { return bytes.Compare([]byte(a.key), []byte(b.key)) })
	var tree repo.Tree
	if got := rootOf(&tree, low); got.Defined() {
		t.Errorf("a node of more than 2 MiB has root %s", got)
	}
	if got := rootOf(&tree, low[:100]); !got.Defined() {
		t.Error("100 of the records have no root")
	}
}

// TestTreeNodes: a Tree makes the nodes of the recursive builder, children before their parents, and
// the part of it between two keys makes the subtree.
func TestTreeNodes(t *testing.T) {
	t.Parallel()
	for seed, n := range []int{0, 1, 2, 5, 50, 1000} {
		w := newWorld(n, uint64(seed))
		var got []block
		layers := map[repo.CID]int{}
		tree := repo.Tree{Node: func(layer int, id repo.CID, data []byte) {
			got = append(got, block{cid: id, data: bytes.Clone(data)})
			layers[id] = layer
		}}
		if root := rootOf(&tree, w.leaves); root != w.data {
			t.Fatalf("%d records: root %s, want %s", n, root, w.data)
		}
		if len(got) != len(w.nodes) {
			t.Fatalf("%d records: %d nodes, want %d", n, len(got), len(w.nodes))
		}
		tree.Node = nil
		for i, b := range w.nodes {
			if got[i].cid != b.cid || !bytes.Equal(got[i].data, b.data) {
				t.Fatalf("%d records: node %d of %d differs", n, i, len(got))
			}
			tree.Reset()
			for _, l := range w.leaves {
				if l.key > b.lo && (b.hi == "" || l.key < b.hi) {
					tree.Add([]byte(l.key), l.cid)
				}
			}
			if id := tree.Subtree(layers[b.cid]); id != b.cid {
				t.Fatalf("%d records: node %d of %d as a subtree is %s, want %s", n, i, len(got), id, b.cid)
			}
			checkTreeNode(t, b.data)
		}
	}
}

// checkTreeNode decodes a node, and encodes it again.
func checkTreeNode(t testing.TB, data []byte) {
	t.Helper()
	var n repo.TreeNode
	for range 2 { // also with the memory of another
		if err := n.Parse(data); err != nil {
			t.Fatal(err)
		}
	}
	var entries []entry
	last := ""
	for _, e := range n.Entries {
		key := string(e.Key)
		p := sharedPrefix(last, key)
		entries = append(entries, entry{prefix: int64(p), suffix: key[p:], value: e.Value, right: e.Right})
		last = key
	}
	if again := encodeNode(n.Left, entries...); !bytes.Equal(again, data) {
		t.Fatalf("node %x is encoded as %x", data, again)
	}
}

func FuzzTreeNode(f *testing.F) {
	for _, b := range newWorld(60, 3).nodes {
		f.Add(b.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var n repo.TreeNode
		if n.Parse(data) == nil {
			checkTreeNode(t, data)
		}
	})
}

// indigoRoot is the root of the tree that indigo makes of records, inserted in the order of a map.
func indigoRoot(t *testing.T, leaves []leaf) string {
	t.Helper()
	m := make(map[string]cid.Cid, len(leaves))
	for _, l := range leaves {
		c, err := cid.Cast(l.cid.AppendBytes(nil))
		if err != nil {
			t.Fatal(err)
		}
		m[l.key] = c
	}
	tree, err := mst.LoadTreeFromMap(m)
	if err != nil {
		t.Fatal(err)
	}
	root, err := tree.RootCID()
	if err != nil {
		t.Fatal(err)
	}
	return root.String()
}

// TestTreeIndigo compares roots of random records with those of indigo.
func TestTreeIndigo(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, most := range []int{1, 2, 10, 100, 1000, 10_000, 30_000} {
		leaves := randomLeaves(rng, 1+rng.IntN(most))
		if got, want := rootOf(new(repo.Tree), leaves).String(), indigoRoot(t, leaves); got != want {
			t.Errorf("%d records: root %s, indigo has %s", len(leaves), got, want)
		}
	}
}

// TestTreeMillion compares the root of a million records with that of the recursive builder, and, if
// CISTERNTEST_INDIGO is set, with that of indigo, which takes half a minute.
func TestTreeMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	const n = 1_000_000
	leaves := randomLeaves(rand.New(rand.NewPCG(1, n)), n)
	want, _ := buildTree(leaves)
	if got := rootOf(new(repo.Tree), leaves); got != want {
		t.Errorf("root %s, want %s", got, want)
	}
	if os.Getenv("CISTERNTEST_INDIGO") == "" {
		return
	}
	if indigo := indigoRoot(t, leaves); indigo != want.String() {
		t.Errorf("root %s, indigo has %s", want, indigo)
	}
}

// randomLeaves returns up to n records in order of their keys.
func randomLeaves(keys *rand.Rand, n int) []leaf {
	leaves := make([]leaf, n)
	for i := range leaves {
		key := fmt.Sprintf("%s/3l%011d", worldCollections[keys.IntN(4)], keys.Uint64N(1e11))
		leaves[i] = leaf{key: key, cid: repo.HashCID([]byte(key))}
	}
	slices.SortFunc(leaves, func(a, b leaf) int { return strings.Compare(a.key, b.key) })
	return slices.CompactFunc(leaves, func(a, b leaf) bool { return a.key == b.key })
}

func BenchmarkTree(b *testing.B) {
	w := newWorld(100_000, 1)
	var tree repo.Tree
	b.ReportAllocs()
	for b.Loop() {
		if rootOf(&tree, w.leaves) != w.data {
			b.Fatal("wrong root")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(w.leaves)), "ns/record")
}
