package archive

import (
	"crypto/sha256"
	"fmt"

	"cistern/store"
)

// objectName returns the name of the object of a segment. It has the beginning of the sum, so that
// no attempt and no other process overwrites a segment by something else.
func objectName(seg *store.Segment) string {
	return fmt.Sprintf("log/%s/%020d-%020d-%x.seg", seg.Epoch, seg.First, seg.Next-1, seg.Sum[:8])
}

// segmentWriter makes a segment in memory.
type segmentWriter struct {
	codec       codec
	most        int // bytes at which it is full
	frameEvents int // at which a frame is full

	out   []byte
	index indexV1
	time  int64 // of the last event
	lists map[string]uint32
	frame frameWriter
	has   map[uint32]bool // lists of the frame
}

func newSegmentWriter(c codec, epoch string, first uint64) *segmentWriter {
	return &segmentWriter{codec: c, most: segmentBytes, frameEvents: frameEvents, out: []byte(magic),
		lists: map[string]uint32{}, has: map[uint32]bool{},
		index: indexV1{Epoch: epoch, First: first}}
}

// add adds an event, whose id is above those of earlier ones. full means that the segment should
// end.
func (w *segmentWriter) add(k *store.Kept) (full bool, err error) {
	name := append([]byte{byte(k.Kind)}, k.Collection...)
	if k.Kind != store.KindRecord {
		name = name[:1]
	}
	list, ok := w.lists[string(name)]
	if !ok {
		list = uint32(len(w.index.Lists))
		w.lists[string(name)] = list
		w.index.Lists = append(w.index.Lists, name)
	}
	w.has[list] = true
	if w.frame.events == 0 {
		w.index.Frames = append(w.index.Frames, frameV1{First: k.ID, Time: k.Time})
	}
	w.frame.add(k)
	w.time = k.Time
	if w.frame.bytes < frameBytes && w.frame.events < w.frameEvents {
		return false, nil
	}
	err = w.flush()
	return len(w.out) >= w.most || len(w.index.Frames) >= framesMax ||
		len(w.index.Lists) >= listsMax, err
}

// flush ends the frame.
func (w *segmentWriter) flush() error {
	if w.frame.events == 0 {
		return nil
	}
	raw, err := w.codec.encode(w.frame.pieces)
	if err != nil {
		return err
	}
	f := &w.index.Frames[len(w.index.Frames)-1]
	b := w.codec.compress(raw)
	if len(raw) > frameBytesMax || len(b) > frameBytesMax {
		return fmt.Errorf("the frame from event %d on has %d bytes, at most %d", f.First, len(raw),
			frameBytesMax)
	}
	sum := sha256.Sum256(b)
	f.Offset, f.Bytes, f.Sum = int64(len(w.out)), int64(len(b)), sum[:]
	for list := range len(w.index.Lists) {
		if w.has[uint32(list)] {
			f.Lists = append(f.Lists, uint32(list))
		}
	}
	clear(w.has)
	w.out = append(w.out, b...)
	w.index.Events += int64(w.frame.events)
	w.frame = frameWriter{}
	return nil
}

// end returns the object and its row. Its events end before id next.
func (w *segmentWriter) end(next uint64) ([]byte, store.Segment, error) {
	if err := w.flush(); err != nil {
		return nil, store.Segment{}, err
	}
	w.index.Next = next
	b, err := w.codec.encode(&w.index)
	if err != nil {
		return nil, store.Segment{}, err
	}
	out := append(append(w.out, b...), footer(len(b))...)
	return out, store.Segment{First: w.index.First, Next: next, Events: w.index.Events, Time: w.time,
		Epoch: w.index.Epoch, Bytes: int64(len(out)), Index: int64(len(b)), Sum: sha256.Sum256(b)}, nil
}
