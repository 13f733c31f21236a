package export_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cistern/api/export"
	"cistern/ingest/repo"
	"cistern/store/storetest"

	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/google/go-cmp/cmp"
)

// outlineSizes are bounds of outlines, from only a root to everything.
var outlineSizes = []int{1, 500, 5_000, 1 << 20}

var errAbsent = errors.New("a block is absent")

// verifier reads a part of a repository from its blocks alone.
type verifier struct {
	blocks  map[repo.CID][]byte
	lower   string
	upper   string // "": no bound
	records storetest.Records
	nodes   []repo.CID // in the order in which they were needed
}

func newVerifier(blocks []block) *verifier {
	v := &verifier{blocks: map[repo.CID][]byte{}, records: storetest.Records{}}
	for _, b := range blocks {
		v.blocks[b.id] = b.data
	}
	return v
}

// read reads all records of the range below a node whose keys are between lo and hi. It looks into
// every subtree that could have one, whatever its layer.
func (v *verifier) read(id repo.CID, lo, hi string) error {
	data, ok := v.blocks[id]
	if !ok {
		return errAbsent
	}
	v.nodes = append(v.nodes, id)
	var n repo.TreeNode
	if err := n.Parse(data); err != nil {
		return err
	}
	child, before := n.Left, lo
	for i := range len(n.Entries) + 1 {
		after := hi
		if i < len(n.Entries) {
			after = string(n.Entries[i].Key)
		}
		// The first key behind before is before and a zero byte.
		inside := (v.upper == "" || before+"\x00" < v.upper) && (after == "" || v.lower < after)
		if child.Defined() && inside {
			if err := v.read(child, before, after); err != nil {
				return err
			}
		}
		if i == len(n.Entries) {
			return nil
		}
		e := &n.Entries[i]
		if after >= v.lower && (v.upper == "" || after < v.upper) {
			if v.records[after], ok = v.blocks[e.Value]; !ok {
				return errAbsent
			}
		}
		child, before = e.Right, after
	}
	return nil
}

// verify reads the records with keys from lower on and below upper.
func verify(t testing.TB, blocks []block, lower, upper string) (*verifier, error) {
	t.Helper()
	commit, err := repo.ParseCommit(blocks[0].data)
	if err != nil {
		t.Fatal(err)
	}
	v := newVerifier(blocks)
	v.lower, v.upper = lower, upper
	return v, v.read(commit.Data, "", "")
}

// checkPart checks that a CAR has exactly what proves a range, and that no block is superfluous.
func checkPart(t testing.TB, blocks []block, lower, upper string, m storetest.Records) {
	t.Helper()
	v, err := verify(t, blocks, lower, upper)
	if err != nil {
		t.Fatal(err)
	}
	want := storetest.Records{}
	for path, body := range m {
		if path >= lower && (upper == "" || path < upper) {
			want[path] = body
		}
	}
	if diff := cmp.Diff(want, v.records); diff != "" {
		t.Fatal(diff)
	}
	if n := 1 + len(v.nodes) + len(v.records); len(blocks) != n {
		t.Fatalf("%d blocks, want %d", len(blocks), n)
	}
	nodes := slices.DeleteFunc(slices.Clone(blocks[1:]), func(b block) bool {
		return !slices.Contains(v.nodes, b.id)
	})
	for i := range nodes {
		if nodes[i].id != v.nodes[i] {
			t.Fatalf("node %d is not in pre-order", i)
		}
	}
	for i := range blocks[1:] {
		id := blocks[i+1].id
		rest := slices.DeleteFunc(slices.Clone(blocks), func(b block) bool { return b.id == id })
		if _, err := verify(t, rest, lower, upper); !errors.Is(err, errAbsent) {
			t.Fatalf("without block %d of %d: %v", i+1, len(blocks), err)
		}
	}
}

// TestProof proves records and their absence.
func TestProof(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rng := rand.New(rand.NewPCG(seed, 1))
			m := storetest.Random(rng, []int{0, 1, 30, 400}[seed%4])
			w.hold(t, alice, m)
			paths := []string{"app.test.c0/2", "app.test.zz/zz", "a.b.c/d", "zz.test.x/y"}
			for _, p := range m.Paths() {
				if repo.ValidPath([]byte(p)) {
					paths = append(paths, p, p+"x", p[:len(p)-1])
				}
			}
			for _, bytes := range outlineSizes {
				w.newExporter(t)
				w.e.SetOutlineBytes(bytes)
				for range 30 {
					checkProof(t, w, m, paths[rng.IntN(len(paths))])
				}
			}
		})
	}
}

func checkProof(t *testing.T, w *world, m storetest.Records, path string) {
	t.Helper()
	car, err := w.export(t, alice, record(path), "")
	if err != nil {
		t.Fatal(err)
	}
	_, blocks := readCAR(t, car)
	checkPart(t, blocks, path, path+"\x00", m)
	var want repo.CID // zero: absent
	if body, ok := m[path]; ok {
		want = repo.HashCID(body)
	}
	var s repo.Slice
	if err := s.Read(car); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Find(m.Root(), []byte(path)); err != nil || got != want {
		t.Fatalf("package repo finds %s at %s, want %s: %v", got, path, want, err)
	}
	_, r, err := indigo.LoadRepoFromCAR(t.Context(), bytes.NewReader(car))
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.MST.Get([]byte(path))
	if err != nil || (got != nil) != want.Defined() || got != nil && got.String() != want.String() {
		t.Fatalf("indigo finds %v at %s, want %s: %v", got, path, want, err)
	}
}

// TestPrefix proves that ranges are complete.
func TestPrefix(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rng := rand.New(rand.NewPCG(seed, 2))
			m := storetest.Random(rng, []int{0, 1, 30, 300}[seed%4])
			w.hold(t, alice, m)
			for _, bytes := range outlineSizes {
				w.newExporter(t)
				w.e.SetOutlineBytes(bytes)
				for _, c := range []string{"app.test.c0", "app.test.c3", "app.test", "a.b.c", "zz.test.x"} {
					rkeys := ""
					if paths := m.Paths(); len(paths) > 0 && rng.IntN(2) == 0 {
						_, rkeys, _ = strings.Cut(paths[rng.IntN(len(paths))], "/")
						rkeys = rkeys[:min(len(rkeys), 3+rng.IntN(8))]
					}
					blocks := w.mustExport(t, alice, export.Prefix(c, rkeys), "")
					lower := c + "/" + rkeys
					upper := lower[:len(lower)-1] + string(lower[len(lower)-1]+1)
					checkPart(t, blocks, lower, upper, m)
					checkPartial(t, blocks, lower, upper, m)
				}
			}
		})
	}
}

// checkPartial has the reader of parts in package repo find all of a range.
func checkPartial(t *testing.T, blocks []block, lower, upper string, m storetest.Records) {
	t.Helper()
	p := repo.NewPartial(repo.PartialOptions{
		Wanted: []repo.Range{{Lower: []byte(lower), Upper: []byte(upper)}},
	})
	p.Plant(m.Root())
	has := newVerifier(blocks).blocks
	for {
		missing, err := p.Missing(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(missing) == 0 {
			break
		}
		for _, id := range missing {
			if err := p.Insert(id, has[id]); err != nil {
				t.Fatalf("%s is not in the CAR: %v", id, err)
			}
		}
	}
	n := 0
	err := p.Walk(m.Root(), func(l repo.Leaf) error { n++; return nil })
	for path := range maps.Keys(m) {
		if path >= lower && path < upper {
			n--
		}
	}
	if err != nil || n != 0 {
		t.Fatalf("%d records more than there are: %v", n, err)
	}
}
