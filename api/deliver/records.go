package deliver

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"cistern/api/deliver/format"
	"cistern/api/durable"
	"cistern/store"
)

// The records of a snapshot that a durable subscription begins with. Their names go through the
// window of the subscription as the events of the log do; the records are read when they are sent.
// All subscriptions together are one client of the readers of snapshots.

// pickRecords makes the next records outstanding that there is room for, or the end of the
// snapshot. The turn is the member's. moved is false if nothing has changed.
func (f *Feed) pickRecords(ctx context.Context, r durable.Reading) (moved bool, err error) {
	switch {
	case r.Ended:
		return f.member.EndSnapshot(time.Now()), nil
	case r.Room == 0:
		return false, nil
	}
	if err := f.member.Reserve(ctx); err != nil {
		return false, err
	}
	done, err := f.delivery.readSnapshot(ctx, netip.Prefix{})
	if err != nil {
		return false, err
	}
	defer done()
	var names []store.RecordName
	next, ended, err := f.delivery.records.ReadRecords(ctx, r.Pass, r.At, f.pages.pageIDs,
		func(ev *store.Event, at store.RecordPosition) bool {
			names = append(names, store.RecordName{DID: ev.DID, Path: string(at.Path)})
			return len(names) < r.Room
		})
	if err != nil {
		return false, err
	}
	f.member.AddRecords(time.Now(), names, next, ended)
	return true, nil
}

// readItems calls fn for the first items, as long as they are records, as events with the ids of
// the items, until fn returns false. n is the number of items that were read. Records that are gone
// are settled. Events are valid during the call of fn.
func (f *Feed) readItems(
	ctx context.Context, fn func(it durable.Item, ev *store.Event) (more bool),
) (n int, err error) {
	var names []store.RecordName
	for _, it := range f.items {
		if kindOf(it) != currentRecord {
			break
		}
		names = append(names, it.Record)
	}
	done, err := f.delivery.readSnapshot(ctx, netip.Prefix{})
	if err != nil {
		return 0, err
	}
	defer done()
	var gone []uint64
	skip := func(to int) {
		for ; n < to; n++ {
			gone = append(gone, f.items[n].ID)
		}
	}
	more := true
	err = f.delivery.records.ReadCurrent(ctx, names, func(place int, ev *store.Event) bool {
		skip(place)
		n++
		it := f.items[place]
		if f.member.Again(it.ID, time.Now()) {
			ev.ID = it.ID
			more = fn(it, ev)
		}
		return more
	})
	if err != nil {
		return 0, err
	}
	if more {
		skip(len(names))
	}
	// Not before: a crash must not bring back a record that was settled.
	f.member.Settle(gone...)
	return n, nil
}

// encodeRecords appends to out the messages of the first items, as long as they are records, there
// are less than events and there are bytes left.
func (f *Feed) encodeRecords(
	ctx context.Context, out []Message, events, bytes int,
) ([]Message, int, error) {
	encoder, again, before := format.Snapshot.NewEncoder(), 0, len(out)
	n, err := f.readItems(ctx, func(it durable.Item, ev *store.Event) bool {
		body, result := encoder.Encode(nil, ev)
		f.count(result)
		if it.Again {
			again++
		}
		bytes -= len(body)
		out = append(out, Message{ID: it.ID, DID: ev.DID, Again: it.Again, Body: body})
		return len(out) < events && bytes > 0
	})
	if err != nil {
		return out[:before], bytes, err
	}
	f.items = f.items[n:]
	f.member.Resent(again)
	return out, bytes, nil
}

// count counts a record without a JSON form.
func (f *Feed) count(result format.Result) {
	if result == format.Unrepresentable {
		f.delivery.metrics.refused.Inc()
	}
}

// sendRecords sends the first items, as long as they are records, up to the size of a page.
func (c *consumer) sendRecords(ctx context.Context) error {
	s := scratches.Get().(*scratch)
	defer s.release()
	var n, events, again int
	held, err := c.take(ctx, s, func() (err error) {
		n, events, again, err = c.loadItems(ctx, s)
		return err
	})
	defer c.release(held)
	if err != nil {
		return err
	}
	if err := c.flush(ctx, s, events); err != nil {
		return err
	}
	c.feed.member.Resent(again)
	c.feed.items = c.feed.items[n:]
	return nil
}

// loadItems puts the frames of the first items into s, as long as they are records. n is the number
// of items that are passed, and again how many of the events were sent before.
func (c *consumer) loadItems(ctx context.Context, s *scratch) (n, events, again int, err error) {
	encoder, read := format.Snapshot.NewEncoder(), 0
	var plain []byte
	s.bytes, s.frames = s.bytes[:0], s.frames[:0]
	n, err = c.feed.readItems(ctx, func(it durable.Item, ev *store.Event) bool {
		var result format.Result
		s.bytes, _, result = format.Snapshot.AppendEvent(s.bytes, encoder, ev, &plain)
		c.feed.count(result)
		events++
		if it.Again {
			again++
		}
		read += eventBytes + len(ev.Record)
		return read < c.pages.pageBytes && len(s.bytes) < 2*c.pages.pageBytes
	})
	if events > 0 {
		s.frames = append(s.frames, s.bytes)
	}
	return n, events, again, err
}

// endOf returns the message behind the last record of a snapshot.
func endOf(it durable.Item) []byte {
	out := strconv.AppendUint([]byte(`{"id":`), it.ID, 10)
	out = strconv.AppendUint(append(out, `,"type":"snapshot_end","next":`...), it.End, 10)
	return append(out, '}')
}
