package repo_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"cistern/ingest/repo"
)

// everyKey is the range of all keys.
var everyKey = []repo.Range{{Lower: []byte{}, Upper: bytes.Repeat([]byte{0xff}, 1025)}}

// gather inserts what a part asks for until nothing is missing, and returns the blocks asked for, in rounds.
func gather(p *repo.Partial, data repo.CID, block func(repo.CID) ([]byte, bool)) (rounds [][]repo.CID, err error) {
	p.Plant(data)
	for {
		missing, err := p.Missing(nil)
		if err != nil || len(missing) == 0 {
			return rounds, err
		}
		rounds = append(rounds, missing)
		for _, id := range missing {
			b, ok := block(id)
			if !ok {
				return rounds, fmt.Errorf("%s is unavailable: %w", id, repo.ErrInvalid)
			}
			if err := p.Insert(id, b); err != nil {
				return rounds, err
			}
		}
	}
}

func partLeaves(p *repo.Partial, data repo.CID) (leaves []leaf, err error) {
	err = p.Walk(data, func(l repo.Leaf) error {
		if repo.HashCID(l.Record) != l.CID || l.Block < 0 || l.Block >= p.Blocks() || l.Valid != repo.ValidPath(l.Key) {
			return fmt.Errorf("leaf %q is not right: block %d of %d", l.Key, l.Block, p.Blocks())
		}
		leaves = append(leaves, leaf{key: string(l.Key), cid: l.CID})
		return nil
	})
	return leaves, err
}

// blockMap finds blocks by their CIDs.
func blockMap(blocks []block) func(repo.CID) ([]byte, bool) {
	m := map[repo.CID][]byte{}
	for _, b := range blocks {
		m[b.cid] = b.data
	}
	return func(id repo.CID) ([]byte, bool) { b, ok := m[id]; return b, ok }
}

// agreePart holds a part of all keys against the whole walk of the same blocks.
func agreePart(t testing.TB, data repo.CID, block func(repo.CID) ([]byte, bool), want []string, wantErr error) {
	t.Helper()
	p := repo.NewPartial(repo.PartialOptions{Wanted: everyKey})
	_, err := gather(p, data, block)
	var got []string
	if err == nil {
		var leaves []leaf
		leaves, err = partLeaves(p, data)
		for _, l := range leaves {
			got = append(got, l.key)
		}
	}
	if err != nil && !errors.Is(err, repo.ErrInvalid) {
		t.Fatalf("the part is not ErrInvalid: %v", err)
	}
	if (err == nil) != (wantErr == nil) || err == nil && !slices.Equal(got, want) {
		t.Fatalf("the part has %q, %v; the walk %q, %v", got, err, want, wantErr)
	}
}

func within(ranges []repo.Range, key string) bool {
	return slices.ContainsFunc(ranges, func(r repo.Range) bool { return string(r.Lower) <= key && key < string(r.Upper) })
}

// randomRanges draws ranges between keys of the world, and of whole collections.
func randomRanges(r *rand.Rand, w *world) []repo.Range {
	var cuts []string
	for range 2 * (1 + r.IntN(3)) {
		switch r.IntN(4) {
		case 0:
			cuts = append(cuts, worldCollections[r.IntN(4)]+"/", worldCollections[r.IntN(4)]+"0")
		case 1:
			cuts = append(cuts, "app.bsky.", "zzz")
		default:
			cuts = append(cuts, w.leaves[r.IntN(len(w.leaves))].key, w.leaves[r.IntN(len(w.leaves))].key+"\x00")
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var ranges []repo.Range
	for i := 0; i+1 < len(cuts); i += 2 {
		ranges = append(ranges, repo.Range{Lower: []byte(cuts[i]), Upper: []byte(cuts[i+1])})
	}
	return ranges
}

func TestPartialIsWalkOfRanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(1+r.IntN(900), seed)
		ranges := randomRanges(r, w)
		block := blockMap(w.blocks(0))
		p := repo.NewPartial(repo.PartialOptions{Wanted: ranges})
		rounds, err := gather(p, w.data, block)
		if err != nil {
			t.Fatal(err)
		}
		got, err := partLeaves(p, w.data)
		if err != nil {
			t.Fatal(err)
		}
		var want []leaf
		for _, l := range w.leaves {
			if within(ranges, l.key) {
				want = append(want, leaf{key: l.key, cid: l.cid})
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%d leaves of %d in ranges %q", len(got), len(want), ranges)
		}
		asked(t, w, ranges, rounds)
	}
}

// asked checks that no block was asked for twice, and no node without keys in the ranges.
func asked(t *testing.T, w *world, ranges []repo.Range, rounds [][]repo.CID) {
	t.Helper()
	all := slices.Concat(rounds...)
	seen := map[repo.CID]bool{}
	for _, id := range all {
		if seen[id] {
			t.Fatalf("%s was asked for twice", id)
		}
		seen[id] = true
	}
	for i, n := range w.nodes {
		needed := slices.ContainsFunc(ranges, func(r repo.Range) bool {
			return (n.lo == "" || n.lo < string(r.Upper)) && (n.hi == "" || string(r.Lower) < n.hi)
		})
		if root := i == len(w.nodes)-1; seen[n.cid] != (needed || root) {
			t.Fatalf("node between %q and %q: asked for %v, needed for %q: %v", n.lo, n.hi, seen[n.cid], ranges, needed)
		}
	}
}

func TestPartialSamples(t *testing.T) {
	t.Parallel()
	w := newWorld(3000, 7)
	block := blockMap(w.blocks(0))
	of := func(collection string) []repo.Range {
		return []repo.Range{{Lower: []byte(collection + "/"), Upper: []byte(collection + "0")}}
	}
	for sample, want := range map[string]bool{"app.bsky.feed.post": true, "com.example.nothing": false} {
		p := repo.NewPartial(repo.PartialOptions{Wanted: of("com.example.none"), Sample: of(sample)})
		rounds, err := gather(p, w.data, block)
		if err != nil || p.Sampled() != want {
			t.Fatalf("%s: sampled %v, want %v, %v", sample, p.Sampled(), want, err)
		}
		if leaves, err := partLeaves(p, w.data); err != nil || len(leaves) != 0 {
			t.Fatalf("%d leaves, %v", len(leaves), err)
		}
		if n := len(slices.Concat(rounds...)); n > 15 {
			t.Errorf("%s: a sample of %d nodes took %d blocks", sample, len(w.nodes), n)
		}
	}
}

// TestPartialOtherRoot: blocks of an older root are not asked for again.
func TestPartialOtherRoot(t *testing.T) {
	t.Parallel()
	w := newWorld(2000, 3)
	p := repo.NewPartial(repo.PartialOptions{Wanted: everyKey})
	first, err := gather(p, w.data, blockMap(w.blocks(0)))
	if err != nil {
		t.Fatal(err)
	}
	w.leaves = slices.Delete(w.leaves, 900, 901)
	w.data, w.nodes = buildTree(w.leaves)
	second, err := gather(p, w.data, blockMap(w.blocks(0)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := partLeaves(p, w.data)
	if err != nil || len(got) != len(w.leaves) {
		t.Fatalf("%d leaves of %d, %v", len(got), len(w.leaves), err)
	}
	if a, b := len(slices.Concat(first...)), len(slices.Concat(second...)); b > 20 {
		t.Errorf("first %d blocks, then %d more for one delete", a, b)
	}
}

// TestPartialSkips: records that the caller has are not asked for, and their leaves come without them.
func TestPartialSkips(t *testing.T) {
	t.Parallel()
	w := newWorld(400, 9)
	block := blockMap(w.blocks(0))
	p := repo.NewPartial(repo.PartialOptions{Wanted: everyKey})
	p.Plant(w.data)
	for !p.Mapped() {
		missing, err := p.Missing(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range missing {
			if b, _ := block(id); !p.Mapped() {
				if err := p.Insert(id, b); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	i := 0
	p.Skip(func(key []byte, id repo.CID) bool {
		if l := w.leaves[i]; string(key) != l.key || id != l.cid {
			t.Fatalf("leaf %d is %q, not %q", i, key, l.key)
		}
		i++
		return i != 7
	})
	missing, err := p.Missing(nil)
	if err != nil || i != len(w.leaves) || !slices.Equal(missing, []repo.CID{w.leaves[6].cid}) {
		t.Fatalf("missing %v, %v after %d leaves", missing, err, i)
	}
	b, _ := block(missing[0])
	if err := p.Insert(missing[0], b); err != nil {
		t.Fatal(err)
	}
	err = p.Walk(w.data, func(l repo.Leaf) error {
		if (len(l.Record) > 0) != (l.CID == w.leaves[6].cid) {
			t.Errorf("leaf %q comes with %d bytes", l.Key, len(l.Record))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestPartialRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(500, 5)
	block := blockMap(w.blocks(0))
	p := repo.NewPartial(repo.PartialOptions{Wanted: everyKey})
	if err := p.Insert(w.data, []byte("another")); !errors.Is(err, repo.ErrInvalid) {
		t.Errorf("a block under another's CID: %v", err)
	}
	if err := p.Insert(w.data, make([]byte, 3<<20)); !errors.Is(err, repo.ErrInvalid) {
		t.Errorf("a block of 3 MiB: %v", err)
	}
	p.Plant(w.data)
	if err := p.Walk(w.data, func(repo.Leaf) error { return nil }); !errors.Is(err, repo.ErrInvalid) {
		t.Errorf("a walk of what is missing: %v", err)
	}
	_, err := gather(repo.NewPartial(repo.PartialOptions{Wanted: everyKey, BytesMax: 50_000}), w.data, block)
	if !errors.Is(err, repo.ErrPartialBytes) || errors.Is(err, repo.ErrInvalid) {
		t.Errorf("a part of more bytes than allowed: %v", err)
	}
	granted := int64(0)
	grow := func(n int64) bool { granted += n; return granted <= 100_000 }
	_, err = gather(repo.NewPartial(repo.PartialOptions{Wanted: everyKey, Grow: grow}), w.data, block)
	if !errors.Is(err, repo.ErrPartialBytes) {
		t.Errorf("a part that may not grow: %v", err)
	}
}

// TestPartialHostile: what is wrong on the way to the ranges is refused, as Walk refuses it. Trees that are wrong in one
// respect each are held against Walk by grove.walk.
func TestPartialHostile(t *testing.T) {
	t.Parallel()
	k0, k1 := keysAt(0, 9), keysAt(1, 2)
	none := repo.CID{}
	deep := func(g *grove) repo.CID {
		n := g.node(none, g.leaf(k0[0]))
		for range 40 {
			n = g.node(n)
		}
		return n
	}
	tests := map[string]func(g *grove) repo.CID{
		"a key of another's subtree": func(g *grove) repo.CID {
			e := g.leaf(k1[0])
			e.right = g.node(none, g.leaf("a")) // wrong layer or out of bounds
			return g.node(none, e)
		},
		"the same subtree twice": func(g *grove) repo.CID {
			low := g.node(none, g.leaf(keyBetween(0, k1[0], k1[1])))
			a, b := g.leaf(k1[0]), g.after(k1[0], k1[1])
			a.right, b.right = low, low
			return g.node(none, a, b)
		},
		"nodes without entries to the ground": func(g *grove) repo.CID {
			e := g.leaf(k1[0])
			e.right = deep(g)
			return g.node(none, e)
		},
		"a root without entries": deep,
	}
	for name, build := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGrove()
			if keys, err := g.walk(t, build(g)); err == nil {
				t.Fatalf("accepted: %q", keys)
			}
		})
	}
}

// TestPartialCounts: nodes are read no more often than there are blocks, lest one that stands in thousands of gaps be; of
// another root they are counted anew.
func TestPartialCounts(t *testing.T) {
	t.Parallel()
	g, keys := newGrove(), keysAt(2, 5)
	low := g.node(repo.HashCID([]byte("never sent")))
	first := g.leaf(keys[0])
	first.right = low
	entries := []entry{first}
	for i := range keys[1:] {
		e := g.after(keys[i], keys[i+1])
		e.right = low
		entries = append(entries, e)
	}
	p := repo.NewPartial(repo.PartialOptions{Wanted: everyKey})
	if rounds, err := gather(p, g.node(repo.CID{}, entries...), blockMap(g.blocks)); !errors.Is(err, repo.ErrInvalid) || len(rounds) != 2 {
		t.Errorf("one node in five gaps: %v after %d rounds", err, len(rounds))
	}
	w := newWorld(400, 9)
	p = repo.NewPartial(repo.PartialOptions{Wanted: []repo.Range{{Lower: []byte("app.bsky.feed.like/"), Upper: []byte("app.bsky.feed.like/")}}})
	for range 3 {
		if _, err := gather(p, w.data, blockMap(w.blocks(0))); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzPartial takes changes to the nodes of a good repository, as FuzzWalk, and a range.
func FuzzPartial(f *testing.F) {
	f.Add([]byte{0}, []byte{}, []byte{0xff})
	f.Add([]byte{2, 0, 5, 0x18, 3, 0, 5, 0}, []byte("app.bsky.feed.like/"), []byte("app.bsky.feed.post/3l0"))
	f.Add([]byte{5, 1, 1, 2, 4, 3, 2, 1}, []byte("app.bsky.feed.post/"), []byte("app.bsky.feed.post0"))
	worlds := changeable()
	f.Fuzz(func(t *testing.T, changes, lower, upper []byte) {
		w := changed(worlds, changes)
		if w == nil {
			return
		}
		c := mustRead(t, w.car(0), repo.CAROptions{})
		_, whole, wholeErr := walkAll(c)
		block := blockMap(w.blocks(0))
		var keys []string
		for _, l := range whole {
			keys = append(keys, l.key)
		}
		agreePart(t, w.data, block, keys, wholeErr)
		ranges := []repo.Range{{Lower: lower, Upper: upper}}
		p := repo.NewPartial(repo.PartialOptions{Wanted: ranges, Sample: everyKey})
		_, err := gather(p, w.data, block)
		var part []leaf
		if err == nil {
			part, err = partLeaves(p, w.data)
		}
		if err != nil && (wholeErr == nil || !errors.Is(err, repo.ErrInvalid)) {
			t.Fatalf("the whole: %v; the part: %v", wholeErr, err)
		}
		want := slices.DeleteFunc(whole, func(l leaf) bool { return !within(ranges, l.key) })
		if wholeErr == nil && !slices.Equal(part, want) {
			t.Fatalf("%d leaves, the walk has %d in the range", len(part), len(want))
		}
	})
}
