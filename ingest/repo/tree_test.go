package repo_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

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
