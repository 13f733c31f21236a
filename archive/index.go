package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sort"

	"cistern/filter"
	"cistern/objects"
	"cistern/store"
)

const (
	magic      = "CISTSEG1"
	footerSize = 8 + len(magic)
)

// indexV1 is the index of a segment.
type indexV1 struct {
	Epoch  string    `cbor:"1,keyasint"`
	First  uint64    `cbor:"2,keyasint"`
	Next   uint64    `cbor:"3,keyasint"`
	Events int64     `cbor:"4,keyasint"`
	Lists  [][]byte  `cbor:"5,keyasint"` // a kind and, of records, a collection
	Frames []frameV1 `cbor:"6,keyasint"`
}

// frameV1 says where a frame is, and what it has.
type frameV1 struct {
	_      struct{} `cbor:",toarray"`
	First  uint64   // id of its first event; the frame ends where the next one begins
	Time   int64    // of its first event, unix microseconds
	Offset int64    // in the object
	Bytes  int64
	Sum    []byte   // SHA-256 of the compressed bytes
	Lists  []uint32 // places in indexV1.Lists
}

// parseIndex decodes the index of a segment and checks it against the row.
func parseIndex(c codec, b []byte, seg *store.Segment) (*indexV1, error) {
	if sum := sha256.Sum256(b); sum != seg.Sum {
		return nil, fmt.Errorf("%w: the SHA-256 of its index is %x instead of %x", objects.ErrDamaged,
			sum, seg.Sum)
	}
	x := new(indexV1)
	if err := c.decode(b, x); err != nil {
		return nil, err
	}
	if x.Epoch != seg.Epoch || x.First != seg.First || x.Next != seg.Next || x.Events != seg.Events {
		return nil, fmt.Errorf("%w: it has %d events from %d on and before %d of epoch %.40q",
			objects.ErrDamaged, x.Events, x.First, x.Next, x.Epoch)
	}
	return x, x.check(seg.Bytes - seg.Index - int64(footerSize))
}

// check returns an error unless the frames follow one another, in order and up to the end.
func (x *indexV1) check(end int64) error {
	at, id := int64(len(magic)), x.First
	for i := range x.Frames {
		f := &x.Frames[i]
		ok := f.First >= id && f.First < x.Next && f.Offset == at && f.Bytes > 0 &&
			f.Bytes <= frameBytesMax && f.Bytes <= end-at && len(f.Sum) == sha256.Size
		for _, l := range f.Lists {
			ok = ok && int(l) < len(x.Lists)
		}
		if !ok {
			return fmt.Errorf("%w: frame %d of its index is impossible", objects.ErrDamaged, i)
		}
		at, id = at+f.Bytes, f.First+1
	}
	for _, l := range x.Lists {
		if len(l) == 0 {
			return fmt.Errorf("%w: its index has a list without a kind", objects.ErrDamaged)
		}
	}
	if at != end || len(x.Frames) > framesMax {
		return fmt.Errorf("%w: its %d frames end at byte %d, not %d", objects.ErrDamaged,
			len(x.Frames), at, end)
	}
	return nil
}

// next returns the id at which frame i ends.
func (x *indexV1) next(i int) uint64 {
	if i+1 < len(x.Frames) {
		return x.Frames[i+1].First
	}
	return x.Next
}

// find returns the frame that has the first event from an id on.
func (x *indexV1) find(id uint64) int {
	return sort.Search(len(x.Frames), func(i int) bool { return x.next(i) > id })
}

// wanted returns which lists have events that f wants by their kind and collection.
func (x *indexV1) wanted(f *filter.Events) []bool {
	lists := make([]bool, len(x.Lists))
	for i, l := range x.Lists {
		kind := store.Kind(l[0])
		lists[i] = f.Kind(l[0]) && (kind != store.KindRecord || f.Collection(l[1:]))
	}
	return lists
}

// has reports whether a frame has events of some lists.
func (f *frameV1) has(lists []bool) bool {
	for _, l := range f.Lists {
		if lists[l] {
			return true
		}
	}
	return false
}

// footer ends a segment.
func footer(index int) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(index)), magic...)
}

// whole checks everything of a segment that was read whole, and decodes its frames.
func whole(c codec, b []byte, seg *store.Segment) error {
	end := seg.Bytes - seg.Index - int64(footerSize)
	if int64(len(b)) != seg.Bytes || end < int64(len(magic)) ||
		!bytes.HasPrefix(b, []byte(magic)) || !bytes.HasSuffix(b, footer(int(seg.Index))) {
		return fmt.Errorf("%w: it is not a segment of %d bytes", objects.ErrDamaged, seg.Bytes)
	}
	x, err := parseIndex(c, b[end:end+seg.Index], seg)
	if err != nil {
		return err
	}
	events := int64(0)
	for i := range x.Frames {
		f := &x.Frames[i]
		all, err := x.decode(c, b[f.Offset:f.Offset+f.Bytes], i)
		if err != nil {
			return err
		}
		events += int64(len(all))
	}
	if events != seg.Events {
		return fmt.Errorf("%w: its frames have %d events, its index says %d", objects.ErrDamaged,
			events, seg.Events)
	}
	return nil
}

// decode returns the events of frame i, given its bytes.
func (x *indexV1) decode(c codec, b []byte, i int) ([]store.Kept, error) {
	f := &x.Frames[i]
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:], f.Sum) {
		return nil, fmt.Errorf("%w: the SHA-256 of frame %d is %x instead of %x", objects.ErrDamaged,
			i, sum, f.Sum)
	}
	all, err := decodeFrame(c, b, f.First, x.next(i))
	if err == nil && (len(all) == 0 || all[0].ID != f.First || all[0].Time != f.Time) {
		err = fmt.Errorf("%w: frame %d does not begin with event %d", objects.ErrDamaged, i, f.First)
	}
	return all, err
}

// errIndexPlace refuses an index whose size or place is impossible.
var errIndexPlace = fmt.Errorf("%w: its index is larger than %d bytes, or than the segment",
	objects.ErrDamaged, indexBytesMax)
