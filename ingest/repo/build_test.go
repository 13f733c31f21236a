package repo_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"cistern/ingest/repo"
)

// fixture opens a file of the shared fixtures, or skips the test.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("CISTERN_FIXTURES")
	if dir == "" {
		dir = "../../../shared"
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Skipf("fixture absent, set CISTERN_FIXTURES: %v", err)
	}
	return b
}

// cborHead encodes a data item's head in its shortest form.
func cborHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major<<5|byte(n))
	case n <= 0xff:
		return append(dst, major<<5|24, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, major<<5|25), uint16(n))
	case n <= 0xffffffff:
		return binary.BigEndian.AppendUint32(append(dst, major<<5|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major<<5|27), n)
}

func cborText(dst []byte, s string) []byte { return append(cborHead(dst, 3, uint64(len(s))), s...) }

func cborBytes(dst []byte, b []byte) []byte { return append(cborHead(dst, 2, uint64(len(b))), b...) }

func cborLink(dst []byte, c repo.CID) []byte {
	return c.AppendBytes(append(dst, 0xd8, 0x2a, 0x58, 0x25, 0x00))
}

// cborLinkOrNull encodes the zero CID as null.
func cborLinkOrNull(dst []byte, c repo.CID) []byte {
	if !c.Defined() {
		return append(dst, 0xf6)
	}
	return cborLink(dst, c)
}

// block is a block of a CAR; its CID may be a lie.
type block struct {
	cid  repo.CID
	data []byte
	rev  int // the commit that wrote it

	lo, hi string // of a tree node: the keys around it, "" for none
}

func newBlock(data []byte) block { return block{cid: repo.HashCID(data), data: data} }

// encodeCAR writes a CAR v1 with one root.
func encodeCAR(root repo.CID, blocks []block) []byte {
	out := carHeader(root)
	for _, b := range blocks {
		out = appendSection(out, b)
	}
	return out
}

func carHeader(root repo.CID) []byte {
	h := cborText([]byte{0xa2}, "roots")
	h = cborLink(append(h, 0x81), root)
	h = append(cborText(h, "version"), 1)
	return append(binary.AppendUvarint(nil, uint64(len(h))), h...)
}

func appendSection(dst []byte, b block) []byte {
	dst = binary.AppendUvarint(dst, uint64(repo.CIDBytes+len(b.data)))
	return append(b.cid.AppendBytes(dst), b.data...)
}

// entry is an entry of a tree node, legal or not.
type entry struct {
	prefix int64
	suffix string
	value  repo.CID
	right  repo.CID // zero: null
}

func encodeNode(left repo.CID, entries ...entry) []byte {
	out := cborText([]byte{0xa2}, "e")
	out = cborHead(out, 4, uint64(len(entries)))
	for _, e := range entries {
		out = cborText(append(out, 0xa4), "k")
		out = cborText(cborBytes(out, []byte(e.suffix)), "p")
		if e.prefix < 0 {
			out = cborHead(out, 1, uint64(-1-e.prefix))
		} else {
			out = cborHead(out, 0, uint64(e.prefix))
		}
		out = cborLinkOrNull(cborText(out, "t"), e.right)
		out = cborLink(cborText(out, "v"), e.value)
	}
	return cborLinkOrNull(cborText(out, "l"), left)
}

// leaf is a record of a tree to build.
type leaf struct {
	key string
	cid repo.CID
	rev int
}

// layerOf is the layer of a key, written differently from the code under test.
func layerOf(key string) int {
	sum := sha256.Sum256([]byte(key))
	n := 0
	for _, b := range sum {
		for shift := 6; shift >= 0; shift -= 2 {
			if b>>shift&3 != 0 {
				return n
			}
			n++
		}
	}
	return n
}

// buildTree builds the tree of sorted leaves and returns its root and its nodes, root last.
func buildTree(leaves []leaf) (repo.CID, []block) {
	top := 0
	for _, l := range leaves {
		top = max(top, layerOf(l.key))
	}
	var nodes []block
	root := buildNode(leaves, top, "", "", &nodes)
	return root, nodes
}

func buildNode(leaves []leaf, layer int, lo, hi string, nodes *[]block) repo.CID {
	var left repo.CID
	var entries []entry
	subtree := func(below []leaf, lo, hi string) {
		if len(below) == 0 {
			return
		}
		c := buildNode(below, layer-1, lo, hi, nodes)
		if len(entries) == 0 {
			left = c
		} else {
			entries[len(entries)-1].right = c
		}
	}
	from, prev := 0, ""
	for i, l := range leaves {
		if layerOf(l.key) < layer {
			continue
		}
		subtree(leaves[from:i], cmp.Or(prev, lo), l.key)
		p := sharedPrefix(prev, l.key)
		entries = append(entries, entry{prefix: int64(p), suffix: l.key[p:], value: l.cid})
		from, prev = i+1, l.key
	}
	subtree(leaves[from:], cmp.Or(prev, lo), hi)
	b := newBlock(encodeNode(left, entries...))
	b.lo, b.hi = lo, hi
	for _, l := range leaves {
		b.rev = max(b.rev, l.rev)
	}
	*nodes = append(*nodes, b)
	return b.cid
}

func sharedPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// world is a generated repository without its signature.
type world struct {
	leaves  []leaf // sorted
	records []block
	nodes   []block // root last
	data    repo.CID
}

var worldCollections = []string{"app.bsky.feed.like", "app.bsky.feed.post", "app.bsky.feed.repost", "app.bsky.graph.follow"}

// newWorld makes n records, the same for the same seed.
func newWorld(n int, seed uint64) *world {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	w := &world{}
	for i := range n {
		rec := cborText([]byte{0xa3}, "text")
		rec = cborText(rec, string(bytes.Repeat([]byte{'x'}, 20+r.IntN(250))))
		rec = cborText(cborText(rec, "$type"), worldCollections[i%4])
		rec = cborHead(cborText(rec, "number"), 0, r.Uint64()>>1)
		b := newBlock(rec)
		b.rev = i
		w.records = append(w.records, b)
		key := fmt.Sprintf("%s/3l%011d", worldCollections[r.IntN(4)], i*7+r.IntN(7))
		w.leaves = append(w.leaves, leaf{key, b.cid, i})
	}
	slices.SortFunc(w.leaves, func(a, b leaf) int { return bytes.Compare([]byte(a.key), []byte(b.key)) })
	w.data, w.nodes = buildTree(w.leaves)
	return w
}

// commit is an unsigned commit with a signature field of the right length.
func (w *world) commit() block {
	return newBlock(encodeCommit("did:plc:ewvi7nxzyoun6zhxrhs64oiz", "3jzfcijpj2z2a", w.data, bytes.Repeat([]byte{1}, 64)))
}

func encodeCommit(did, rev string, data repo.CID, sig []byte) []byte {
	out := []byte{0xa6}
	if sig == nil {
		out[0] = 0xa5
	}
	out = cborText(cborText(out, "did"), did)
	out = cborText(cborText(out, "rev"), rev)
	if sig != nil {
		out = cborBytes(cborText(out, "sig"), sig)
	}
	out = cborLink(cborText(out, "data"), data)
	out = append(cborText(out, "prev"), 0xf6)
	return append(cborText(out, "version"), 3)
}

// blocks lists everything: commit, nodes, records. Seed 0 is the order of the reference PDS, the
// newest first; any other draws an order.
func (w *world) blocks(seed uint64) []block {
	all := slices.Concat([]block{w.commit()}, w.nodes, w.records)
	if seed != 0 {
		r := rand.New(rand.NewPCG(seed, 0))
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		return all
	}
	slices.SortFunc(all[1:], func(a, b block) int {
		return cmp.Or(cmp.Compare(b.rev, a.rev), bytes.Compare(b.cid[:], a.cid[:]))
	})
	return all
}

func (w *world) car(seed uint64) []byte { return encodeCAR(w.commit().cid, w.blocks(seed)) }
