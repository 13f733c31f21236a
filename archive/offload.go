package archive

import (
	"context"
	"crypto/sha256"
	"errors"

	"cistern/objects"
	"cistern/store"
)

// errFull ends the reading of the log for a segment.
var errFull = errors.New("segment is full")

// Offload moves the events that are older than Options.After into segments, one after the other,
// until ctx ends: it keeps what it has done, and a later call continues. It calls progress after
// each segment with the number of ids that are moved, and that are to be. What it moves stays in
// the store until the store prunes it. First it forgets segments whose objects were deleted.
func (a *Archive) Offload(ctx context.Context, progress func(done, total int64)) error {
	if err := a.forgetDeleted(ctx); err != nil {
		return err
	}
	from := a.next()
	for at := from; ; {
		to := a.store.ArchiveBefore(a.opts.After)
		if at >= to {
			return nil
		}
		next, err := a.move(ctx, at, to)
		if err != nil || next == at {
			return err // without progress, the visibility of the next event is not decided yet
		}
		at = next
		progress(int64(at-from), int64(max(to, at)-from))
	}
}

// next returns the id at which the next segment begins.
func (a *Archive) next() uint64 {
	if all := a.store.Segments(); len(all) > 0 {
		return all[len(all)-1].Next
	}
	return a.store.Tail()
}

// move makes one segment of events before id to, and returns the id at which the next one begins.
func (a *Archive) move(ctx context.Context, first, to uint64) (next uint64, err error) {
	b, seg, err := a.build(ctx, first, to)
	if err != nil || seg.Next == first {
		return first, err
	}
	if all := a.store.Segments(); len(all) > 0 {
		seg.Time = max(seg.Time, all[len(all)-1].Time)
	}
	a.opts.Step("built")
	name, d := objectName(&seg), a.opts.Destination
	if err := objects.PutText(ctx, d, name, b); err != nil {
		return first, err
	}
	// The object is durable, and nothing names it. A crash leaves it for ever; the next attempt
	// makes one of the same name and content, or of another name.
	a.opts.Step("stored")
	if err := a.readBack(ctx, name, b, &seg); err != nil {
		return first, a.failure(&seg, err)
	}
	a.opts.Step("read back")
	if err := a.store.AddSegment(seg); err != nil {
		return first, err
	}
	// The row is durable: the events may be pruned, and readers find them in the segment.
	a.opts.Step("recorded")
	a.opts.Logger.Debug("events are in the archive", "segment", name, "events", seg.Events,
		"bytes", seg.Bytes)
	return seg.Next, nil
}

// build makes a segment in memory, which has at most Options.SegmentBytes and a frame.
func (a *Archive) build(ctx context.Context, first, to uint64) ([]byte, store.Segment, error) {
	w := newSegmentWriter(a.codec, a.store.Epoch(), first)
	w.most, w.frameEvents = a.opts.SegmentBytes, a.opts.FrameEvents
	for at := first; at < to; {
		full := uint64(0)
		next, err := a.store.ReadKept(ctx, at, to, buildIDs, func(k *store.Kept) error {
			done, err := w.add(k)
			if err == nil && done {
				full, err = k.ID+1, errFull
			}
			return err
		})
		if full > 0 && errors.Is(err, errFull) && !errors.Is(err, store.ErrCorrupt) {
			return w.end(full)
		}
		if err != nil {
			return nil, store.Segment{}, err
		}
		if next == at {
			to = at
		}
		at = next
		w.index.Next = next
	}
	return w.end(max(w.index.Next, first))
}

// readBack checks that the destination has the segment.
func (a *Archive) readBack(ctx context.Context, name string, b []byte, seg *store.Segment) error {
	got, err := objects.ReadAll(ctx, a.opts.Destination, name, seg.Bytes)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(got); sum != sha256.Sum256(b) {
		return objects.ErrDamaged
	}
	return whole(a.codec, got, seg)
}
