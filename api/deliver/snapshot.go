package deliver

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"cistern/api/deliver/format"
	"cistern/api/durable"
	"cistern/api/wire"
	"cistern/filter"
	"cistern/store"
)

// Records are what snapshots read. Its methods may be called by any goroutine.
type Records interface {
	// BeginSnapshot returns a pass that begins at the head of the log, whose later events then stay
	// in the log for some hours.
	BeginSnapshot(f *filter.Events) *store.Pass
	// ReadRecords calls fn for the records of a pass behind a position, until fn returns false or
	// about rowsMax rows were examined, and returns the position to go on from. The error is
	// store.ErrOutdatedCursor if the log has lost events after the head of the pass. What fn gets
	// is valid during the call.
	ReadRecords(
		ctx context.Context, p *store.Pass, at store.RecordPosition, rowsMax int,
		fn func(*store.Event, store.RecordPosition) bool,
	) (next store.RecordPosition, ended bool, err error)
	// ReadCurrent calls fn for each named record that is shown, with the place of its name, until fn
	// returns false. On return it is durable that the other named records are gone. Events are valid
	// during the call of fn.
	ReadCurrent(ctx context.Context, names []store.RecordName,
		fn func(place int, ev *store.Event) bool) error
}

// snapshot is what a consumer asked for: all records that its filter wants, before the log.
type snapshot struct {
	from *format.Token // nil: from the beginning
}

// resumption returns a subscription to a snapshot, or to what follows the token in resume. Without
// these parameters it returns s as it is.
func (d *Delivery) resumption(q params, s subscription) (subscription, error) {
	text, rerr := q.single("resume")
	word, serr := q.single("snapshot")
	if err := errors.Join(rerr, serr); err != nil {
		return s, err
	}
	if word != "" && word != "true" && word != "false" {
		return s, wire.Invalid("snapshot %s: want true or false", wire.Echo(word))
	}
	resumes := q.has("resume")
	if !resumes && word != "true" {
		return s, nil
	}
	if s.given || s.timed || s.epoch != "" {
		return s, wire.Invalid("a snapshot says where to begin: leave out cursor, since and epoch")
	}
	if d.records == nil {
		return s, wire.EventsOnly()
	}
	wanted := snapshot{}
	s.variant.Tokens = true
	if resumes {
		t, err := format.ParseToken(text)
		if err != nil {
			return s, wire.Invalid("resume %s: %v", wire.Echo(text), err)
		}
		s.epoch = t.Epoch
		if t.Order == format.InLog {
			s.cursor, s.given = t.Head+1, true
			return s, nil
		}
		wanted.from = &t
		if p := store.NewPass(t.Head, t.End, s.filter); p.Order != t.Order || p.Sum != t.Sum {
			return s, wire.Invalid("resume is a token of another filter: give the same collections and dids")
		}
	}
	if !durable.WantsSnapshot(s.filter) {
		return s, wire.Invalid("the filter leaves out all records of a snapshot, which are creates " +
			"that are not live: change kinds, actions or live")
	}
	s.snapshot = &wanted
	return s, nil
}

// outdated returns the error for a consumer whose snapshot cannot go on.
func (u *subscriber) outdated(err error) error {
	if u.variant.Tokens && errors.Is(err, store.ErrOutdatedCursor) {
		return wire.Refuse("OutdatedCursor", "%v: begin a new snapshot", err)
	}
	return err
}

// sendSnapshot sends all records, and then the message that says so. The stream goes on with the
// event after the head at which the snapshot began. A change of the filter waits for that: the
// records that were sent are by the old filter.
func (u *subscriber) sendSnapshot(ctx context.Context, pings <-chan time.Time) error {
	u.metrics.snapshots.Inc()
	defer u.metrics.snapshots.Dec()
	var pass *store.Pass
	var at store.RecordPosition
	if t := u.snapshot.from; t != nil {
		pass, at = store.NewPass(t.Head, t.End, u.filter), t.At
	} else {
		pass = u.records.BeginSnapshot(u.filter)
	}
	now := make(chan struct{})
	close(now)
	for ended := false; !ended; {
		var err error
		if at, ended, err = u.sendRecords(ctx, pass, at); err != nil {
			return err
		}
		if err := u.attend(ctx, 0, now, pings, nil); err != nil {
			return err
		}
	}
	u.cursor = pass.Head + 1
	return u.send(ctx, u.message(snapshotEnd(u.Delivery.epoch, pass.Head)))
}

// snapshotEnd returns the message behind the last record of a snapshot that began at an event.
func snapshotEnd(epoch string, head uint64) []byte {
	tokens := format.LogTokens(epoch)
	out := strconv.AppendUint([]byte(`{"type":"snapshot_end","id":`), head, 10)
	return append(tokens.AppendEvent(append(out, `,"token":"`...), head), `"}`...)
}

// sendRecords sends one page of a pass.
func (u *subscriber) sendRecords(
	ctx context.Context, pass *store.Pass, at store.RecordPosition,
) (next store.RecordPosition, ended bool, err error) {
	s := scratches.Get().(*scratch)
	defer s.release()
	n := 0
	held, err := u.take(ctx, s, func() (err error) {
		next, ended, n, err = u.loadRecords(ctx, pass, at, s)
		return err
	})
	defer u.release(held)
	if err != nil {
		return at, false, err
	}
	return next, ended, u.flush(ctx, s, n)
}

// loadRecords puts the frames of one page of a pass into s, and returns their number. They are
// encoded while they are read: no other stream is at the same place. Snapshots have a share of the
// readers only, so that any number of them leaves the log to the others.
func (u *subscriber) loadRecords(
	ctx context.Context, pass *store.Pass, at store.RecordPosition, s *scratch,
) (next store.RecordPosition, ended bool, n int, err error) {
	done, err := u.readSnapshot(ctx, u.client)
	if err != nil {
		return at, false, 0, err
	}
	defer done()
	e := u.formats.Records(u.Delivery.epoch, pass, u.elements())
	read := 0
	s.bytes, s.frames = s.bytes[:0], s.frames[:0]
	next, ended, err = u.records.ReadRecords(ctx, pass, at, u.pages.pageIDs,
		func(ev *store.Event, at store.RecordPosition) bool {
			var result format.Result
			if s.bytes, result = e.Append(s.bytes, ev, at); result == format.Unrepresentable {
				u.metrics.refused.Inc()
			}
			n++
			read += eventBytes + len(ev.Record)
			return read < u.pages.pageBytes && len(s.bytes) < 2*u.pages.pageBytes
		})
	if n > 0 {
		s.frames = append(s.frames, s.bytes)
	}
	return next, ended, n, err
}

// readSnapshot waits until a page of a snapshot may be read for a client. done must follow if the
// error is nil; otherwise it is that of ctx.
func (d *Delivery) readSnapshot(ctx context.Context, c netip.Prefix) (done func(), err error) {
	if err := d.snapshots.Acquire(ctx, c, 1); err != nil {
		return nil, err
	}
	if err := d.pages.readers.Acquire(ctx, 1); err != nil {
		d.snapshots.Release(c, 1)
		return nil, err
	}
	return func() {
		d.pages.readers.Release(1)
		d.snapshots.Release(c, 1)
	}, nil
}
