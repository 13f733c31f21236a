package export_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"cistern/api/export"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"
)

var alice = storetest.DID(1)

// world is a store with an exporter.
type world struct {
	*store.Store
	e         *export.Exporter
	refetched []string // "did rev"
	revs      int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{Store: storetest.Open(t, store.Options{})}
	w.newExporter(t)
	return w
}

// newExporter replaces the exporter, so that no tree is known.
func (w *world) newExporter(t testing.TB) {
	t.Helper()
	var err error
	w.e, err = export.New(export.Options{Refetch: func(did, rev string) error {
		w.refetched = append(w.refetched, did+" "+rev)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// record returns the part of the record at a path.
func record(path string) export.Part {
	collection, rkey, _ := strings.Cut(path, "/")
	return export.Record(collection, rkey)
}

// change changes a row.
func (w *world) change(t testing.TB, did string, fn func(b *store.Batch, r *store.Repo) error) {
	t.Helper()
	wait, err := w.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
		err := fn(b, r)
		b.PutRepo(r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}

// hold gives did a first copy.
func (w *world) hold(t testing.TB, did string, m storetest.Records) {
	t.Helper()
	var im store.Import
	w.revs++
	w.change(t, did, func(b *store.Batch, r *store.Repo) error {
		b.Track(r, store.ByOperator, store.PriorityOperator)
		im = m.Import(*r, storetest.Rev(w.revs))
		return nil
	})
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Errorf("import: %v", err)
		}
	}
	if err := w.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	if err := w.FlushImports(); err != nil {
		t.Fatal(err)
	}
}

func (w *world) view(t testing.TB, did string) *store.RepoView {
	t.Helper()
	v, err := w.ViewRepo(did)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// export returns the CAR of a part.
func (w *world) export(t testing.TB, did string, part export.Part, since string) ([]byte, error) {
	t.Helper()
	v := w.view(t, did)
	defer func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}()
	x, err := w.e.Open(t.Context(), v, part)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = x.Write(t.Context(), &out, since)
	return out.Bytes(), err
}

func (w *world) mustExport(t testing.TB, did string, part export.Part, since string) []block {
	t.Helper()
	car, err := w.export(t, did, part, since)
	if err != nil {
		t.Fatal(err)
	}
	_, blocks := readCAR(t, car)
	return blocks
}

// block is a block of a CAR.
type block struct {
	id   repo.CID
	data []byte
}

// readCAR returns the roots and the blocks of a CAR, in order. It checks their CIDs.
func readCAR(t testing.TB, car []byte) (header []byte, blocks []block) {
	t.Helper()
	for at := 0; at < len(car); {
		n, k := binary.Uvarint(car[at:])
		if k <= 0 || n > uint64(len(car)-at-k) {
			t.Fatalf("section at %d of %d: length %d", at, len(car), n)
		}
		section := car[at+k : at+k+int(n)]
		if at += k + int(n); header == nil {
			header = section
			continue
		}
		id, err := repo.ParseCIDBytes(section[:repo.CIDBytes])
		if err != nil {
			t.Fatal(err)
		}
		b := block{id, section[repo.CIDBytes:]}
		if repo.HashCID(b.data) != id {
			t.Fatalf("block %d does not hash to %s", len(blocks), id)
		}
		blocks = append(blocks, b)
	}
	return header, blocks
}

// checkOrder checks that the blocks are exactly a commit and a tree in pre-order, each record where
// its entry stands, and returns the records.
func checkOrder(t testing.TB, blocks []block) storetest.Records {
	t.Helper()
	commit, err := repo.ParseCommit(blocks[0].data)
	if err != nil {
		t.Fatal(err)
	}
	type want struct {
		id  repo.CID
		key string // of a record; "": a node
	}
	records := storetest.Records{}
	next := []want{{id: commit.Data}} // the next one last
	for i, b := range blocks[1:] {
		if len(next) == 0 {
			t.Fatalf("block %d follows the end of the tree", i+1)
		}
		is := next[len(next)-1]
		next = next[:len(next)-1]
		if b.id != is.id {
			t.Fatalf("block %d is %s, want %s (%q)", i+1, b.id, is.id, is.key)
		}
		if is.key != "" {
			records[is.key] = b.data
			continue
		}
		var n repo.TreeNode
		if err := n.Parse(b.data); err != nil {
			t.Fatal(err)
		}
		below := []want{{id: n.Left}}
		for _, e := range n.Entries {
			below = append(below, want{e.Value, string(e.Key)}, want{id: e.Right})
		}
		below = slices.DeleteFunc(below, func(w want) bool { return !w.id.Defined() })
		slices.Reverse(below)
		next = append(next, below...)
	}
	if len(next) > 0 {
		t.Fatalf("the CAR ends before %d blocks, the first is %s", len(next), next[len(next)-1].id)
	}
	return records
}
