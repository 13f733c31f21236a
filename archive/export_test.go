package archive

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"testing"

	"cistern/store"
)

// ReadersMax is readersMax.
const ReadersMax = readersMax

// Busy returns how many pages read segments.
func Busy(a *Archive) int64 { return a.busy.Load() }

// Sample returns a segment, and the CBOR of its frame.
func Sample() (segment, frame []byte, err error) {
	c, err := newCodec()
	if err != nil {
		return nil, nil, err
	}
	w := newSegmentWriter(c, "0123456789abcdef", 5)
	for i := range uint64(4) {
		k := store.Kept{Event: store.Event{ID: 5 + i, Time: int64(i) + 9, Kind: store.KindRecord, DID: "did:plc:a",
			Rev: "r", Action: store.Create, Collection: []byte("a.b.c"), Rkey: []byte{'0' + byte(i)},
			Record: []byte{0xa0}}, Ordinal: 7, Commit: i > 1}
		if i == 3 {
			k = store.Kept{Event: store.Event{ID: 8, Time: 20, Kind: store.KindIdentity, DID: "did:plc:a", Handle: "h"}}
		}
		if _, err := w.add(&k); err != nil {
			return nil, nil, err
		}
	}
	frame, err = c.encode(w.frame.pieces)
	if err != nil {
		return nil, nil, err
	}
	segment, _, err = w.end(9)
	return segment, frame, err
}

// Decode decodes bytes as a frame before and after compression, and as a segment with the sums that
// it should have.
func Decode(t *testing.T, b []byte) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range [][]byte{b, c.compress(b)} {
		all, err := decodeFrame(c, f, 5, 9)
		for i, k := range all {
			if err == nil && (k.ID < 5 || k.ID >= 9 || i > 0 && k.ID <= all[i-1].ID) {
				t.Errorf("event %d", k.ID)
			}
		}
	}
	if len(b) < footerSize {
		return
	}
	n := binary.BigEndian.Uint64(b[len(b)-footerSize:])
	if n == 0 || n > uint64(len(b)-footerSize) {
		return
	}
	index := b[len(b)-footerSize-int(n) : len(b)-footerSize]
	seg := store.Segment{First: 5, Next: 9, Events: 4, Epoch: "0123456789abcdef", Bytes: int64(len(b)),
		Index: int64(n), Sum: sha256.Sum256(index)}
	_ = whole(c, b, &seg)
}

// Forged returns what reading says of segments that no archive wrote, whose index has the sum that
// the row states.
func Forged() (map[string]error, error) {
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	said := map[string]error{}
	for what, change := range map[string]func(x *indexV1, seg *store.Segment){
		"nothing":                func(*indexV1, *store.Segment) {},
		"frames that go down":    func(x *indexV1, _ *store.Segment) { x.Frames[1].First = 4 },
		"frames of one id":       func(x *indexV1, _ *store.Segment) { x.Frames[1].First = x.Frames[0].First },
		"a frame behind the end": func(x *indexV1, _ *store.Segment) { x.Frames[3].First = 9 },
		"a frame at the last id": func(x *indexV1, _ *store.Segment) { x.Frames[3].First = math.MaxUint64 },
		"a frame that begins earlier": func(x *indexV1, _ *store.Segment) {
			x.Frames[3].First = 7
			x.Frames[2].First = 6
			x.Frames[1].First = 5
		},
		"frames exchanged":      func(x *indexV1, _ *store.Segment) { x.Frames[0], x.Frames[1] = x.Frames[1], x.Frames[0] },
		"a frame left out":      func(x *indexV1, _ *store.Segment) { x.Frames = x.Frames[:3] },
		"no frame":              func(x *indexV1, _ *store.Segment) { x.Frames = nil },
		"an overlap":            func(x *indexV1, _ *store.Segment) { x.Frames[1].Offset-- },
		"a negative offset":     func(x *indexV1, _ *store.Segment) { x.Frames[0].Offset = math.MinInt64 },
		"an empty frame":        func(x *indexV1, _ *store.Segment) { x.Frames[0].Bytes = 0 },
		"a long frame":          func(x *indexV1, _ *store.Segment) { x.Frames[0].Bytes = math.MaxInt64 },
		"no sum":                func(x *indexV1, _ *store.Segment) { x.Frames[0].Sum = nil },
		"an unknown list":       func(x *indexV1, _ *store.Segment) { x.Frames[0].Lists = []uint32{math.MaxUint32} },
		"a list without a kind": func(x *indexV1, _ *store.Segment) { x.Lists[0] = nil },
		"another first id":      func(x *indexV1, _ *store.Segment) { x.First = 4 },
		"another end":           func(x *indexV1, _ *store.Segment) { x.Next = math.MaxUint64 },
		"another epoch":         func(x *indexV1, _ *store.Segment) { x.Epoch = "aa" },
		"a row with other ids":  func(_ *indexV1, seg *store.Segment) { seg.First, seg.Next = 6, 10 },
		"more events":           func(x *indexV1, seg *store.Segment) { x.Events, seg.Events = 5, 5 },
		"another time":          func(x *indexV1, _ *store.Segment) { x.Frames[0].Time++ },
		"too many frames": func(x *indexV1, _ *store.Segment) {
			x.Frames = append(x.Frames, make([]frameV1, 2*framesMax)...)
		},
	} {
		b, x, seg, err := sampled(c)
		if err != nil {
			return nil, err
		}
		change(x, &seg)
		index, err := c.encode(x)
		if err != nil {
			return nil, err
		}
		b = append(append(b, index...), footer(len(index))...)
		seg.Bytes, seg.Index, seg.Sum = int64(len(b)), int64(len(index)), sha256.Sum256(index)
		said[what] = whole(c, b, &seg)
	}
	return said, nil
}

// sampled returns the frames of Sample, one for each event, and the index.
func sampled(c codec) (frames []byte, x *indexV1, seg store.Segment, err error) {
	w := newSegmentWriter(c, "0123456789abcdef", 5)
	w.frameEvents = 1
	for i := range uint64(4) {
		k := store.Kept{Event: store.Event{ID: 5 + i, Time: int64(i) + 9, Kind: store.KindRecord, DID: "did:plc:a",
			Rev: "r", Action: store.Create, Collection: []byte("a.b.c"), Rkey: []byte{'0' + byte(i)}, Record: []byte{0xa0}}}
		if _, err := w.add(&k); err != nil {
			return nil, nil, seg, err
		}
	}
	b, seg, err := w.end(9)
	return b[:seg.Bytes-seg.Index-int64(footerSize)], &w.index, seg, err
}

// ForgedFrames returns what decoding says of frames with events from id 5 on and before id 9 that no
// archive wrote.
func ForgedFrames() (map[string]error, error) {
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	op := opV1{Action: uint8(store.Create), Path: []byte("a.b.c/1"), Record: []byte{0xa0}}
	about := pieceV1{ID: 5, Kind: uint8(store.KindIdentity), About: &aboutV1{}}
	ops := func(id uint64, n int) pieceV1 {
		p := pieceV1{ID: id, Kind: uint8(store.KindRecord)}
		for range n {
			p.Ops = append(p.Ops, op)
		}
		return p
	}
	with := func(p pieceV1, change func(*pieceV1)) pieceV1 { change(&p); return p }
	said := map[string]error{}
	for what, pieces := range map[string][]pieceV1{
		"nothing":                        {ops(5, 2), ops(8, 1)},
		"ids that overlap":               {ops(5, 2), ops(6, 1)},
		"ids that go down":               {ops(8, 1), ops(5, 1)},
		"ids before the frame":           {ops(4, 1)},
		"ids behind the frame":           {ops(8, 2)},
		"the last id":                    {ops(math.MaxUint64, 2)},
		"too many events":                {ops(5, frameEvents+1)},
		"a kind without a name":          {with(about, func(p *pieceV1) { p.Kind = 0 })},
		"an unknown kind":                {with(about, func(p *pieceV1) { p.Kind = 200 })},
		"an event about nothing":         {with(about, func(p *pieceV1) { p.About = nil })},
		"an identity with records":       {with(about, func(p *pieceV1) { p.Ops = []opV1{op} })},
		"a record event without records": {with(about, func(p *pieceV1) { p.Kind = uint8(store.KindRecord) })},
		"an unknown action":              {with(ops(5, 1), func(p *pieceV1) { p.Ops[0].Action = 9 })},
		"a path without a key":           {with(ops(5, 1), func(p *pieceV1) { p.Ops[0].Path = []byte("a.b.c") })},
		"a path that climbs":             {with(ops(5, 1), func(p *pieceV1) { p.Ops[0].Path = []byte("../../x") })},
	} {
		raw, err := c.encode(pieces)
		if err != nil {
			return nil, err
		}
		_, said[what] = decodeFrame(c, c.compress(raw), 5, 9)
	}
	bomb := c.compress(make([]byte, 64<<20))
	_, said["a frame that expands"] = decodeFrame(c, bomb, 5, 9)
	return said, nil
}
