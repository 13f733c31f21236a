package linkindex

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cistern/filter"
	"cistern/loop"
	"cistern/store"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// pageRows bounds the rows of a pass, and the events of the log, that are read at one point in
	// time.
	pageRows = 8192
	// lingerFew and lingerMany are how long changes are gathered when there is nothing more to read:
	// many of them are an import, more of which may follow.
	lingerFew  = 50 * time.Millisecond
	lingerMany = time.Second
	manyRows   = 20_000
	// syncEvery is how often what was written is made durable, so that the log may be pruned.
	syncEvery = 5 * time.Second
	// progressEvery is how often a pass is logged.
	progressEvery = time.Minute
)

// errFull ends a page before the next event, because the run must be written.
var errFull = errors.New("the run is full")

// builder brings the index to the head of the log.
type builder struct {
	x      *Index
	run    *run
	keeper *store.LogKeeper // has events stay in the log that are not in the index durably

	read    uint64    // the run has every event up to it
	resumed bool      // once: the state at the beginning was durable
	synced  time.Time // when the index was last made durable, or looked at
	kept    uint64    // the event up to which it was durable then
	logged  time.Time
}

// Run builds the index and follows the log until ctx ends. After an error that may pass, such as a
// full disk, it goes on with what is written once that is possible again. After another failure it
// waits for the end: the daemon goes on without the index. The store must be open until Run has
// returned.
func (x *Index) Run(ctx context.Context) error {
	x.stop = ctx.Done()
	b := &builder{x: x, run: x.newRun(), keeper: x.opts.Store.KeepLog()}
	defer b.keeper.Release()
	err := b.build(ctx)
	if ctx.Err() == nil {
		x.health.fail(err)
		x.opts.Logger.Error("the backlinks index is not built any more; queries answer with what it "+
			"has. Restart the daemon, and if it fails again, delete the directory of the index: "+
			"it is then built anew", "dir", x.opts.Dir, "err", err)
		<-ctx.Done()
	}
	return nil
}

// build returns when ctx ends or the index fails for good.
func (b *builder) build(ctx context.Context) error {
	for ctx.Err() == nil {
		err := b.resume()
		if err == nil && b.run.next.Pass != nil {
			err = b.pass(ctx)
		}
		if err == nil {
			err = b.follow(ctx)
		}
		if errors.Is(err, store.ErrOutdatedCursor) || errors.Is(err, store.ErrFutureCursor) {
			b.x.opts.Logger.Warn("the log does not have the events any more that the backlinks index "+
				"needs: it is built anew", "through", b.x.through(), "err", err)
			err = b.begin()
		}
		switch {
		case ctx.Err() != nil || err == nil:
		case permanent(err) || b.x.health.failure() != nil:
			return err
		default:
			b.rest(ctx, err)
		}
	}
	return errors.Join(b.flush(), b.sync())
}

// rest waits until the index may be written again. What the run has is read anew then.
func (b *builder) rest(ctx context.Context, err error) {
	x := b.x
	if x.health.wrote(err) {
		x.opts.Logger.Error("the backlinks index cannot be written: queries answer with what it has, "+
			"and it is tried again", "every", x.opts.rest, "dir", x.opts.Dir, "err", err)
	}
	for first := true; ctx.Err() == nil && (first || x.health.rests() != nil); first = false {
		loop.Sleep(ctx, x.opts.rest, nil)
	}
	x.sources.clear() // some may have numbers that are not given any more
}

// resume has the run begin at the state of the index. If the index has no state of this log, it
// begins a pass.
func (b *builder) resume() error {
	b.run.reset()
	st := &b.run.next
	if s := b.x.opts.Store; st.Epoch != s.Epoch() || st.Through > s.Head() {
		return b.begin()
	}
	b.read = st.Through
	if !b.resumed { // what was written later need not be durable yet
		b.keep(st.Through)
		b.resumed = true
	}
	return nil
}

// begin empties the index, and begins a pass over what is stored.
func (b *builder) begin() error {
	x := b.x
	b.run.reset()
	b.keeper.Keep(0) // everything, until the pass has a head
	p := x.opts.Store.BeginSnapshot(everything())
	st := state{Secret: x.secret, Epoch: x.opts.Store.Epoch(), Through: p.Head,
		Pass: &pass{Head: p.Head, End: p.End}, Arrival: b.run.next.Arrival,
		Accounts: b.run.next.Accounts, Sources: b.run.next.Sources}
	value, err := st.encode()
	if err != nil {
		return err
	}
	batch := x.db.NewBatch()
	empty, err := x.isEmpty()
	if !empty && err == nil {
		err = batch.DeleteRange(lowest, highest, nil)
	}
	if err = errors.Join(err, batch.Set([]byte{spaceState}, value, nil)); err != nil {
		return errors.Join(err, batch.Close())
	}
	if err := x.write(func() error { return x.db.Apply(batch, pebble.Sync) }); err != nil {
		return err
	}
	x.sources.clear()
	x.mu.Lock()
	x.state = st
	x.mu.Unlock()
	b.run.reset()
	b.read = p.Head
	b.keep(p.Head)
	if err := batch.Close(); err != nil || empty {
		return err
	}
	// The mark of what was deleted goes, or no table could be put below it.
	return x.write(func() error { return x.db.Compact(context.Background(), lowest, highest, false) })
}

// everything returns the filter of a pass over all records.
func everything() *filter.Events {
	f, err := filter.CompileEvents(filter.EventsConfig{})
	if err != nil {
		panic(err) // an empty filter has no mistake
	}
	return f
}

// pass indexes the records that the pass has not reached yet.
func (b *builder) pass(ctx context.Context) error {
	x, at := b.x, b.run.next.Pass
	p := store.NewPass(at.Head, at.End, everything())
	begin, from := time.Now(), b.run.next.Passed
	x.opts.Logger.Info("the backlinks index is being built from all stored records",
		"head", at.Head, "records", from)
	position := store.RecordPosition{Ordinal: at.Ordinal, Path: at.Path}
	for ended := false; !ended; {
		if !x.opts.Gate.Pass(ctx) {
			return ctx.Err()
		}
		var failed, err error
		position, ended, err = x.opts.Store.ReadRecords(ctx, p, position, pageRows,
			func(e *store.Event, _ store.RecordPosition) bool {
				failed = b.run.put(e.DID, e.Collection, e.Rkey, e.Record)
				b.run.next.Passed++
				return failed == nil && !b.run.full()
			})
		if err := errors.Join(failed, err); err != nil {
			return err
		}
		b.run.next.Pass = &pass{at.Head, at.End, position.Ordinal, position.Path}
		if ended {
			b.run.next.Pass = nil
		}
		if ended || b.run.full() {
			if err := errors.Join(b.flush(), b.sync()); err != nil {
				return err
			}
		}
		b.progress()
	}
	x.opts.Logger.Info("the backlinks index has all stored records, and follows the log",
		"records", b.run.next.Passed-from, "links", x.State().Links,
		"seconds", time.Since(begin).Seconds())
	return nil
}

// progress logs how far a pass has come.
func (b *builder) progress() {
	if now := time.Now(); now.Sub(b.logged) >= progressEvery {
		b.logged = now
		st := b.x.State()
		b.x.opts.Logger.Info("the backlinks index is being built", "records", st.Done,
			"of", st.Total, "links", st.Links)
	}
}

// follow indexes the events of the log.
func (b *builder) follow(ctx context.Context) error {
	s := b.x.opts.Store
	var since time.Time // when the run got the first event that is not written
	for {
		if !b.x.opts.Gate.Pass(ctx) {
			return ctx.Err()
		}
		changed := s.Changed()
		clean := b.read == b.x.through()
		more, err := b.advance(ctx)
		if err != nil {
			return err
		}
		if clean {
			since = time.Now()
		}
		if !more && b.lingered(since) {
			if err := b.flush(); err != nil {
				return err
			}
		}
		if time.Since(b.synced) >= syncEvery {
			if err := b.sync(); err != nil {
				return err
			}
		}
		if !more {
			b.wait(ctx, changed, since)
		}
	}
}

// advance puts a page of the log into the run, which is written if it is full. more reports whether
// the log has more.
func (b *builder) advance(ctx context.Context) (more bool, err error) {
	before := b.read
	switch err := b.page(ctx); {
	case errors.Is(err, errFull):
		return true, b.flush()
	case err != nil:
		return false, err
	}
	return b.read > before && b.read < b.x.opts.Store.Head(), nil
}

// linger returns how long the changes of the run are gathered.
func (b *builder) linger() time.Duration {
	if b.run.rows() >= manyRows {
		return lingerMany
	}
	return lingerFew
}

// lingered reports whether events are to be written whose first was read at since.
func (b *builder) lingered(since time.Time) bool {
	return b.read > b.x.through() && time.Since(since) >= b.linger()
}

// wait waits for more events, or until the run must be written, or made durable.
func (b *builder) wait(ctx context.Context, changed <-chan struct{}, since time.Time) {
	d := syncEvery
	if b.read > b.x.through() {
		d = b.linger() - time.Since(since)
	}
	loop.Sleep(ctx, d, changed)
}

// page puts a page of the log into the run.
func (b *builder) page(ctx context.Context) error {
	s := b.x.opts.Store
	if b.read >= s.Head() {
		return nil
	}
	next, err := s.ReadLogBodies(ctx, b.read+1, pageRows, func(e *store.Event) error {
		if b.run.full() {
			return errFull
		}
		b.read = e.ID - 1
		if err := b.event(e); err != nil {
			return err
		}
		b.read = e.ID
		return nil
	})
	if err == nil {
		b.read = next - 1
	}
	b.run.next.Through = b.read
	return err
}

// event puts one event into the run.
func (b *builder) event(e *store.Event) error {
	switch {
	case e.Kind == store.KindAccount && e.Status.Hidden():
		return b.hide(e.DID)
	case e.Kind != store.KindRecord:
		return nil
	case e.Action == store.Delete:
		return b.run.remove(e.DID, e.Collection, e.Rkey)
	}
	return b.run.put(e.DID, e.Collection, e.Rkey, e.Record)
}

// hide removes all links of an account. If there are many, they are written in several runs, with
// the state before the event: after a crash the event comes again.
func (b *builder) hide(did string) error {
	b.run.next.Through = b.read
	for {
		more, err := b.run.removeAll(did)
		if err != nil || !more {
			return err
		}
		if err := b.flush(); err != nil {
			return err
		}
	}
}

// flush writes the run.
func (b *builder) flush() error {
	if err := b.run.write(); err != nil {
		return fmt.Errorf("write links: %w", err)
	}
	if b.x.health.wrote(nil) {
		b.x.opts.Logger.Info("the backlinks index is written again")
	}
	return nil
}

// sync makes what was written durable, and then has the log go up to it.
func (b *builder) sync() error {
	x := b.x
	b.synced = time.Now()
	through := x.through()
	if through == b.kept && b.run.next.Pass == nil {
		return nil
	}
	if err := x.write(func() error { return x.db.LogData(nil, pebble.Sync) }); err != nil {
		return fmt.Errorf("sync links: %w", err)
	}
	b.keep(through)
	return nil
}

// keep has the log keep what follows an event that is in the index durably.
func (b *builder) keep(through uint64) {
	b.keeper.Keep(through + 1)
	b.kept = through
}
