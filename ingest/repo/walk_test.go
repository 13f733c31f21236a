package repo_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"cistern/ingest/repo"
)

// keysAt returns n keys of a layer, ascending.
func keysAt(layer, n int) []string {
	var keys []string
	for i := 0; len(keys) < n; i++ {
		if k := fmt.Sprintf("com.example.record/%06d", i); layerOf(k) == layer {
			keys = append(keys, k)
		}
	}
	return keys
}

// keyBetween returns a key of a layer that sorts between two others.
func keyBetween(layer int, after, before string) string {
	for i := 0; ; i++ {
		if k := fmt.Sprintf("%s%06d", after, i); layerOf(k) == layer && k < before {
			return k
		}
	}
}

// grove collects the nodes and records of a tree made by hand.
type grove struct {
	record block
	blocks []block
}

func newGrove() *grove {
	g := &grove{record: newBlock([]byte{0xa0})}
	g.blocks = []block{g.record}
	return g
}

func (g *grove) node(left repo.CID, entries ...entry) repo.CID {
	return g.raw(encodeNode(left, entries...))
}

func (g *grove) raw(b []byte) repo.CID {
	g.blocks = append(g.blocks, newBlock(b))
	return g.blocks[len(g.blocks)-1].cid
}

// leaf is an entry with the whole key.
func (g *grove) leaf(key string) entry { return entry{suffix: key, value: g.record.cid} }

// after is an entry compressed against the key before it.
func (g *grove) after(prev, key string) entry {
	p := sharedPrefix(prev, key)
	return entry{prefix: int64(p), suffix: key[p:], value: g.record.cid}
}

func (g *grove) walk(t testing.TB, root repo.CID) (keys []string, err error) {
	t.Helper()
	c := mustRead(t, encodeCAR(root, g.blocks), repo.CAROptions{})
	err = c.Walk(root, func(l repo.Leaf) error {
		keys = append(keys, string(l.Key))
		return nil
	})
	agreePart(t, root, blockMap(g.blocks), keys, err)
	return keys, err
}

func TestWalkLegal(t *testing.T) {
	t.Parallel()
	k0, k1, k2 := keysAt(0, 9), keysAt(1, 3), keysAt(2, 1)
	none := repo.CID{}
	tests := map[string]struct {
		build func(g *grove) repo.CID
		want  []string
	}{
		"empty tree": {
			func(g *grove) repo.CID { return g.node(none) }, nil,
		},
		"one key at a high layer: nothing below it": {
			func(g *grove) repo.CID { return g.node(none, g.leaf(k2[0])) }, k2[:1],
		},
		"node without entries between two layers": {
			func(g *grove) repo.CID {
				low := keyBetween(0, k2[0], "d")
				e := g.leaf(k2[0])
				e.right = g.node(g.node(none, g.leaf(low)))
				return g.node(none, e)
			}, []string{k2[0], keyBetween(0, k2[0], "d")},
		},
		"key that begins with the whole key before it": {
			func(g *grove) repo.CID {
				longer := keyBetween(0, k0[0], k0[0]+"a")
				return g.node(none, g.leaf(k0[0]), g.after(k0[0], longer))
			}, []string{k0[0], keyBetween(0, k0[0], k0[0]+"a")},
		},
		"subtrees left, between and right": {
			func(g *grove) repo.CID {
				a, b := keyBetween(0, "a", "b"), keyBetween(0, k1[0], k1[1])
				first := g.leaf(k1[0])
				first.right = g.node(none, g.leaf(b))
				second := g.after(k1[0], k1[1])
				second.right = g.node(none, g.leaf(keyBetween(0, "x", "y")))
				return g.node(g.node(none, g.leaf(a)), first, second)
			}, []string{keyBetween(0, "a", "b"), k1[0], keyBetween(0, k1[0], k1[1]), k1[1], keyBetween(0, "x", "y")},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGrove()
			got, err := g.walk(t, test.build(g))
			if err != nil || !slices.Equal(got, test.want) {
				t.Fatalf("%q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestWalkInvalid(t *testing.T) {
	t.Parallel()
	k0, k1, k2 := keysAt(0, 9), keysAt(1, 3), keysAt(2, 1)
	none, absent := repo.CID{}, repo.HashCID([]byte("absent"))
	tests := map[string]struct {
		build func(g *grove) repo.CID
		words string // in the error
	}{
		"root is absent": {
			func(g *grove) repo.CID { return absent }, "missing",
		},
		"root is a record": {
			func(g *grove) repo.CID { return g.record.cid }, "map of e and l",
		},
		"subtree is absent": {
			func(g *grove) repo.CID { return g.node(absent, g.leaf(k1[0])) }, "missing",
		},
		"record is absent": {
			func(g *grove) repo.CID { return g.node(none, entry{suffix: k0[0], value: absent}) }, "missing",
		},
		"prefix length in the first entry": {
			func(g *grove) repo.CID { return g.node(none, entry{prefix: 1, suffix: k0[0], value: g.record.cid}) }, "prefix length exceeds",
		},
		"negative prefix length, which makes careless readers panic": {
			func(g *grove) repo.CID {
				return g.node(none, g.leaf(k0[0]), entry{prefix: -1, suffix: k0[1], value: g.record.cid})
			}, "k, p, t and v",
		},
		"prefix length beyond the previous key": {
			func(g *grove) repo.CID {
				return g.node(none, g.leaf(k0[0]), entry{prefix: int64(len(k0[0])) + 1, suffix: "z", value: g.record.cid})
			}, "prefix length exceeds",
		},
		"prefix length of 2^62": {
			func(g *grove) repo.CID {
				return g.node(none, g.leaf(k0[0]), entry{prefix: 1 << 62, suffix: "z", value: g.record.cid})
			}, "longer than 1024",
		},
		"prefix shorter than what is shared: another form of the same tree": {
			func(g *grove) repo.CID { return g.node(none, g.leaf(k0[0]), g.leaf(k0[1])) }, "less than what the keys share",
		},
		"empty key": {
			func(g *grove) repo.CID { return g.node(none, g.leaf("")) }, "key is empty",
		},
		"key of 1025 bytes": {
			func(g *grove) repo.CID { return g.node(none, g.leaf(strings.Repeat("k", 1025))) }, "longer than 1024",
		},
		"key of 1025 bytes by prefix": {
			func(g *grove) repo.CID {
				a := strings.Repeat("k", 1000)
				return g.node(none, g.leaf(a), entry{prefix: 1000, suffix: a[:25], value: g.record.cid})
			}, "",
		},
		"same key twice in a node": {
			func(g *grove) repo.CID { return g.node(none, g.leaf(k0[0]), g.after(k0[0], k0[0])) }, "ascending",
		},
		"keys descending in a node": {
			func(g *grove) repo.CID { return g.node(none, g.leaf(k0[1]), g.after(k0[1], k0[0])) }, "ascending",
		},
		"key that is the beginning of the one before": {
			func(g *grove) repo.CID {
				return g.node(none, g.leaf(k0[0]), entry{prefix: int64(len(k0[0]) - 1), value: g.record.cid})
			}, "ascending",
		},
		"left subtree sorts after the first key": {
			func(g *grove) repo.CID { return g.node(g.node(none, g.leaf("x"+k0[0])), g.leaf(k1[0])) }, "",
		},
		"right subtree sorts before its key": {
			func(g *grove) repo.CID {
				e := g.leaf(k1[0])
				e.right = g.node(none, g.leaf(keyBetween(0, "a", "b")))
				return g.node(none, e)
			}, "ascending",
		},
		"right subtree reaches beyond the next key": {
			func(g *grove) repo.CID {
				e := g.leaf(k1[0])
				e.right = g.node(none, g.leaf(keyBetween(0, k1[2], "d")))
				return g.node(none, e, g.after(k1[0], k1[1]))
			}, "ascending",
		},
		"same key in the node and in its subtree": {
			func(g *grove) repo.CID {
				e := g.leaf(k1[0])
				e.right = g.node(none, g.leaf(k1[0]))
				return g.node(none, e)
			}, "ascending",
		},
		"key of layer 1 in a node of layer 0": {
			func(g *grove) repo.CID {
				keys := []string{keysAt(0, 1)[0], keyBetween(1, keysAt(0, 1)[0], "d")}
				return g.node(none, g.leaf(keys[0]), g.after(keys[0], keys[1]))
			}, "layer",
		},
		"subtree two layers below": {
			func(g *grove) repo.CID {
				return g.node(g.node(none, g.leaf(keyBetween(0, "a", "b"))), g.leaf(k2[0]))
			}, "layer",
		},
		"subtree below layer 0": {
			func(g *grove) repo.CID {
				return g.node(g.node(none, g.leaf(keyBetween(0, "a", "b"))), g.leaf(k0[0]))
			}, "below layer 0",
		},
		"empty node as a subtree": {
			func(g *grove) repo.CID { return g.node(g.node(none), g.leaf(k1[0])) }, "neither entries nor a subtree",
		},
		"root that is only a link to the root": {
			func(g *grove) repo.CID { return g.node(g.node(none, g.leaf(k0[0]))) }, "top node",
		},
		"one subtree in two places": {
			func(g *grove) repo.CID {
				sub := g.node(none, g.leaf(keyBetween(0, "a", "b")))
				e := g.leaf(k1[0])
				e.right = sub
				return g.node(sub, e)
			}, "ascending",
		},
		"empty nodes that double at every layer, to no keys": {
			func(g *grove) repo.CID {
				sub := g.node(none)
				for range 30 {
					sub = g.node(sub)
				}
				return g.node(sub, g.leaf(k2[0]))
			}, "",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGrove()
			_, err := g.walk(t, test.build(g))
			if !errors.Is(err, repo.ErrInvalid) || !strings.Contains(err.Error(), test.words) {
				t.Fatalf("error %v, want %q", err, test.words)
			}
		})
	}
}

// TestWalkBomb is a tree in which every node names one subtree many times: a few kilobytes
// that would be 8^12 leaves if a reader followed every link.
func TestWalkBomb(t *testing.T) {
	t.Parallel()
	g := newGrove()
	keys := keysAt(0, 8)
	sub := repo.CID{}
	for range 12 {
		var entries []entry
		prev := ""
		for _, k := range keys {
			e := g.after(prev, k)
			e.right = sub
			entries, prev = append(entries, e), k
		}
		sub = g.node(sub, entries...)
	}
	keysSeen, err := g.walk(t, sub)
	if !errors.Is(err, repo.ErrInvalid) || len(keysSeen) > 100 {
		t.Fatalf("%d keys, %v", len(keysSeen), err)
	}
}

// TestWalkNodeForms changes the bytes of one good node: DAG-CBOR allows a single form.
func TestWalkNodeForms(t *testing.T) {
	t.Parallel()
	g := newGrove()
	keys := keysAt(0, 2)
	good := string(encodeNode(repo.CID{}, g.leaf(keys[0]), g.after(keys[0], keys[1])))
	prefix := good[strings.LastIndex(good, "\x61p"):][:3]
	tests := map[string][2]string{
		"more fields than e and l":     {"\xa2\x61e", "\xa3\x61e"},
		"fewer fields than e and l":    {"\xa2\x61e", "\xa1\x61e"},
		"another name for e":           {"\xa2\x61e", "\xa2\x61f"},
		"another name for l":           {"\x61l\xf6", "\x61m\xf6"},
		"l is undefined":               {"\x61l\xf6", "\x61l\xf7"},
		"l is false":                   {"\x61l\xf6", "\x61l\xf4"},
		"l is absent":                  {"\x61l\xf6", ""},
		"something after l":            {"\x61l\xf6", "\x61l\xf6\x00"},
		"one entry more than there is": {"\x61e\x82", "\x61e\x83"},
		"one entry fewer":              {"\x61e\x82", "\x61e\x81"},
		"2^64-1 entries":               {"\x61e\x82", "\x61e\x9b\xff\xff\xff\xff\xff\xff\xff\xff"},
		"list of indefinite length":    {"\x61e\x82", "\x61e\x9f"},
		"list length in two bytes":     {"\x61e\x82", "\x61e\x98\x02"},
		"entries are a map":            {"\x61e\x82", "\x61e\xa2"},
		"prefix length in two bytes":   {prefix[:2], prefix[:2] + "\x19\x00"},
		"prefix length is a float":     {prefix, "\x61p\xf9\x00\x00"},
		"entry of five fields":         {"\xa4\x61k", "\xa5\x61k"},
		"key is text":                  {"\x61k\x58", "\x61k\x78"},
		"fields t and v swapped":       {"\x61t\xf6\x61v", "\x61v\xf6\x61t"},
		"value is null":                {"\x61v\xd8\x2a", "\x61v\xf6\x2a"},
		"value is tagged otherwise":    {"\x61v\xd8\x2a", "\x61v\xd8\x2b"},
		"value without the zero byte":  {"\x58\x25\x00\x01", "\x58\x25\x01\x01"},
		"value is a raw block":         {"\x01\x71\x12\x20", "\x01\x55\x12\x20"},
		"value has a short digest":     {"\x01\x71\x12\x20", "\x01\x71\x12\x1f"},
	}
	if _, err := g.walk(t, g.raw([]byte(good))); err != nil {
		t.Fatal(err)
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			bad := strings.Replace(good, change[0], change[1], 1)
			if bad == good {
				t.Fatal("nothing to change")
			}
			g := newGrove()
			if _, err := g.walk(t, g.raw([]byte(bad))); !errors.Is(err, repo.ErrInvalid) {
				t.Fatalf("error %v", err)
			}
		})
	}
	for cut := range len(good) {
		g := newGrove()
		if _, err := g.walk(t, g.raw([]byte(good[:cut]))); !errors.Is(err, repo.ErrInvalid) {
			t.Fatalf("node cut at %d: %v", cut, err)
		}
	}
}

// TestWalkMissing leaves out each block in turn, and swaps the root for each of the others.
func TestWalkMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(40, 5)
	all := w.blocks(0)
	for i, b := range all {
		if b.cid != w.commit().cid {
			c := mustRead(t, encodeCAR(w.commit().cid, slices.Delete(slices.Clone(all), i, i+1)), repo.CAROptions{})
			if err := c.Walk(w.data, func(repo.Leaf) error { return nil }); !errors.Is(err, repo.ErrInvalid) {
				t.Fatalf("without block %d: %v", i, err)
			}
		}
		c := mustRead(t, encodeCAR(b.cid, all), repo.CAROptions{})
		n := 0
		err := c.Walk(b.cid, func(repo.Leaf) error { n++; return nil })
		isNode := slices.ContainsFunc(w.nodes, func(n block) bool { return n.cid == b.cid })
		if !isNode && !errors.Is(err, repo.ErrInvalid) {
			t.Fatalf("walk from block %d, no node: %v", i, err)
		}
		if isNode && b.cid != w.data && err == nil && n == len(w.leaves) {
			t.Fatalf("walk from inner node %d gave everything", i)
		}
	}
}

func TestWalkStops(t *testing.T) {
	t.Parallel()
	w := newWorld(40, 5)
	c := mustRead(t, w.car(0), repo.CAROptions{})
	stop := errors.New("stop")
	n := 0
	if err := c.Walk(w.data, func(repo.Leaf) error { n++; return stop }); err != stop || n != 1 {
		t.Fatalf("%v after %d leaves", err, n)
	}
	checkWorld(t, c, w)
}

// TestWalkAfterFailure walks a bad tree twice: the first failure must not count as proof.
func TestWalkAfterFailure(t *testing.T) {
	t.Parallel()
	g := newGrove()
	k := keyBetween(1, keysAt(0, 1)[0], "d")
	bad := g.node(repo.CID{}, g.leaf(keysAt(0, 1)[0]), g.after(keysAt(0, 1)[0], k))
	good := g.node(repo.CID{}, g.leaf(k))
	c := mustRead(t, encodeCAR(bad, g.blocks), repo.CAROptions{})
	for _, root := range []repo.CID{bad, good, bad, good, good, bad} {
		err := c.Walk(root, func(repo.Leaf) error { return nil })
		if (root == good) != (err == nil) {
			t.Fatalf("root good: %v, error %v", root == good, err)
		}
	}
}

// TestWalkInvalidPaths: a key that is no path is legal in a tree.
func TestWalkInvalidPaths(t *testing.T) {
	t.Parallel()
	keys := []string{"\x00", "a", "com.example.a/..", "com.example.a/x", "com.example.a/x/y", "com.example.ab/x", "com.example/x", "\xff\xfe"}
	slices.Sort(keys)
	g := newGrove()
	var leaves []leaf
	for _, k := range keys {
		leaves = append(leaves, leaf{key: k, cid: g.record.cid})
	}
	root, nodes := buildTree(leaves)
	c := mustRead(t, encodeCAR(root, append(nodes, g.record)), repo.CAROptions{})
	var got []string
	err := c.Walk(root, func(l repo.Leaf) error {
		_, _, err := syntax.ParseRepoPath(string(l.Key))
		if l.Valid != (err == nil) {
			t.Errorf("%q: Valid is %v", l.Key, l.Valid)
		}
		got = append(got, string(l.Key))
		return nil
	})
	if err != nil || !slices.Equal(got, keys) {
		t.Fatalf("%q, %v", got, err)
	}
}

// TestTreeBuilder holds the test's own tree builder against indigo's.
func TestTreeBuilder(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 2, 10, 300, 2000} {
		w := newWorld(n, 11)
		tree := mst.NewEmptyTree()
		for _, l := range w.leaves {
			if _, err := tree.Insert([]byte(l.key), indigoCID(t, l.cid)); err != nil {
				t.Fatal(err)
			}
		}
		root, err := tree.RootCID()
		if err != nil || root.String() != w.data.String() {
			t.Fatalf("%d leaves: indigo's root is %v (%v), ours %s", n, root, err, w.data)
		}
	}
}

func indigoCID(t testing.TB, c repo.CID) cid.Cid {
	t.Helper()
	_, out, err := cid.CidFromBytes(c.AppendBytes(nil))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWalkKeyLayers walks one-key trees with the protocol's own list of keys and heights.
func TestWalkKeyLayers(t *testing.T) {
	t.Parallel()
	var heights []struct {
		Key    string
		Height int
	}
	if err := json.Unmarshal(fixture(t, "interop/mst/key_heights.json"), &heights); err != nil {
		t.Fatal(err)
	}
	for _, h := range heights {
		if h.Key == "" {
			continue
		}
		if got := layerOf(h.Key); got != h.Height {
			t.Fatalf("%q: the test's layer is %d, want %d", h.Key, got, h.Height)
		}
		// A chain of empty nodes below the key is legal down to layer 0 and no further.
		low := keyBetween(0, h.Key, h.Key+"~")
		for depth := 1; depth <= h.Height+1; depth++ {
			g := newGrove()
			sub := g.node(repo.CID{}, g.leaf(low))
			for range depth - 1 {
				sub = g.node(sub)
			}
			e := g.leaf(h.Key)
			e.right = sub
			_, err := g.walk(t, g.node(repo.CID{}, e))
			if (err == nil) != (depth == h.Height) {
				t.Errorf("%q of layer %d with a key %d below: %v", h.Key, h.Height, depth, err)
			}
		}
	}
}

// TestWalkCommitProofs walks the trees of the protocol's commit proofs, whose roots are given, with
// each prefix of their changes applied or not.
func TestWalkCommitProofs(t *testing.T) {
	t.Parallel()
	var proofs []struct {
		Comment, LeafValue                string
		Keys, Adds, Dels                  []string
		RootBeforeCommit, RootAfterCommit string
	}
	if err := json.Unmarshal(fixture(t, "interop/firehose/commit-proof-fixtures.json"), &proofs); err != nil {
		t.Fatal(err)
	}
	for _, p := range proofs {
		checkTree(t, p.Comment, p.Keys, p.LeafValue, p.RootBeforeCommit)
		after := slices.DeleteFunc(append(p.Keys, p.Adds...), func(k string) bool { return slices.Contains(p.Dels, k) })
		checkTree(t, p.Comment, after, p.LeafValue, p.RootAfterCommit)
	}
}

// checkTree builds a tree of keys which all have one value, expects its root, and walks it.
func checkTree(t *testing.T, name string, keys []string, value, root string) {
	t.Helper()
	v, err := repo.ParseCID(value)
	if err != nil {
		t.Fatal(err)
	}
	keys = slices.Sorted(slices.Values(keys))
	var leaves []leaf
	for _, k := range keys {
		leaves = append(leaves, leaf{key: k, cid: v})
	}
	data, nodes := buildTree(leaves)
	if tree := rootOf(new(repo.Tree), leaves); data.String() != root || tree != data {
		t.Fatalf("%s: root %s, by Tree %s, want %s", name, data, tree, root)
	}
	// The value's bytes are not given, so that the walk must end at the first record.
	c := mustRead(t, encodeCAR(data, nodes), repo.CAROptions{})
	err = c.Walk(data, func(repo.Leaf) error { return nil })
	if !errors.Is(err, repo.ErrInvalid) || !strings.Contains(err.Error(), keys[0]) {
		t.Fatalf("%s: %v", name, err)
	}
}

// TestWalkExampleKeys walks a tree of the protocol's example keys, up to layer 5.
func TestWalkExampleKeys(t *testing.T) {
	t.Parallel()
	g := newGrove()
	var keys []string
	var leaves []leaf
	for line := range strings.Lines(string(fixture(t, "interop/mst/example_keys.txt"))) {
		keys = append(keys, strings.TrimSpace(line))
	}
	slices.Sort(keys)
	for _, k := range keys {
		leaves = append(leaves, leaf{key: k, cid: g.record.cid})
	}
	root, nodes := buildTree(leaves)
	g.blocks = append(g.blocks, nodes...)
	if got, err := g.walk(t, root); err != nil || !slices.Equal(got, keys) {
		t.Fatalf("%d keys of %d, %v", len(got), len(keys), err)
	}
}

// TestCorpus reads a real repository and compares with what an independent reader listed.
func TestCorpus(t *testing.T) {
	t.Parallel()
	car := fixture(t, "corpus/repo.car")
	var want []string
	for line := range strings.Lines(string(fixture(t, "corpus/car_expected_records.tsv"))) {
		want = append(want, strings.TrimSpace(line))
	}
	slices.Sort(want)
	for name, options := range storages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := mustRead(t, car, options())
			b, ok, err := c.Block(c.Root())
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			commit, err := repo.ParseCommit(b)
			if err != nil {
				t.Fatal(err)
			}
			expected := fixture(t, "corpus/car_expected_commit.txt")
			if !bytes.Contains(expected, []byte("DID: "+commit.DID+"\n")) || !bytes.Contains(expected, []byte("Data CID: "+commit.Data.String()+"\n")) {
				t.Errorf("commit %+v, want %s", commit, expected)
			}
			var got []string
			var tree repo.Tree
			err = c.Walk(commit.Data, func(l repo.Leaf) error {
				tree.Add(l.Key, l.CID)
				if !l.Valid {
					t.Errorf("key %q", l.Key)
				}
				got = append(got, string(l.Key)+"\t"+l.CID.String())
				return nil
			})
			slices.Sort(got)
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("%d records, want %d: %v", len(got), len(want), err)
			}
			if root := tree.Root(); root != commit.Data {
				t.Errorf("the records make the root %s", root)
			}
		})
	}
}
