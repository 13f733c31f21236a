package store

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
)

// Segment is a part of the log that an archive has: its events from First on and before Next. The
// rows of segments are what an archive believes: an object without a row is not part of it.
type Segment struct {
	First, Next uint64
	// Events is how many events the segment has; ids whose events will never be shown are left out.
	Events int64
	// Time is that of the last event of this segment and all earlier ones, in unix microseconds.
	Time  int64
	Epoch string // of the log when the segment was written
	Bytes int64  // of the object
	Index int64  // bytes of the index at its end
	// Sum is the SHA-256 of the index, which has the sums of everything else.
	Sum [sha256.Size]byte
}

// The epoch in a row has so many digits at most; those that newEpoch returns have 16.
const (
	epochBytesMax = 64
	hexDigits     = "0123456789abcdef"
)

// segmentV1 is Segment on disk, under its first id.
type segmentV1 struct {
	Next   uint64 `cbor:"1,keyasint"`
	Events int64  `cbor:"2,keyasint"`
	Time   int64  `cbor:"3,keyasint"`
	Epoch  string `cbor:"4,keyasint"`
	Bytes  int64  `cbor:"5,keyasint"`
	Index  int64  `cbor:"6,keyasint"`
	Sum    []byte `cbor:"7,keyasint"`
}

// segments are the rows in memory, some 150 bytes each: a terabyte of 16 MiB is 10 MB.
type segments struct {
	adding sync.Mutex // held while a row is written; taken before mu

	mu  sync.Mutex
	all []Segment // mu guards: each begins where the one before ends; elements do not change
}

func (s *Store) loadSegments() error {
	return scan(s.db, []byte{spaceSegment}, spaceEnd(spaceSegment),
		func(key, value []byte) (bool, error) {
			seg, err := s.parseSegment(key, value)
			if n := len(s.segments.all); err == nil && n > 0 {
				err = seg.follows(&s.segments.all[n-1])
			}
			if err == nil && seg.Next > s.Head()+1 {
				err = fmt.Errorf("segment of events %d to %d ends behind the head %d: %w", seg.First,
					seg.Next-1, s.Head(), ErrCorrupt)
			}
			s.segments.all = append(s.segments.all, seg)
			return true, err
		})
}

// follows returns ErrCorrupt unless a segment begins where another one ends, at no earlier time: a
// search among segments relies on it.
func (g *Segment) follows(last *Segment) error {
	if g.First != last.Next || g.Time < last.Time {
		return fmt.Errorf("segment of events %d to %d, until time %d, does not follow the one up to "+
			"event %d, until time %d: %w", g.First, g.Next-1, g.Time, last.Next-1, last.Time, ErrCorrupt)
	}
	return nil
}

func (s *Store) parseSegment(key, value []byte) (Segment, error) {
	first, err := parseSegmentKey(key)
	if err != nil {
		return Segment{}, err
	}
	var v segmentV1
	if err := s.codec.decode(value, &v); err != nil {
		return Segment{}, fmt.Errorf("segment %d: %w", first, err)
	}
	seg := Segment{First: first, Next: v.Next, Events: v.Events, Time: v.Time, Epoch: v.Epoch,
		Bytes: v.Bytes, Index: v.Index}
	if copy(seg.Sum[:], v.Sum) != len(seg.Sum) || len(v.Sum) != len(seg.Sum) {
		return seg, fmt.Errorf("segment %d: sum %x: %w", first, v.Sum, ErrCorrupt)
	}
	if err := seg.check(); err != nil {
		return seg, fmt.Errorf("%w: %w", err, ErrCorrupt)
	}
	return seg, nil
}

// check returns an error unless the numbers of a segment are possible.
func (g *Segment) check() error {
	// The epoch is a part of the name of an object.
	named := g.Epoch != "" && len(g.Epoch) <= epochBytesMax && strings.Trim(g.Epoch, hexDigits) == ""
	if g.First == 0 || g.Next <= g.First || g.Events < 0 || uint64(g.Events) > g.Next-g.First ||
		!named || g.Index <= 0 || g.Bytes < g.Index {
		return fmt.Errorf("segment of events %d to %d has impossible numbers: %d events, epoch %.80q, "+
			"index %d of %d bytes", g.First, g.Next, g.Events, g.Epoch, g.Index, g.Bytes)
	}
	return nil
}

// Segments returns the segments of the archive, which follow one another and reach at least to the
// tail of the log; none if events between them and the tail were pruned. The caller must not write
// into them.
func (s *Store) Segments() []Segment {
	g := &s.segments
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(g.all); n == 0 || g.all[n-1].Next < s.Tail() {
		return nil
	}
	return slices.Clip(g.all)
}

// AddSegment records a segment whose object is stored and was read back: from then on its events
// may be pruned. It must begin where the segments end; without segments, or if they do not reach
// the tail any more, at the tail, and it takes the place of the others. It is durable on return.
// One goroutine adds segments.
func (s *Store) AddSegment(seg Segment) error {
	if err := seg.check(); err != nil {
		return err
	}
	g := &s.segments
	g.adding.Lock()
	defer g.adding.Unlock()
	defer s.KeepTail()() // the tail that a first segment begins at
	old, want, since := s.Segments(), s.Tail(), int64(math.MinInt64)
	if len(old) > 0 {
		want, since = old[len(old)-1].Next, old[len(old)-1].Time
	}
	if seg.First != want || seg.Next > s.Head()+1 || seg.Time < since {
		return fmt.Errorf("segment of events %d to %d until time %d: want one from %d on, up to the "+
			"head %d, until time %d or later", seg.First, seg.Next-1, seg.Time, want, s.Head(), since)
	}
	b := s.NewBatch()
	if len(old) == 0 {
		b.fail(b.b.DeleteRange([]byte{spaceSegment}, spaceEnd(spaceSegment), nil))
	}
	b.put(segmentKey(b.key[:0], seg.First), segmentV1{seg.Next, seg.Events, seg.Time, seg.Epoch,
		seg.Bytes, seg.Index, seg.Sum[:]})
	if err := b.CommitSync(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(old) == 0 {
		g.all = nil
	}
	g.all = append(g.all, seg)
	return nil
}

// ForgetSegments forgets the segments before the one that begins with event first: their objects
// were deleted. It is durable on return. The goroutine that adds segments calls it.
func (s *Store) ForgetSegments(first uint64) error {
	g := &s.segments
	g.adding.Lock()
	defer g.adding.Unlock()
	all := s.Segments()
	i := slices.IndexFunc(all, func(seg Segment) bool { return seg.First == first })
	if i < 0 {
		return fmt.Errorf("no segment begins with event %d", first)
	}
	b := s.NewBatch()
	b.fail(b.b.DeleteRange([]byte{spaceSegment}, segmentKey(nil, first), nil))
	if err := b.CommitSync(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = slices.Clone(all[i:])
	return nil
}

// archived returns the event before which the archive has all events, 0 without an archive.
func (s *Store) archived() uint64 {
	all := s.Segments()
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].Next
}

// Oldest returns the oldest id that the log has or, with Options.Archive, the archive.
func (s *Store) Oldest() uint64 {
	tail := s.Tail() // before the segments, the first of which may be added and its events pruned now
	if !s.opts.Archive {
		return tail
	}
	if all := s.Segments(); len(all) > 0 {
		return min(all[0].First, tail)
	}
	return tail
}

// checkSegments checks that segments follow one another and end in the log.
func checkSegments(c *checker) error {
	var last Segment
	return c.space(spaceSegment, func(key, value []byte) error {
		seg, err := c.s.parseSegment(key, value)
		switch {
		case err != nil:
			c.report("segments: %v", err)
		case last.Next != 0 && seg.follows(&last) != nil:
			c.report("segments: %v", seg.follows(&last))
		case seg.Next > c.next:
			c.report("segments: one ends before event %d, the next event is %d", seg.Next, c.next)
		}
		last = seg
		return nil
	})
}
