package ingest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/ingest"
	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigorepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
)

const proofDID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"

// proofNow is shortly after the rev of every commit here.
var proofNow = time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)

// proofMaker makes commit messages, with indigo's trees and signatures.
type proofMaker struct {
	t    testing.TB
	key  atcrypto.PrivateKey
	held map[string]string // path → record
}

func newProofMaker(t testing.TB, size int) *proofMaker {
	t.Helper()
	key, err := atcrypto.ParsePrivateBytesK256(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		t.Fatal(err)
	}
	m := &proofMaker{t: t, key: key, held: map[string]string{}}
	for i := range size {
		m.held[fmt.Sprintf("app.bsky.feed.like/3l%05d", i)] = fmt.Sprint("record ", i)
	}
	return m
}

func (m *proofMaker) public() *repo.Key {
	pub, err := m.key.PublicKey()
	if err != nil {
		m.t.Fatal(err)
	}
	key, err := repo.ParseKey(pub.DIDKey())
	if err != nil {
		m.t.Fatal(err)
	}
	return key
}

// proofRecord is a record's block: a text.
func proofRecord(s string) []byte { return append([]byte{0x79, byte(len(s) >> 8), byte(len(s))}, s...) }

func proofCID(c repo.CID) cid.Cid {
	_, out, err := cid.CidFromBytes(c.AppendBytes(nil))
	if err != nil {
		panic(err)
	}
	return out
}

// tree is the root and all nodes of what is held.
func (m *proofMaker) tree() (data repo.CID, nodes [][]byte) {
	m.t.Helper()
	leaves := map[string]cid.Cid{}
	for k, v := range m.held {
		leaves[k] = proofCID(repo.HashCID(proofRecord(v)))
	}
	tree, err := mst.LoadTreeFromMap(leaves)
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := tree.RootCID(); err != nil {
		m.t.Fatal(err)
	}
	var collect func(n *mst.Node)
	collect = func(n *mst.Node) {
		d := n.NodeData()
		b, _, err := d.Bytes()
		if err != nil {
			m.t.Fatal(err)
		}
		nodes = append(nodes, b)
		for _, e := range n.Entries {
			if e.Child != nil {
				collect(e.Child)
			}
		}
	}
	collect(tree.Root)
	return repo.HashCID(nodes[0]), nodes
}

// proofCAR is a CAR of blocks, whose root is the first.
func proofCAR(blocks ...[]byte) []byte {
	root := repo.HashCID(blocks[0])
	out := append([]byte{58}, "\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"...)
	out = append(root.AppendBytes(out), "\x67version\x01"...)
	for _, b := range blocks {
		out = binary.AppendUvarint(out, uint64(repo.CIDBytes+len(b)))
		out = append(repo.HashCID(b).AppendBytes(out), b...)
	}
	return out
}

// sign is a commit block.
func (m *proofMaker) sign(did, rev string, data repo.CID) []byte {
	c := indigorepo.Commit{DID: did, Version: 3, Rev: rev, Data: proofCID(data)}
	if err := c.Sign(m.key); err != nil {
		m.t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := c.MarshalCBOR(&buf); err != nil {
		m.t.Fatal(err)
	}
	return buf.Bytes()
}

const proofRev = "3ljcf22222222" // 2025-03-01

// commit writes records, an empty text deleting, and gives the message, its operations in order of
// paths.
func (m *proofMaker) commit(writes map[string]string) (f *frame.Frame, before repo.CID) {
	before, _ = m.tree()
	f = &frame.Frame{Kind: frame.KindCommit, Seq: 1, DID: proofDID, Time: proofNow.UnixMicro(), Rev: proofRev, PrevData: before}
	var records [][]byte
	for _, path := range slices.Sorted(maps.Keys(writes)) {
		op := frame.Op{Action: "create", Path: []byte(path)}
		if old, ok := m.held[path]; ok {
			op.Action, op.Prev = "update", repo.HashCID(proofRecord(old))
		}
		if text := writes[path]; text != "" {
			op.CID = repo.HashCID(proofRecord(text))
			records = append(records, proofRecord(text))
			m.held[path] = text
		} else {
			op.Action = "delete"
			delete(m.held, path)
		}
		f.Ops = append(f.Ops, op)
	}
	data, nodes := m.tree()
	commit := m.sign(f.DID, f.Rev, data)
	f.Commit = repo.HashCID(commit)
	f.Blocks = proofCAR(slices.Concat([][]byte{commit}, nodes, records)...)
	return f, before
}

const (
	proofNew = "app.bsky.feed.like/3lnew"
	proofOld = "app.bsky.feed.like/3l00003"
	proofEnd = "app.bsky.feed.like/3l00005"
)

func proofMixed(m *proofMaker) (*frame.Frame, repo.CID) {
	return m.commit(map[string]string{proofNew: "created", proofOld: "updated", proofEnd: ""})
}

func proofNothing([]byte) (repo.CID, error) { return repo.CID{}, errors.New("must not be called") }

func TestProof(t *testing.T) {
	t.Parallel()
	m := newProofMaker(t, 100)
	var p ingest.Proof
	for range 2 {
		f, want := proofMixed(m)
		if err := p.Read(f, proofNow); err != nil {
			t.Fatal(err)
		}
		if c := p.Commit(); c.DID != proofDID || c.Rev != proofRev || !p.Whole() {
			t.Fatalf("%+v whole %v", c, p.Whole())
		}
		if err := p.Signed(m.public()); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Before(proofNothing); err != nil || got != want {
			t.Fatalf("before: %s, want %s: %v", got, want, err)
		}
		if err := p.Claimed(); err != nil {
			t.Fatal(err)
		}
		wantOps := []store.Op{
			{Path: []byte(proofOld), CID: repo.HashCID(proofRecord("updated")), Record: proofRecord("updated"), Replaces: true},
			{Path: []byte(proofEnd), Replaces: true},
			{Path: []byte(proofNew), CID: repo.HashCID(proofRecord("created")), Record: proofRecord("created")},
		}
		if d := cmp.Diff(wantOps, p.Writes(nil)); d != "" {
			t.Fatal(d)
		}
		m = newProofMaker(t, 101)
	}
	f, want := m.commit(nil)
	if err := p.Read(f, proofNow); err != nil || len(p.Writes(nil)) != 0 {
		t.Fatal(err)
	}
	if got, err := p.Before(proofNothing); err != nil || got != want {
		t.Fatalf("an empty commit: before %s, want %s: %v", got, want, err)
	}
	sync := &frame.Frame{Kind: frame.KindSync, DID: f.DID, Rev: f.Rev, Time: f.Time, Blocks: proofCAR(m.sign(f.DID, f.Rev, want))}
	if err := p.ReadSync(sync, proofNow); err != nil || p.Commit().Data != want {
		t.Fatal(err)
	}
	if err := p.Signed(m.public()); err != nil {
		t.Fatal(err)
	}
}

// TestProofRefuses has one thing wrong in each message.
func TestProofRefuses(t *testing.T) {
	t.Parallel()
	other := repo.HashCID([]byte("other"))
	op := func(change func(op *frame.Op)) func(*proofMaker, *frame.Frame) {
		return func(_ *proofMaker, f *frame.Frame) { change(&f.Ops[2]) }
	}
	resign := func(did, rev string) func(*proofMaker, *frame.Frame) {
		return func(m *proofMaker, f *frame.Frame) {
			data, nodes := m.tree()
			commit := m.sign(did, rev, data)
			f.Commit, f.Blocks = repo.HashCID(commit), proofCAR(slices.Concat([][]byte{commit}, nodes)...)
		}
	}
	future := "3zzzzzzzzzzzz"
	for _, c := range []struct {
		why    string
		reason string
		change func(m *proofMaker, f *frame.Frame)
	}{
		{"no time", "time", func(_ *proofMaker, f *frame.Frame) { f.Time = 0 }},
		{"no rev", "rev", func(_ *proofMaker, f *frame.Frame) { f.Rev = "" }},
		{"rev is no TID", "rev", func(_ *proofMaker, f *frame.Frame) { f.Rev = "3JUI7YXX22222" }},
		{"rev of another day to come", "rev", func(_ *proofMaker, f *frame.Frame) { f.Rev = future }},
		{"no blocks", "car", func(_ *proofMaker, f *frame.Frame) { f.Blocks = nil }},
		{"a byte of the record changed", "car", func(_ *proofMaker, f *frame.Frame) { f.Blocks[len(f.Blocks)-1]++ }},
		{"more blocks than the lexicon allows", "car", func(_ *proofMaker, f *frame.Frame) {
			f.Blocks = append(f.Blocks, proofCAR(make([]byte, 2_000_000))[59:]...)
		}},
		{"the commit is not the root", "root", func(_ *proofMaker, f *frame.Frame) { f.Commit = other }},
		{"the message names no commit", "root", func(_ *proofMaker, f *frame.Frame) { f.Commit = repo.CID{} }},
		{"the root is missing", "root", func(_ *proofMaker, f *frame.Frame) {
			b := proofCAR([]byte("a"))
			f.Commit, f.Blocks = repo.HashCID([]byte("a")), b[:59]
		}},
		{"the root is no commit", "commit", func(m *proofMaker, f *frame.Frame) {
			_, nodes := m.tree()
			f.Commit, f.Blocks = repo.HashCID(nodes[0]), proofCAR(nodes...)
		}},
		{"commit of another DID", "envelope", resign("did:plc:ragtjsm2j2vknwkz3zp4oxrd", proofRev)},
		{"commit of another rev", "envelope", resign(proofDID, "3ljcf22222223")},
		{"message of another DID", "envelope", func(_ *proofMaker, f *frame.Frame) { f.DID = "did:web:a.example" }},
		{"record missing", "record", resign(proofDID, proofRev)},
		{"201 operations", "ops", func(_ *proofMaker, f *frame.Frame) {
			for i := range 198 {
				f.Ops = append(f.Ops, frame.Op{Action: "delete", Path: fmt.Appendf(nil, "a/%d", i)})
			}
		}},
		{"a path of nothing", "ops", op(func(op *frame.Op) { op.Path = nil })},
		{"a path of 1025 bytes", "ops", op(func(op *frame.Op) { op.Path = bytes.Repeat([]byte("a"), 1025) })},
		{"unknown action", "ops", op(func(op *frame.Op) { op.Action = "upsert" })},
		{"create without cid", "ops", op(func(op *frame.Op) { op.CID = repo.CID{} })},
		{"create with prev", "ops", op(func(op *frame.Op) { op.Prev = other })},
		{"update without cid", "ops", op(func(op *frame.Op) { op.Action, op.CID = "update", repo.CID{} })},
		{"delete with cid", "ops", op(func(op *frame.Op) { op.Action = "delete" })},
	} {
		m := newProofMaker(t, 30)
		f, _ := proofMixed(m)
		c.change(m, f)
		var p ingest.Proof
		err := p.Read(f, proofNow)
		if !errors.Is(err, repo.ErrInvalid) || ingest.Rejection(err) != c.reason {
			t.Errorf("%s: reason %q, want %q: %v", c.why, ingest.Rejection(err), c.reason, err)
		}
		if strings.Contains(fmt.Sprint(err), "%!") {
			t.Errorf("%s: %v", c.why, err)
		}
	}
	m := newProofMaker(t, 10)
	f, _ := m.commit(nil)
	var p ingest.Proof
	if err := p.ReadSync(f, proofNow); err != nil {
		t.Fatalf("sync with more than the commit: %v", err)
	}
	f.Blocks = append(f.Blocks, proofCAR(make([]byte, 9000))[59:]...)
	if err := p.ReadSync(f, proofNow); ingest.Rejection(err) != "car" {
		t.Errorf("sync of more than 10000 bytes: %v", err)
	}
}

// TestProofLies has messages whose form is good.
func TestProofLies(t *testing.T) {
	t.Parallel()
	var p ingest.Proof
	read := func(change func(f *frame.Frame)) (before repo.CID) {
		t.Helper()
		m := newProofMaker(t, 30)
		f, before := proofMixed(m)
		change(f)
		if err := p.Read(f, proofNow); err != nil {
			t.Fatal(err)
		}
		return before
	}
	want := func(why, reason string, err error) {
		t.Helper()
		if !errors.Is(err, repo.ErrInvalid) || ingest.Rejection(err) != reason {
			t.Errorf("%s: reason %q, want %q: %v", why, ingest.Rejection(err), reason, err)
		}
	}
	read(func(f *frame.Frame) { f.Ops[2].CID = f.Ops[0].CID }) // a record that is elsewhere
	_, err := p.Before(proofNothing)
	want("another record", "tree", err)
	want("another record", "tree", p.Claimed())

	read(func(f *frame.Frame) {
		f.Ops[1] = frame.Op{Action: "delete", Path: []byte("app.bsky.feed.like/3l00007"), Prev: f.Ops[1].Prev}
	})
	_, err = p.Before(proofNothing)
	want("deletes what is there", "tree", err)
	want("deletes what is there", "tree", p.Claimed())

	before := read(func(f *frame.Frame) { f.Ops[0].Prev = f.Ops[1].Prev })
	if got, err := p.Before(proofNothing); err != nil || got == before {
		t.Errorf("another predecessor: %s, %v", got, err)
	}
	before = read(func(f *frame.Frame) { f.Ops = f.Ops[:2] })
	if got, err := p.Before(proofNothing); err != nil || got == before {
		t.Errorf("an operation not told of: %s, %v", got, err)
	}
	stranger, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		t.Fatal(err)
	}
	public, err := stranger.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := repo.ParseKey(public.DIDKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signed(key); !errors.Is(err, repo.ErrSignature) || ingest.Rejection(err) != "signature" {
		t.Errorf("signed by another: %v", err)
	}
}

// TestProofLegacy has messages of hosts that do not know sync v1.1.
func TestProofLegacy(t *testing.T) {
	t.Parallel()
	m := newProofMaker(t, 60)
	had := maps.Clone(m.held)
	f, want := proofMixed(m)
	for i := range f.Ops {
		f.Ops[i].Prev = repo.CID{}
	}
	var p ingest.Proof
	if err := p.Read(f, proofNow); err != nil || p.Whole() {
		t.Fatal(p.Whole(), err)
	}
	var asked []string
	held := func(path []byte) (repo.CID, error) {
		asked = append(asked, string(path))
		if had[string(path)] == "" {
			return repo.CID{}, nil
		}
		return repo.HashCID(proofRecord(had[string(path)])), nil
	}
	for range 2 { // what we hold is asked anew each time
		asked = nil
		if got, err := p.Before(held); err != nil || got != want || !slices.Equal(asked, []string{proofOld, proofEnd}) {
			t.Fatalf("before %s, want %s, asked for %q: %v", got, want, asked, err)
		}
	}
	failure := errors.New("disk")
	if _, err := p.Before(func([]byte) (repo.CID, error) { return repo.CID{}, failure }); !errors.Is(err, failure) || errors.Is(err, repo.ErrInvalid) {
		t.Fatalf("a failure of ours: %v", err)
	}
	// An update and a delete of what we never had: the root is that of a tree without them.
	delete(had, proofOld)
	delete(had, proofEnd)
	m.held = had
	without, _ := m.tree()
	if got, err := p.Before(held); err != nil || got != without {
		t.Fatalf("before %s, want %s: %v", got, without, err)
	}
}

// TestProofMissing leaves out all nodes but those above the records that were written, and above
// the places of those that were deleted.
func TestProofMissing(t *testing.T) {
	t.Parallel()
	for i := range 300 { // until a key has nodes below it that would have to be parted again
		m := newProofMaker(t, 300)
		gone := fmt.Sprintf("app.bsky.feed.like/3l%05d", i)
		f, _ := m.commit(map[string]string{proofNew: "created", gone: ""})
		data, nodes := m.tree()
		message := func(nodes [][]byte) {
			blocks := slices.Concat([][]byte{m.sign(f.DID, f.Rev, data)}, nodes, [][]byte{proofRecord("created")})
			f.Blocks, f.Commit = proofCAR(blocks...), repo.HashCID(blocks[0])
		}
		var p ingest.Proof
		message(proofNodes(t, data, nodes, proofNew, gone))
		if err := p.Read(f, proofNow); err != nil {
			t.Fatal(err)
		}
		if err := p.Claimed(); err != nil {
			t.Fatal(err)
		}
		_, err := p.Before(proofNothing)
		if err == nil {
			continue
		}
		if !errors.Is(err, repo.ErrProof) || ingest.Rejection(err) != "proof" {
			t.Fatal(err)
		}
		// Each of both is proven, or the claim is worth nothing.
		for _, path := range []string{proofNew, gone} {
			message(proofNodes(t, data, nodes, path))
			if err := p.Read(f, proofNow); err != nil {
				t.Fatal(err)
			}
			if err := p.Claimed(); !errors.Is(err, repo.ErrProof) {
				t.Errorf("with the nodes above %s only: %v", path, err)
			}
		}
		return
	}
	t.Error("no key has nodes below it")
}

// proofNodes returns the nodes without which some of the paths cannot be found.
func proofNodes(t *testing.T, data repo.CID, nodes [][]byte, paths ...string) [][]byte {
	t.Helper()
	var s repo.Slice
	for i := 1; i < len(nodes); {
		kept := slices.Delete(slices.Clone(nodes), i, i+1)
		if err := s.Read(proofCAR(kept...)); err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(paths, func(path string) bool { _, err := s.Find(data, []byte(path)); return err != nil }) {
			i++
			continue
		}
		nodes = kept
	}
	return nodes
}

// TestProofAllocations: the texts and the signature of the commit.
func TestProofAllocations(t *testing.T) {
	m := newProofMaker(t, 300)
	f, want := proofMixed(m)
	var p ingest.Proof
	var ops []store.Op
	n := testing.AllocsPerRun(50, func() {
		err := p.Read(f, proofNow)
		got, beforeErr := p.Before(proofNothing)
		ops = p.Writes(ops[:0])
		if err != nil || beforeErr != nil || got != want || len(ops) != 3 {
			t.Fatal(got, err, beforeErr)
		}
	})
	if n > 3 {
		t.Fatalf("%v allocations", n)
	}
}

// BenchmarkProof is one commit of one operation, from the message to what is written.
func BenchmarkProof(b *testing.B) {
	m := newProofMaker(b, 8000)
	f, want := m.commit(map[string]string{proofNew: strings.Repeat("x", 300)})
	// What a host sends of the tree: the nodes that the proof cannot do without.
	data, nodes := m.tree()
	var s repo.Slice
	for i := 1; i < len(nodes); {
		kept := slices.Delete(slices.Clone(nodes), i, i+1)
		if err := s.Read(proofCAR(kept...)); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Invert(data, []repo.SliceOp{{Path: f.Ops[0].Path, CID: f.Ops[0].CID}}); err != nil {
			i++
			continue
		}
		nodes = kept
	}
	commit := m.sign(f.DID, f.Rev, data)
	f.Blocks = proofCAR(slices.Concat([][]byte{commit, proofRecord(strings.Repeat("x", 300))}, nodes)...)
	f.Commit = repo.HashCID(commit)
	key := m.public()
	for _, signatures := range []bool{false, true} {
		b.Run(fmt.Sprintf("signatures=%v", signatures), func(b *testing.B) {
			b.SetBytes(int64(len(f.Blocks)))
			b.ReportAllocs()
			var p ingest.Proof
			var ops []store.Op
			for b.Loop() {
				if err := p.Read(f, proofNow); err != nil {
					b.Fatal(err)
				}
				if signatures {
					if err := p.Signed(key); err != nil {
						b.Fatal(err)
					}
				}
				if got, err := p.Before(proofNothing); err != nil || got != want {
					b.Fatal(got, err)
				}
				ops = p.Writes(ops[:0])
			}
		})
	}
}
