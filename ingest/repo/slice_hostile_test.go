package repo_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cistern/ingest/repo"
)

// TestSliceReadHostile: invalid CARs are refused.
func TestSliceReadHostile(t *testing.T) {
	t.Parallel()
	a, b := newBlock([]byte("a block")), newBlock([]byte("another"))
	good := encodeCAR(a.cid, []block{a, b})
	header := carHeader(a.cid)
	section := func(content ...[]byte) []byte {
		all := bytes.Join(content, nil)
		return append(binary.AppendUvarint(nil, uint64(len(all))), all...)
	}
	lie := block{cid: b.cid, data: a.data}
	for name, car := range map[string][]byte{
		"nothing":                nil,
		"ends in the header":     header[:20],
		"ends in a block":        good[:len(good)-1],
		"ends in a length":       append(slices.Clone(good), 0x80),
		"needless byte":          append(slices.Clone(header), append([]byte{0x80 | 43, 0}, section(a.cid.AppendBytes(nil), a.data)[1:]...)...),
		"length of 65 bits":      append(slices.Clone(good), bytes.Repeat([]byte{0xff}, 9)...),
		"length of 63 bits":      append(slices.Clone(good), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"section of nothing":     append(slices.Clone(good), 0),
		"section without a CID":  append(slices.Clone(good), section(make([]byte, 35))...),
		"CID of version 2":       append(slices.Clone(good), section([]byte("\x02\x71\x12\x20"), a.cid[:], a.data)...),
		"no hash":                encodeCAR(a.cid, []block{a, lie}),
		"no root":                append(section([]byte("\xa2\x65roots\x80\x67version\x01")), good[len(header):]...),
		"version 2":              bytes.Replace(good, []byte("version\x01"), []byte("version\x02"), 1),
		"header of 100 roots":    section([]byte("\xa2\x65roots\x98\x64"), bytes.Repeat(cborLink(nil, a.cid), 100), []byte("\x67version\x01")),
		"more than 2000000 byte": encodeCAR(a.cid, []block{newBlock(make([]byte, 2_000_000))}),
		"more than 8192 blocks":  encodeCAR(a.cid, slices.Repeat([]block{a}, 8193)),
	} {
		var s repo.Slice
		if err := s.Read(good); err != nil {
			t.Fatal(err)
		}
		if err := s.Read(car); !errors.Is(err, repo.ErrInvalid) || errors.Is(err, repo.ErrProof) {
			t.Errorf("%s: %v", name, err)
		}
		if _, ok := s.Block(a.cid); ok || s.Root().Defined() {
			t.Errorf("%s: the slice is not empty", name)
		}
	}
	var s repo.Slice
	if _, ok := s.Block(a.cid); ok {
		t.Error("a block of nothing")
	}
	if _, err := s.Find(a.cid, []byte("a/b")); !errors.Is(err, repo.ErrProof) {
		t.Errorf("find in nothing: %v", err)
	}
	if err := s.Read(encodeCAR(a.cid, slices.Repeat([]block{a}, 8192))); err != nil {
		t.Errorf("as many blocks as there may be: %v", err)
	}
	if got, ok := s.Block(a.cid); !ok || !bytes.Equal(got, a.data) || s.Root() != a.cid {
		t.Errorf("block %q %v, root %s", got, ok, s.Root())
	}
}

// keyAt is a key of a layer that begins with prefix.
func keyAt(prefix string, layer int) string {
	for i := 0; ; i++ {
		if k := fmt.Sprintf("%s%d", prefix, i); layerOf(k) == layer {
			return k
		}
	}
}

// TestInvertHostile has nodes that are no tree. Each is met on the way to some key.
func TestInvertHostile(t *testing.T) {
	t.Parallel()
	v := repo.HashCID([]byte("record"))
	b0, d0, f0 := keyAt("b", 0), keyAt("d", 0), keyAt("f", 0)
	c1, e1 := keyAt("c", 1), keyAt("e", 1)
	leaf := func(keys ...string) block {
		var all []entry
		for _, k := range keys {
			all = append(all, entry{suffix: k, value: v})
		}
		return newBlock(encodeNode(repo.CID{}, all...))
	}
	d, bare := leaf(d0), newBlock(encodeNode(repo.CID{}))
	chain := newBlock(encodeNode(bare.cid))
	// node is c1, the subtree, e1.
	node := func(right block) []block {
		return []block{right, newBlock(encodeNode(repo.CID{}, entry{suffix: c1, value: v, right: right.cid}, entry{suffix: e1, value: v}))}
	}
	long := entry{suffix: strings.Repeat("k", 1025), value: v}
	for name, nodes := range map[string][]block{
		"no node":                {newBlock([]byte("no node"))},
		"record for a node":      node(newBlock(cborText(nil, "record"))),
		"keys fall":              {leaf(f0, d0)},
		"keys are equal":         {leaf(d0, d0)},
		"key of another layer":   {leaf(d0, e1)},
		"layer below":            node(leaf(keyAt("d", 2))),
		"subtree skips a layer":  {d, newBlock(encodeNode(d.cid, entry{suffix: keyAt("e", 2), value: v}))},
		"subtree left of it":     node(leaf(b0)),
		"subtree right of it":    node(leaf(f0)),
		"subtree below layer 0":  {bare, newBlock(encodeNode(bare.cid, entry{suffix: d0, value: v}))},
		"empty subtree":          node(bare),
		"top without keys":       {bare, chain},
		"chain below layer 0":    node(chain),
		"shared bytes not named": {leaf("app/a"+d0, "app/b"+d0)},
		"prefix too long":        {newBlock(encodeNode(repo.CID{}, entry{prefix: 1, suffix: d0, value: v}))},
		"key too long":           {newBlock(encodeNode(repo.CID{}, long))},
		"key of nothing":         {newBlock(encodeNode(repo.CID{}, entry{value: v}))},
	} {
		var s repo.Slice
		readSlice(t, &s, nodes)
		data := nodes[len(nodes)-1].cid
		for _, op := range []repo.SliceOp{{CID: v}, {Prev: v}, {CID: v, Prev: data}} {
			op.Path = []byte(d0)
			_, findErr := s.Find(data, op.Path)
			_, err := s.Invert(data, []repo.SliceOp{op})
			for _, err := range []error{findErr, err} {
				if !errors.Is(err, repo.ErrInvalid) || errors.Is(err, repo.ErrProof) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	// The same with a subtree that is as it must be.
	var s repo.Slice
	nodes := node(d)
	readSlice(t, &s, nodes)
	if got, err := s.Find(nodes[1].cid, []byte(d0)); err != nil || got != v {
		t.Errorf("find: %s %v", got, err)
	}
}

// TestInvertBounds has subtrees whose keys are not between those around them, where a key is taken out or put in
// above them.
func TestInvertBounds(t *testing.T) {
	t.Parallel()
	v := repo.HashCID([]byte("record"))
	key := func(prefix string, layer int) string { return keyAt(prefix, layer) }
	type side struct{ outer, inner string } // a key of layer 1, and one of layer 0 on the side of the middle
	good := map[string]side{"left": {key("b", 1), key("c", 0)}, "right": {key("f", 1), key("e", 0)}}
	for name, change := range map[string]func(left, right *side){
		"":                                 func(_, _ *side) {},
		"inner of left before outer":       func(l, _ *side) { l.inner = key("a", 0) },
		"inner of left after the middle":   func(l, _ *side) { l.inner = key("e", 0) },
		"inner of right after outer":       func(_, r *side) { r.inner = key("g", 0) },
		"inner of right before the middle": func(_, r *side) { r.inner = key("c", 0) },
		"left after the middle":            func(l, _ *side) { l.outer = key("g", 1) },
		"right before the middle":          func(_, r *side) { r.outer = key("a", 1) },
		"right after the end":              func(_, r *side) { r.outer = key("j", 1) },
	} {
		l, r := good["left"], good["right"]
		change(&l, &r)
		middle, end := key("d", 2), key("h", 2)
		node := func(left repo.CID, k string, right repo.CID) block {
			return newBlock(encodeNode(left, entry{suffix: k, value: v, right: right}))
		}
		l0, r0 := node(repo.CID{}, l.inner, repo.CID{}), node(repo.CID{}, r.inner, repo.CID{})
		l1, r1 := node(repo.CID{}, l.outer, l0.cid), node(r0.cid, r.outer, repo.CID{})
		merged := newBlock(encodeNode(l1.cid, entry{suffix: middle, value: v, right: r1.cid}, entry{suffix: end, value: v}))
		// The same without the middle, which is to be put back.
		lr := newBlock(encodeNode(repo.CID{}, entry{suffix: l.inner, value: v}, entry{suffix: r.inner, value: v}))
		lr1 := newBlock(encodeNode(repo.CID{}, entry{suffix: l.outer, value: v, right: lr.cid}, entry{suffix: r.outer, value: v}))
		split := newBlock(encodeNode(lr1.cid, entry{suffix: end, value: v}))

		var s repo.Slice
		readSlice(t, &s, []block{l0, r0, l1, r1, merged, lr, lr1, split})
		without, err := s.Invert(merged.cid, []repo.SliceOp{{Path: []byte(middle), CID: v}})
		if name == "" && (err != nil || without != split.cid) || name != "" && (!errors.Is(err, repo.ErrInvalid) || errors.Is(err, repo.ErrProof)) {
			t.Errorf("take out, %s: %s, want %s: %v", name, without, split.cid, err)
		}
		with, err := s.Invert(split.cid, []repo.SliceOp{{Path: []byte(middle), Prev: v}})
		if strings.Contains(name, "the middle") {
			continue // lies on one side of it, or is in order
		}
		if name == "" && (err != nil || with != merged.cid) || name != "" && (!errors.Is(err, repo.ErrInvalid) || errors.Is(err, repo.ErrProof)) {
			t.Errorf("put in, %s: %s, want %s: %v", name, with, merged.cid, err)
		}
	}
}

// TestSliceKeysBound has a node whose keys share nearly everything.
func TestSliceKeysBound(t *testing.T) {
	t.Parallel()
	var all records = records{}
	for i := 0; len(all) < 9000; i++ {
		if k := strings.Repeat("k", 1016) + fmt.Sprintf("%08d", i); layerOf(k) == 0 {
			all[k] = repo.HashCID(nil)
		}
	}
	data, nodes := all.tree()
	var s repo.Slice
	readSlice(t, &s, nodes)
	if _, err := s.Find(data, []byte("a/b")); !errors.Is(err, repo.ErrInvalid) || errors.Is(err, repo.ErrProof) {
		t.Fatal(err)
	}
}

// FuzzSlice holds Slice.Read against ReadCAR.
func FuzzSlice(f *testing.F) {
	for _, n := range []int{0, 1, 5} {
		f.Add(newWorld(n, 1).car(0))
	}
	f.Add(encodeCAR(repo.HashCID(nil), slices.Repeat([]block{newBlock([]byte("twice"))}, 2)))
	f.Fuzz(func(t *testing.T, car []byte) {
		var s repo.Slice
		err := s.Read(car)
		c, carErr := repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{})
		if (err == nil) != (carErr == nil) || err != nil && !errors.Is(err, repo.ErrInvalid) {
			t.Fatalf("slice: %v; CAR: %v", err, carErr)
		}
		if err != nil {
			return
		}
		root, ok := s.Block(s.Root())
		want, wantOK, err := c.Block(c.Root())
		if err != nil || s.Root() != c.Root() || ok != wantOK || !bytes.Equal(root, want) {
			t.Fatalf("root %s %v, CAR %s %v: %v", s.Root(), ok, c.Root(), wantOK, err)
		}
		if _, err := s.Find(s.Root(), []byte("app.bsky.feed.post/3l")); err != nil && !errors.Is(err, repo.ErrInvalid) {
			t.Fatal(err)
		}
	})
}

// FuzzInvert takes a list of changes to the nodes of a good repository, as FuzzWalk does, and takes
// operations back. If all of it is a tree still, then the answer is known.
func FuzzInvert(f *testing.F) {
	f.Add([]byte{}, uint8(5))
	f.Add([]byte{0, 0, 10, 1}, uint8(10))
	f.Add([]byte{2, 0, 5, 0x18, 3, 0, 5, 0}, uint8(15))
	f.Add([]byte{5, 1, 1, 2, 4, 3, 2, 1}, uint8(20))
	values := recordBlocks()
	var worlds []*change
	for seed := range uint64(24) {
		worlds = append(worlds, newKeyMaker(seed).change([]int{3, 40, 90}[seed%3], int(seed/3)))
	}
	f.Fuzz(func(t *testing.T, changes []byte, world uint8) {
		if len(changes) > 64 {
			return
		}
		c := worlds[int(world)%len(worlds)]
		_, nodes := c.after.tree()
		for rest := changes; len(rest) >= 5; rest = rest[5:] {
			mutate(nodes, values, rest[0], binary.BigEndian.Uint16(rest[1:]), rest[3], rest[4])
		}
		for i := range nodes {
			old := nodes[i].cid
			nodes[i].cid = repo.HashCID(nodes[i].data)
			for j := i + 1; j < len(nodes) && old != nodes[i].cid; j++ {
				nodes[j].data = bytes.ReplaceAll(nodes[j].data, old[:], nodes[i].cid[:])
			}
		}
		data := nodes[len(nodes)-1].cid
		var s repo.Slice
		if err := s.Read(encodeCAR(data, nodes)); err != nil {
			if len(encodeCAR(data, nodes)) < 2_000_000 {
				t.Fatal(err)
			}
			return
		}
		got, err := s.Invert(data, c.ops)
		want, wantErr := invertWalked(t, data, nodes, c.ops)
		switch {
		case err != nil && !errors.Is(err, repo.ErrInvalid):
			t.Fatal(err)
		case wantErr == errNoTree:
		case (err == nil) != (wantErr == nil) || err == nil && got != want:
			t.Fatalf("root %s, want %s: %v, want %v", got, want, err, wantErr)
		}
	})
}

var (
	errNoTree = errors.New("no tree")
	errDenied = errors.New("denied")
)

// invertWalked does what Invert does, with all that Walk says is there.
func invertWalked(t *testing.T, data repo.CID, nodes []block, ops []repo.SliceOp) (repo.CID, error) {
	t.Helper()
	commit := newBlock(encodeCommit(testDID, testRev, data, bytes.Repeat([]byte{1}, 64)))
	car := encodeCAR(commit.cid, slices.Concat([]block{commit}, nodes, recordBlocks()))
	c, err := repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, leaves, err := walkAll(c)
	if closeErr := c.Close(); closeErr != nil {
		t.Fatal(closeErr)
	}
	if err != nil {
		return repo.CID{}, errNoTree
	}
	held := records{}
	for _, l := range leaves {
		held[l.key] = l.cid
	}
	for _, op := range slices.Backward(ops) {
		if held[string(op.Path)] != op.CID {
			return repo.CID{}, errDenied
		}
		if held[string(op.Path)] = op.Prev; !op.Prev.Defined() {
			delete(held, string(op.Path))
		}
	}
	root, _ := held.tree()
	return root, nil
}
