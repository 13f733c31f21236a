// Package storetest opens stores for tests and makes up repositories for them.
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"cistern/ingest/repo"
	"cistern/store"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/fxamacker/cbor/v2"
)

// Open opens a store in memory (o.FS and o.Dir may say otherwise). When the test ends, the
// store is checked and closed.
func Open(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	if o.Dir == "" {
		o.Dir = "db"
	}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		Check(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Check fails the test with every difference that the store finds in itself.
func Check(t testing.TB, s *store.Store) {
	t.Helper()
	// The test's context has ended when its cleanup runs.
	n, err := s.Check(context.WithoutCancel(t.Context()), func(d string) { t.Error("check:", d) })
	if err != nil {
		t.Errorf("check: %v", err)
	}
	if n > 0 {
		t.Errorf("check: %d differences", n)
	}
}

// List returns at most limit records of a collection. The other arguments are
// those of EachRecordOf.
func List(
	t testing.TB, s *store.Store, r *store.Repo, collection, cursor string, limit int, reverse bool,
) (out []store.Record) {
	t.Helper()
	err := s.EachRecordOf(r, collection, cursor, reverse, func(rec *store.Listed) bool {
		out = append(out, store.Record{Collection: collection, Rkey: string(rec.Rkey),
			Rev: string(rec.Rev),
			CID: rec.CID, Record: bytes.Clone(rec.Record)})
		return len(out) < limit
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// DID returns a did:plc for a number.
func DID(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	b := []byte("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	for i := len(b) - 1; n > 0; i-- {
		b[i] = letters[n%32]
		n /= 32
	}
	return string(b)
}

// Rev returns a TID for a number, in the order of the numbers.
func Rev(n int) string {
	const letters = "234567abcdefghijklmnopqrstuvwxyz"
	b := []byte("3k22222222222")
	for i := len(b) - 1; n > 0; i-- {
		b[i] = letters[n%32]
		n /= 32
	}
	return string(b)
}

// Commit returns a commit block with an invalid signature.
func Commit(did, rev string, data repo.CID) []byte {
	link := cbor.Tag{Number: 42, Content: data.AppendBytes([]byte{0})}
	enc, err := cbor.CanonicalEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	b, err := enc.Marshal(map[string]any{"did": did, "rev": rev, "sig": make([]byte, 64), "data": link,
		"prev": nil, "version": 3})
	if err != nil {
		panic(err)
	}
	return b
}

// Text returns a record with some text.
func Text(text string) []byte {
	b, err := cbor.Marshal(map[string]string{"text": text})
	if err != nil {
		panic(err)
	}
	return b
}

// Records are the contents of a repository: path → record bytes.
type Records map[string][]byte

// Random returns n records over some collections; some are equal to one another, and about one in
// fifty has a path that is not a valid collection/rkey.
func Random(rng *rand.Rand, n int) Records {
	m := Records{}
	for len(m) < n {
		path := fmt.Sprintf("app.test.c%d/%s", rng.IntN(4), Rev(rng.IntN(1<<30)))
		if rng.IntN(50) == 0 {
			path = fmt.Sprintf("no path %d", rng.IntN(1000))
		}
		m[path] = Text(fmt.Sprint("text ", rng.IntN(4*n+1)))
	}
	return m
}

// Paths returns the paths in MST order.
func (m Records) Paths() []string {
	paths := make([]string, 0, len(m))
	for p := range m {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}

// Root returns the root of the tree of the records.
func (m Records) Root() repo.CID {
	var tree repo.Tree
	for _, p := range m.Paths() {
		tree.Add([]byte(p), repo.HashCID(m[p]))
	}
	return tree.Root()
}

// Import returns m as the first copy of a repository whose row is in the store. The caller sets
// Done.
func (m Records) Import(r store.Repo, rev string) store.Import {
	data := m.Root()
	numbers := map[repo.CID]int{}
	for _, p := range m.Paths() {
		c := repo.HashCID(m[p])
		if _, ok := numbers[c]; !ok {
			numbers[c] = len(numbers)
		}
	}
	return store.Import{
		DID: r.DID, Attempt: r.Attempt, Rev: rev, Blocks: len(numbers),
		Walk: func(fn func(repo.Leaf) error) error {
			for _, p := range m.Paths() {
				c := repo.HashCID(m[p])
				l := repo.Leaf{Key: []byte(p), CID: c, Block: numbers[c], Record: m[p],
					Valid: repo.ValidPath([]byte(p))}
				if err := fn(l); err != nil {
					return err
				}
			}
			return nil
		},
		Complete: func(b *store.Batch, r *store.Repo) {
			b.Complete(r)
			r.Rev, r.Data, r.Commit = rev, data, Commit(r.DID, rev, data)
		},
	}
}

// Reach brings a row into a state, by the transitions that lead there. To become complete, a
// repository must have a copy; to become draining, also a buffered commit.
func Reach(b *store.Batch, r *store.Repo, to store.State) {
	switch to {
	case store.StateGone:
		b.Hide(r, store.StatusDeactivated, store.OriginHost, store.Retry{})
		return
	case store.StateIdle:
		b.Untrack(r)
		return
	}
	switch {
	case r.Tracked == store.Untracked:
		b.Track(r, store.ByOperator, store.PriorityOperator)
	case r.State != store.StatePending || to == store.StatePending:
		b.Enqueue(r, store.PriorityOperator)
	}
	switch to {
	case store.StateResync:
		b.Defer(r, store.Retry{Kind: store.Generic, Count: 1, Next: 1 << 40})
	case store.StateSynced, store.StateDraining:
		b.Complete(r)
	}
}

// Head makes all applied batches durable, so that readers of the log see them, and returns the id
// of the newest event.
func Head(t testing.TB, s *store.Store) uint64 {
	t.Helper()
	b := s.NewBatch()
	b.DropCursor("a source that does not exist")
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	return s.Head()
}

// Damage changes single rows of a store that is closed, as no Batch would.
func Damage(t testing.TB, fs vfs.FS, dir string, do func(d *Damager)) {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{FS: fs, Logger: noLog{},
		FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		t.Fatal(err)
	}
	do(&Damager{t, db})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// Damager changes rows. Keys are those of the schema in store/keys.go.
type Damager struct {
	t  testing.TB
	db *pebble.DB
}

// Key returns the key of a row of an ordinal.
func (d *Damager) Key(space byte, o store.Ordinal, rest []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(o))
	return append(append([]byte{space}, b[3:]...), rest...)
}

// Edit changes the row under a key.
func (d *Damager) Edit(key []byte, change func(value []byte) []byte) {
	d.t.Helper()
	v, closer, err := d.db.Get(key)
	if err != nil {
		d.t.Fatalf("%x: %v", key, err)
	}
	v = change(bytes.Clone(v))
	if err := errors.Join(closer.Close(), d.db.Set(key, v, pebble.Sync)); err != nil {
		d.t.Fatal(err)
	}
}

// Add writes a row under a key.
func (d *Damager) Add(key, value []byte) {
	d.t.Helper()
	if err := d.db.Set(key, value, pebble.Sync); err != nil {
		d.t.Fatal(err)
	}
}

// Delete removes the row under a key.
func (d *Damager) Delete(key []byte) {
	d.t.Helper()
	d.Edit(key, func(v []byte) []byte { return v })
	if err := d.db.Delete(key, pebble.Sync); err != nil {
		d.t.Fatal(err)
	}
}

// noLog discards what the engine logs.
type noLog struct{}

func (noLog) Infof(string, ...any)           {}
func (noLog) Errorf(string, ...any)          {}
func (noLog) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
