package archive

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"cistern/filter"
	"cistern/store"
)

// ReadLog is that of the store, over the segments and the log. Cursor 0 means the oldest event of
// the segments, and ErrOutdatedCursor is given for a cursor below it only. A page that begins in a
// segment ends in one. Errors of the destination and of damaged segments name the segment.
func (a *Archive) ReadLog(ctx context.Context, cursor uint64, maxEvents int,
	fn func(*store.Event) error) (next uint64, err error) {
	return a.read(ctx, nil, cursor, maxEvents, fn, a.store.ReadLog)
}

// ReadLogSparse is that of the store, over the segments and the log.
func (a *Archive) ReadLogSparse(ctx context.Context, f *filter.Events, cursor uint64, maxEvents int,
	fn func(*store.Event) error) (next uint64, err error) {
	return a.read(ctx, f, cursor, maxEvents, fn, func(ctx context.Context, cursor uint64,
		maxEvents int, fn func(*store.Event) error) (uint64, error) {
		return a.store.ReadLogSparse(ctx, f, cursor, maxEvents, fn)
	})
}

// SkipUnwanted is that of the store.
func (a *Archive) SkipUnwanted(f *filter.Events, cursor uint64) uint64 {
	return a.store.SkipUnwanted(f, cursor)
}

// Head is that of the store.
func (a *Archive) Head() uint64 { return a.store.Head() }

// Changed is that of the store.
func (a *Archive) Changed() <-chan struct{} { return a.store.Changed() }

// Archived reports whether the event of an id is read from a segment.
func (a *Archive) Archived(id uint64) bool { return id < a.store.Tail() }

// read reads a page from the log or, below its tail, from segments.
func (a *Archive) read(ctx context.Context, f *filter.Events, cursor uint64, maxEvents int,
	fn func(*store.Event) error, local func(ctx context.Context, cursor uint64, maxEvents int,
		fn func(*store.Event) error) (uint64, error)) (next uint64, err error) {
	if cursor == 0 {
		cursor = a.store.Oldest()
	}
	if cursor >= a.store.Tail() {
		next, err = local(ctx, cursor, maxEvents, fn)
		if !errors.Is(err, store.ErrOutdatedCursor) {
			return next, err
		}
		// It was pruned just now, and a segment has it.
	}
	all := a.store.Segments()
	i := sort.Search(len(all), func(i int) bool { return all[i].Next > cursor })
	if i == len(all) || cursor < all[0].First {
		return cursor, fmt.Errorf("%w: %d, the oldest is %d", store.ErrOutdatedCursor, cursor,
			a.store.Oldest())
	}
	if maxEvents <= 0 {
		return cursor, nil
	}
	if err := a.readers.Acquire(ctx, 1); err != nil {
		return cursor, err
	}
	defer a.readers.Release(1)
	a.busy.Add(1)
	defer a.busy.Add(-1)
	p := page{Archive: a, filter: f, next: cursor, left: maxEvents, fn: fn}
	err = p.read(ctx, all[i:])
	return p.next, err
}

// FirstSince returns the id of the first event, in a segment or the log, whose time in unix
// microseconds is t or later; Head+1 if all events are earlier. Of segments, ids of events that are
// never shown again are passed over.
func (a *Archive) FirstSince(t int64) (id uint64, err error) {
	inLog, err := a.store.FirstSince(t)
	// Read the segments after the log: they then have every event that left the log meanwhile.
	all := a.store.Segments()
	i := sort.Search(len(all), func(i int) bool { return all[i].Time >= t })
	if err != nil || i == len(all) || all[i].First >= inLog {
		return inLog, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), sinceTimeout)
	defer cancel()
	first, err := a.firstIn(ctx, &all[i], t)
	return min(first, inLog), err
}

// firstIn returns the first event of a segment whose time is t or later; the last one is.
func (a *Archive) firstIn(ctx context.Context, seg *store.Segment, t int64) (uint64, error) {
	if err := a.readers.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer a.readers.Release(1)
	x, err := a.indexOf(ctx, seg)
	if err != nil {
		return 0, err
	}
	// The frame before the first one that begins at t or later may have the event.
	i := sort.Search(len(x.Frames), func(i int) bool { return x.Frames[i].Time >= t })
	if i == 0 {
		return seg.First, nil
	}
	events, err := a.events(ctx, seg, x, i-1)
	if err != nil {
		return 0, err
	}
	n := sort.Search(len(events), func(i int) bool { return events[i].Time >= t })
	if n < len(events) {
		return events[n].ID, nil
	}
	return x.next(i - 1), nil
}
