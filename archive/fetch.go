package archive

import (
	"context"
	"errors"
	"fmt"

	"cistern/store"
)

// frameKey names a frame by the first id of its segment and its place in it.
type frameKey struct {
	segment uint64
	frame   int
}

// indexOf returns the index of a segment, from memory if it is kept.
func (a *Archive) indexOf(ctx context.Context, seg *store.Segment) (*indexV1, error) {
	if x, ok := a.indexes.Get(seg.First); ok {
		return x, nil
	}
	at := seg.Bytes - int64(footerSize) - seg.Index
	if seg.Index > indexBytesMax || at < int64(len(magic)) {
		return nil, a.failure(seg, errIndexPlace)
	}
	b, err := a.fetch(ctx, seg, at, seg.Index)
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(a.codec, b, seg)
	if err != nil {
		return nil, a.failure(seg, err)
	}
	a.indexes.Add(seg.First, x)
	return x, nil
}

// fetch reads a part of a segment.
func (a *Archive) fetch(ctx context.Context, seg *store.Segment, at, n int64) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, errSlow)
	defer cancel()
	b, err := a.opts.Destination.GetRange(ctx, objectName(seg), at, n)
	if err != nil && errors.Is(context.Cause(ctx), errSlow) {
		err = errSlow
	}
	return b, a.failure(seg, err)
}

// errSlow means that a destination took too long.
var errSlow = fmt.Errorf("a part of it did not arrive within %s", fetchTimeout)

// events returns the events of frame i, from memory if they are kept. They must not be changed.
func (a *Archive) events(ctx context.Context, seg *store.Segment, x *indexV1, i int) ([]store.Kept,
	error) {
	key := frameKey{seg.First, i}
	if all, ok := a.frames.Get(key); ok {
		return all, nil
	}
	f := &x.Frames[i]
	b, err := a.fetch(ctx, seg, f.Offset, f.Bytes)
	if err != nil {
		return nil, err
	}
	all, err := x.decode(a.codec, b, i)
	if err != nil {
		return nil, a.failure(seg, err)
	}
	a.frames.Add(key, all)
	return all, nil
}
