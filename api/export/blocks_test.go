package export_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cistern/api/export"
	"cistern/ingest/repo"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// blocks returns the CAR of blocks.
func (w *world) blocks(t testing.TB, did string, want []repo.CID) ([]byte, error) {
	t.Helper()
	v := w.view(t, did)
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	b, err := w.e.Find(t.Context(), v, want)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = b.Write(t.Context(), &out)
	return out.Bytes(), err
}

// TestBlocks finds all blocks of repositories, whether or not the tree is known.
func TestBlocks(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(10) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rng := rand.New(rand.NewPCG(seed, 3))
			w.hold(t, alice, storetest.Random(rng, []int{0, 1, 30, 300}[seed%4]))
			all := w.mustExport(t, alice, export.Part{}, "")
			for _, size := range outlineSizes {
				w.newExporter(t)
				w.e.SetOutlineBytes(size)
				for range 20 {
					checkBlocks(t, w, rng, all)
				}
			}
		})
	}
}

// checkBlocks asks for some blocks, some of them twice, and some that the repository does not have.
func checkBlocks(t *testing.T, w *world, rng *rand.Rand, all []block) {
	t.Helper()
	var want []repo.CID
	for range 1 + rng.IntN(5) {
		want = append(want, all[rng.IntN(len(all))].id)
	}
	car, err := w.blocks(t, alice, want)
	if err != nil {
		t.Fatal(err)
	}
	header, blocks := readCAR(t, car)
	if string(header) != "\xa2\x65roots\x80\x67version\x01" {
		t.Errorf("header %q", header)
	}
	var unique []repo.CID
	for _, id := range want {
		if !slices.Contains(unique, id) {
			unique = append(unique, id)
		}
	}
	var got []repo.CID
	for _, b := range blocks {
		got = append(got, b.id)
	}
	if diff := cmp.Diff(unique, got); diff != "" {
		t.Fatal(diff)
	}
	absent := []repo.CID{repo.HashCID([]byte("one")), repo.HashCID([]byte("two"))}
	var missing *export.MissingError
	_, err = w.blocks(t, alice, append(absent, want...))
	if !errors.As(err, &missing) || !slices.Equal(missing.CIDs, absent) {
		t.Fatalf("missing %v", err)
	}
}

// TestWide exports a tree with nodes of nearly the largest size, which no outline holds but one at a
// time, and refuses to hold many of them at a time.
func TestWide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := storetest.Records{}
	// Keys that share nothing are written out in full. Those of layer 0 between two others are one
	// node.
	n := 0
	for i := 0; n < 7; i++ {
		key := fmt.Sprintf("%08d%s", i, strings.Repeat("k", 900))
		layer := sha256.Sum256([]byte(key))[0] < 0x40
		switch {
		case !layer && len(m)%1501 < 1500:
		case layer && len(m)%1501 == 1500:
			n++
		default:
			continue
		}
		m[key] = storetest.Text(fmt.Sprint(i % 10))
	}
	w.hold(t, alice, m)
	blocks := w.mustExport(t, alice, export.Part{}, "")
	if diff := cmp.Diff(m, checkOrder(t, blocks)); diff != "" {
		t.Fatal(diff)
	}
	if n, bytes := w.e.Kept(); n != 1 || bytes > 3<<20 {
		t.Errorf("%d outlines of %d bytes are kept", n, bytes)
	}
	var large []repo.CID
	for _, b := range blocks {
		if len(b.data) > 1<<20 {
			large = append(large, b.id)
		}
	}
	if len(large) < 7 {
		t.Fatalf("only %d nodes are large", len(large))
	}
	if _, err := w.blocks(t, alice, large); !errors.Is(err, export.ErrTooLarge) {
		t.Error(err)
	}
	if _, err := w.blocks(t, alice, large[:4]); err != nil {
		t.Error(err)
	}
}
