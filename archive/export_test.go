package archive

import (
	"crypto/sha256"
	"encoding/binary"
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
