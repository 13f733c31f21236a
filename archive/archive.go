package archive

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"cistern/objects"
	"cistern/store"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/semaphore"
)

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Store has the log, opened with store.Options.Archive. Required.
	Store *store.Store
	// Destination has the segments. Required.
	Destination objects.Destination
	// After is how old events are that Offload moves. Default 0: all.
	After time.Duration
	// SegmentBytes is the size at which a segment ends. Default 16 MiB.
	SegmentBytes int
	// FrameEvents ends a frame, and is at most 4,096, its default.
	FrameEvents int
	// Logger. Default: discard.
	Logger *slog.Logger
	// Step is called at the named steps of Offload, where tests clone the disk. Default: nothing.
	Step func(name string)
}

// Archive is the log of a store and the segments that it began with.
type Archive struct {
	opts  Options
	store *store.Store
	codec codec
	// readers is acquired by each page that reads segments.
	readers *semaphore.Weighted
	busy    atomic.Int64 // pages that read segments
	frames  *lru.Cache[frameKey, []store.Kept]
	indexes *lru.Cache[uint64, *indexV1] // by the first id of a segment
}

// New returns an archive. It does not connect to the destination.
func New(o Options) (*Archive, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = segmentBytes
	}
	if o.FrameEvents == 0 {
		o.FrameEvents = frameEvents
	}
	if o.Store == nil || o.Destination == nil || o.After < 0 || o.SegmentBytes < 0 ||
		o.SegmentBytes > segmentBytes || o.FrameEvents < 0 || o.FrameEvents > frameEvents {
		return nil, fmt.Errorf("an archive needs a store and a destination; after %s, segments of %d "+
			"bytes, frames of %d events", o.After, o.SegmentBytes, o.FrameEvents)
	}
	c, err := newCodec()
	frames, ferr := lru.New[frameKey, []store.Kept](framesKept)
	indexes, ierr := lru.New[uint64, *indexV1](indexesKept)
	return &Archive{opts: o, store: o.Store, codec: c, readers: semaphore.NewWeighted(readersMax),
		frames: frames, indexes: indexes}, errors.Join(err, ferr, ierr)
}

// failure names the segment and the place of an error.
func (a *Archive) failure(seg *store.Segment, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("segment %s of %s: %w", objectName(seg), a.opts.Destination, err)
}
