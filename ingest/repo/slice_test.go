package repo_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"cistern/ingest/repo"
)

// records is what a tree holds.
type records map[string]repo.CID

func (r records) leaves() []leaf {
	var all []leaf
	for _, k := range slices.Sorted(maps.Keys(r)) {
		all = append(all, leaf{key: k, cid: r[k]})
	}
	return all
}

func (r records) tree() (repo.CID, []block) { return buildTree(r.leaves()) }

// change is what one commit does.
type change struct {
	before, after records
	ops           []repo.SliceOp
}

// covering are the nodes that prove the operations: those in whose range a path is, its ends included.
func (c *change) covering(nodes []block) []block {
	return slices.DeleteFunc(slices.Clone(nodes), func(b block) bool {
		return !slices.ContainsFunc(c.ops, func(op repo.SliceOp) bool {
			return b.lo <= string(op.Path) && (b.hi == "" || string(op.Path) <= b.hi)
		})
	})
}

func readSlice(t testing.TB, s *repo.Slice, blocks []block) {
	t.Helper()
	if err := s.Read(encodeCAR(repo.HashCID(nil), blocks)); err != nil {
		t.Fatal(err)
	}
}

// keyMaker draws keys of all shapes: of the protocol and not, and of layers that chance would hardly give.
type keyMaker struct {
	*rand.Rand
	high []string
}

func newKeyMaker(seed uint64) *keyMaker {
	m := &keyMaker{Rand: rand.New(rand.NewPCG(seed, 9))}
	for i := 0; len(m.high) < 40; i++ {
		k := fmt.Sprintf("app.bsky.feed.post/%d-%d", seed, i)
		if layerOf(k) >= 2+len(m.high)/12 {
			m.high = append(m.high, k)
		}
	}
	return m
}

func (m *keyMaker) key() string {
	switch m.IntN(8) {
	case 0:
		return m.high[m.IntN(len(m.high))]
	case 1:
		return string([]byte{byte(m.IntN(256))})
	case 2:
		return strings.Repeat("long", 255) + fmt.Sprintf("%04d", m.IntN(300))
	case 3:
		return string([]byte{0, byte(m.IntN(3)), 0xff, byte(m.IntN(256))}[:1+m.IntN(4)])
	}
	return fmt.Sprintf("%s/3l%06d", worldCollections[m.IntN(4)], m.IntN(600))
}

// recordBlocks are what keys may name.
func recordBlocks() []block {
	var all []block
	for i := range 100 {
		all = append(all, recordBlock(i))
	}
	return all
}

func recordBlock(i int) block { return newBlock(cborText(nil, fmt.Sprint("record ", i))) }

func (m *keyMaker) cid() repo.CID { return recordBlock(m.IntN(100)).cid }

// change draws what a repository held, and up to n operations on it.
func (m *keyMaker) change(size, n int) *change {
	c := &change{before: records{}, after: records{}}
	for range size {
		c.before[m.key()] = m.cid()
	}
	maps.Copy(c.after, c.before)
	held := slices.Sorted(maps.Keys(c.before))
	m.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	everything := m.IntN(10) == 0 // deleted
	for len(c.ops) < n || everything && len(held) > 0 {
		op := repo.SliceOp{CID: m.cid()}
		key := m.key()
		if len(held) > 0 && (everything || m.IntN(2) == 0) {
			key, held = held[0], held[1:]
			if op.Prev = c.before[key]; everything || m.IntN(2) == 0 {
				op.CID = repo.CID{}
			}
			for op.CID == op.Prev {
				op.CID = m.cid()
			}
		} else if _, taken := c.before[key]; taken || c.after[key].Defined() {
			n--
			continue
		}
		op.Path = []byte(key)
		c.ops = append(c.ops, op)
		if c.after[key] = op.CID; !op.CID.Defined() {
			delete(c.after, key)
		}
	}
	m.Shuffle(len(c.ops), func(i, j int) { c.ops[i], c.ops[j] = c.ops[j], c.ops[i] })
	return c
}

func sizes(seed uint64) (size, ops int) {
	return []int{0, 1, 3, 30, 300, 900}[seed%6], []int{0, 1, 1, 2, 5, 40, 200}[seed%7]
}

func seeds(t testing.TB) uint64 {
	if testing.Short() {
		return 200
	}
	return 600
}

// TestInvert takes back random commits, given the covering proof only and given all nodes.
func TestInvert(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	var s repo.Slice
	for seed := range seeds(t) {
		size, n := sizes(seed)
		c := newKeyMaker(seed).change(size, n)
		want, _ := c.before.tree()
		data, nodes := c.after.tree()
		for _, blocks := range [][]block{c.covering(nodes), nodes, slices.Concat(nodes, nodes)} {
			if len(c.ops) == 0 {
				blocks = nodes
			}
			readSlice(t, &s, blocks)
			for range 2 { // taking back changes nothing for the next
				got, err := s.Invert(data, c.ops)
				if err != nil || got != want {
					t.Fatalf("seed %d: %d ops on %d: root %s, want %s: %v", seed, len(c.ops), len(c.before), got, want, err)
				}
			}
			for _, op := range c.ops {
				if got, err := s.Find(data, op.Path); err != nil || got != op.CID {
					t.Fatalf("seed %d: find %q: %s, want %s: %v", seed, op.Path, got, op.CID, err)
				}
			}
		}
	}
}

// TestInvertMissing leaves nodes out: the answer is the right one or ErrProof. One answer more is
// possible, a chain of nodes without entries of which not even the first is there.
func TestInvertMissing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	var s repo.Slice
	proofs, chains := 0, 0
	for seed := range seeds(t) {
		m := newKeyMaker(seed)
		c := m.change(sizes(seed))
		want, _ := c.before.tree()
		data, nodes := c.after.tree()
		part := slices.DeleteFunc(c.covering(nodes), func(block) bool { return m.IntN(6) == 0 })
		readSlice(t, &s, part)
		got, err := s.Invert(data, c.ops)
		switch missing := !slices.ContainsFunc(part, func(b block) bool { return b.cid == got }); {
		case errors.Is(err, repo.ErrProof) && errors.Is(err, repo.ErrInvalid):
			proofs++
		case err != nil:
			t.Fatalf("seed %d: %v", seed, err)
		case got != want && missing && slices.ContainsFunc(nodes, func(b block) bool {
			return b.cid == got && bytes.HasPrefix(b.data, []byte("\xa2\x61e\x80"))
		}):
			chains++
		case got != want:
			t.Fatalf("seed %d: root %s, want %s", seed, got, want)
		}
	}
	if proofs == 0 {
		t.Fatal("no node was ever missed")
	}
	t.Logf("%d times ErrProof, %d times a chain", proofs, chains)
}

// TestInvertLies changes one operation of a good commit.
func TestInvertLies(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	var s repo.Slice
	other := repo.HashCID([]byte("other"))
	for seed := range seeds(t) {
		m := newKeyMaker(seed)
		size, n := sizes(seed)
		c := m.change(size, n+1)
		if len(c.ops) == 0 {
			continue
		}
		before, _ := c.before.tree()
		data, nodes := c.after.tree()
		readSlice(t, &s, nodes)
		op := &c.ops[m.IntN(len(c.ops))]
		denied := true
		lie := m.IntN(4)
		switch {
		case lie == 0: // wrote something else, or anything at all
			op.CID = other
		case lie == 1 && op.CID.Defined(): // deleted what is there
			op.CID, op.Prev = repo.CID{}, other
		case lie == 2: // another key
			op.Path = []byte("no/such-key")
			denied = op.CID.Defined()
		default: // another predecessor
			op.Prev, denied = other, false
		}
		got, err := s.Invert(data, c.ops)
		if denied && (!errors.Is(err, repo.ErrInvalid) || errors.Is(err, repo.ErrProof)) {
			t.Fatalf("seed %d: lie %d, %v", seed, lie, err)
		}
		if !denied && (err != nil || got == before) {
			t.Fatalf("seed %d: lie %d: root %s, the true one %s: %v", seed, lie, got, before, err)
		}
	}
}

// TestInvertNothing takes back what was neither there nor is.
func TestInvertNothing(t *testing.T) {
	t.Parallel()
	var s repo.Slice
	c := newKeyMaker(1).change(30, 0)
	data, nodes := c.after.tree()
	readSlice(t, &s, nodes)
	for path, want := range map[string]error{
		"no/such-key":                      nil,
		"":                                 repo.ErrInvalid,
		strings.Repeat("k", 1025):          repo.ErrInvalid,
		string(c.after.leaves()[3].key):    repo.ErrInvalid,
		strings.Repeat("k", 1024):          nil,
		string(c.after.leaves()[29%3].key): repo.ErrInvalid,
	} {
		got, err := s.Invert(data, []repo.SliceOp{{Path: []byte(path)}})
		if !errors.Is(err, want) || want == nil && got != data {
			t.Errorf("%.20q: %s, %v", path, got, err)
		}
	}
	for _, ops := range [][]repo.SliceOp{nil, {{Path: []byte("a/b"), CID: data}}} {
		if _, err := s.Invert(repo.HashCID([]byte("elsewhere")), ops); !errors.Is(err, repo.ErrProof) {
			t.Errorf("a tree that is not there: %v", err)
		}
	}
	if _, err := s.Find(repo.CID{}, []byte("a/b")); !errors.Is(err, repo.ErrProof) {
		t.Errorf("no tree at all: %v", err)
	}
}

// TestSliceReadAgain: the second message does not find nodes of the first, although it reuses the
// memory.
func TestSliceReadAgain(t *testing.T) {
	t.Parallel()
	c := newKeyMaker(2).change(40, 3)
	data, nodes := c.after.tree()
	var s repo.Slice
	for _, use := range []func() error{
		func() error { _, err := s.Find(data, c.ops[0].Path); return err },
		func() error { _, err := s.Invert(data, c.ops); return err },
	} {
		car := encodeCAR(data, nodes)
		if err := s.Read(car); err != nil || use() != nil {
			t.Fatal(err, use())
		}
		clear(car)
		readSlice(t, &s, recordBlocks())
		if err := use(); !errors.Is(err, repo.ErrProof) {
			t.Fatalf("with nodes of the message before: %v", err)
		}
		if _, ok := s.Block(data); ok {
			t.Fatal("a block of the message before")
		}
	}
}

// TestInvertInterop has the commits that the protocol's authors chose, with their proofs.
func TestInvertInterop(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/commit-proof-fixtures.json")
	if err != nil {
		t.Fatal(err)
	}
	var fixtures []struct {
		Comment, LeafValue                string
		Keys, Adds, Dels                  []string
		RootBeforeCommit, RootAfterCommit string
		BlocksInProof                     []string
	}
	if err := json.Unmarshal(b, &fixtures); err != nil || len(fixtures) != 6 {
		t.Fatal(len(fixtures), err)
	}
	for _, f := range fixtures {
		value, err := repo.ParseCID(f.LeafValue)
		if err != nil {
			t.Fatal(err)
		}
		c := &change{before: records{}}
		for _, k := range f.Keys {
			c.before[k] = value
		}
		c.after = maps.Clone(c.before)
		for _, k := range f.Adds {
			c.after[k] = value
			c.ops = append(c.ops, repo.SliceOp{Path: []byte(k), CID: value})
		}
		for _, k := range f.Dels {
			delete(c.after, k)
			c.ops = append(c.ops, repo.SliceOp{Path: []byte(k), Prev: value})
		}
		data, nodes := c.after.tree()
		proof := slices.DeleteFunc(nodes, func(b block) bool { return !slices.Contains(f.BlocksInProof, b.cid.String()) })
		if data.String() != f.RootAfterCommit || len(proof) != len(f.BlocksInProof) {
			t.Fatalf("%s: root %s, %d blocks", f.Comment, data, len(proof))
		}
		var s repo.Slice
		readSlice(t, &s, proof)
		if got, err := s.Invert(data, c.ops); err != nil || got.String() != f.RootBeforeCommit {
			t.Errorf("%s: root %s, want %s: %v", f.Comment, got, f.RootBeforeCommit, err)
		}
	}
}
