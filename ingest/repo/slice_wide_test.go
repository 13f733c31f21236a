package repo_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"cistern/ingest/repo"
)

// TestSliceOfOneBlock has as many blocks as there may be, all of them the same: one of them is in the
// index, as each entry with the same hash has to be passed by the next one.
func TestSliceOfOneBlock(t *testing.T) {
	t.Parallel()
	a, b := newBlock([]byte("a")), newBlock([]byte("b"))
	var s repo.Slice
	if err := s.Read(encodeCAR(a.cid, append(slices.Repeat([]block{a}, 8191), b))); err != nil {
		t.Fatal(err)
	}
	if n := repo.Indexed(&s); n != 2 {
		t.Errorf("the index has %d of 2 blocks", n)
	}
}

// TestInvertWide takes back 200 operations beside a node as wide as a CAR holds. Its entries take 1.3 MB.
func TestInvertWide(t *testing.T) {
	const narrow, wide, allocatedMax = 200, 27_000, 32 << 20
	v := repo.HashCID([]byte("record"))
	var leaves, above []string
	for i := 0; len(leaves) < wide; i++ {
		k := fmt.Sprintf("key%06x", i)
		if layerOf(k) != 0 {
			continue
		}
		if leaves = append(leaves, k); len(leaves) <= narrow {
			above = append(above, keyAt(k+"-", 1))
		}
	}
	tree := func(withAbove bool) (repo.CID, []byte) {
		all := records{}
		for _, k := range leaves {
			all[k] = v
		}
		for _, k := range above {
			if withAbove {
				all[k] = v
			}
		}
		data, nodes := all.tree()
		return data, encodeCAR(data, nodes)
	}
	whole, wholeCAR := tree(false)
	parted, partedCAR := tree(true)
	for name, c := range map[string]struct {
		data, before repo.CID
		car          []byte
		cid, prev    repo.CID
	}{
		"split": {data: whole, before: parted, car: wholeCAR, prev: v},
		"merge": {data: parted, before: whole, car: partedCAR, cid: v},
	} {
		for _, ascending := range []bool{true, false} {
			var ops []repo.SliceOp
			for _, k := range above {
				ops = append(ops, repo.SliceOp{Path: []byte(k), CID: c.cid, Prev: c.prev})
			}
			if ascending { // they are taken back from the last to the first
				slices.Reverse(ops)
			}
			var s repo.Slice
			if err := s.Read(c.car); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, err := s.Invert(c.data, ops)
			runtime.ReadMemStats(&after)
			if err != nil || got != c.before {
				t.Errorf("%s: %s %v, want %s", name, got, err, c.before)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > allocatedMax {
				t.Errorf("%s, ascending %t: %d bytes for a CAR of %d", name, ascending, n, len(c.car))
			}
		}
	}
}
