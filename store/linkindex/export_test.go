package linkindex

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"time"

	"cistern/store"

	"github.com/cockroachdb/pebble/v2"
	"github.com/fxamacker/cbor/v2"
)

// OpenTuned opens an index with options that an operator cannot set: the rows of a run that is
// written by a batch, 0 for the default, and those of the engine.
func OpenTuned(o Options, smallRows int, tune func(*pebble.Options)) (*Index, error) {
	o.smallRows, o.tune = smallRows, tune
	return Open(o)
}

// OpenResting opens an index that is tried again soon after it could not be written.
func OpenResting(o Options, smallRows int) (*Index, error) {
	o.smallRows, o.rest = smallRows, 20*time.Millisecond
	return Open(o)
}

// CatchUp builds the index up to the head of the log, as Run does, and returns. It returns earlier
// once stop returns true, after a page.
func (x *Index) CatchUp(ctx context.Context, stop func() bool) error {
	b := &builder{x: x, run: x.newRun(), keeper: x.opts.Store.KeepLog()}
	defer b.keeper.Release()
	for {
		err := b.resume()
		if err == nil && b.run.next.Pass != nil {
			err = b.pass(ctx)
		}
		for more := true; more && err == nil && !stop(); {
			more, err = b.advance(ctx)
		}
		if errors.Is(err, store.ErrOutdatedCursor) {
			if err := b.begin(); err != nil {
				return err
			}
			continue
		}
		if err == nil {
			err = errors.Join(b.flush(), b.sync())
		}
		return err
	}
}

// Failure returns the failure after which nothing is tried again, nil without one.
func (x *Index) Failure() error { return x.health.failure() }

// Writer writes links without a store's records.
type Writer struct{ run *run }

// GuardRecovered has a new health see the engine rest and recover, and returns what a write gets that
// it guards at a stop, and whether the engine is left as it is.
func GuardRecovered(cause error, write func() error) (got error, abandoned bool) {
	h := newHealth(0)
	l := h.listener()
	l.BackgroundError(cause)
	l.FlushEnd(pebble.FlushInfo{})
	stop := make(chan struct{})
	close(stop)
	got = h.guard(stop, write)
	return got, h.abandoned()
}

// NewWriter returns a Writer.
func (x *Index) NewWriter() *Writer { return &Writer{x.newRun()} }

// Put indexes a record with links, target by source.
func (w *Writer) Put(did string, collection, rkey []byte, links []TestLink) error {
	r := w.run
	r.groups = r.groups[:0]
	for _, l := range links {
		g := targetOf(r.x.secret, l.Target)
		var err error
		if g.source, err = r.source(l.Source); err != nil {
			return err
		}
		r.groups = append(r.groups, g)
	}
	slices.SortFunc(r.groups, group.compare)
	r.groups = slices.Compact(r.groups)
	if err := r.replace(did, collection, rkey); err != nil || !r.full() {
		return err
	}
	return r.write()
}

// Flush writes what was put.
func (w *Writer) Flush() error { return w.run.write() }

// TargetsKeepOrder reports whether the links of what was put are in their order, and how many they are,
// after the rows by target were made, which are not written.
func (w *Writer) TargetsKeepOrder() (keep bool, adds, removes int, err error) {
	r := w.run
	added, removed := r.live(), slices.Clone(r.removes)
	before := slices.Clone(added)
	out := &sink{x: r.x, batch: r.x.db.NewBatch()}
	err = errors.Join(r.writeTargets(out, added, r.removes), out.batch.Close())
	return slices.Equal(added, before) && slices.Equal(r.removes, removed), len(added), len(removed), err
}

// TestLink is a link of Put.
type TestLink struct {
	Source Source
	Target string
}

// DB returns the engine.
func (x *Index) DB() *pebble.DB { return x.db }

// WriteVersion makes the index look like one of another version, with a row that this one does not know.
func (x *Index) WriteVersion(version uint64) error {
	st := x.state
	st.Version = version
	value, err := cbor.Marshal(st)
	if err != nil {
		return err
	}
	return errors.Join(x.db.Set([]byte{spaceState}, value, pebble.Sync),
		x.db.Set([]byte("gx"), []byte("x"), pebble.Sync))
}

// CheckSteps runs Check, and returns the time of the step that reads the records of the store, and of
// the others, by a clock in seconds.
func (x *Index) CheckSteps(ctx context.Context, report func(string), clock func() float64) (records, others float64, err error) {
	c := checker{x: x, ctx: ctx, report: report, progress: func(int64) {}, seed: maphash.MakeSeed()}
	begun := clock()
	err = c.currentRecords()
	read := clock()
	err = errors.Join(err, c.rowsOfRecords(), c.rowsOfAccounts(), c.rowsOfTargets())
	return read - begun, clock() - read, err
}
