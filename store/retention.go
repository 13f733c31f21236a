package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// pruneInterval is the default of Options.PruneEvery.
	pruneInterval = time.Minute
	// ageMarksMax bounds the marks kept, of about 20 bytes each, and ageSteps is the number of
	// steps that the time, and the size, between the first and the last is divided into: an event
	// stays for up to 1/256 longer than retention.
	ageMarksMax = 2048
	ageSteps    = 256
	// ageStepMax is the longest step of the clock that is counted while there is no retention.
	ageStepMax = 24 * time.Hour
	// supersededBytes is the size of a row of a superseded block.
	supersededBytes = 1 + idBytes + ordinalBytes + blockBytes
)

// ages maps an age, and a size, to the event at which the log stood then, by a clock that cannot
// jump: it counts the time that passes, and leaves out a step of the clock that is negative, or
// longer than both the retention and two usual steps. The times of events cannot serve: if the
// clock was ahead once, events are dated ahead until the true time has caught up, and if it was
// behind, events are dated long ago.
type ages struct {
	mu sync.Mutex // of Prune, guards what follows
	agesV1
	every time.Duration // Options.PruneEvery
	at    time.Time     // of the last step
}

// agesV1 is ages on disk.
type agesV1 struct {
	Age     int64     `cbor:"1,keyasint"` // microseconds counted so far
	Wall    int64     `cbor:"2,keyasint"` // unix microseconds of that moment
	Marks   []ageMark `cbor:"3,keyasint"` // in rising order of both fields
	Anchors []anchor  `cbor:"4,keyasint,omitempty"`
	Bytes   int64     `cbor:"5,keyasint,omitempty"` // counted so far: see growth
}

// ageMark states that events before Next are at least as old as Age, and that Bytes had been
// counted when the last of them was written.
type ageMark struct {
	_     struct{} `cbor:",toarray"`
	Age   int64
	Next  uint64
	Bytes int64
}

func (s *Store) loadAges() error {
	s.ages.every = s.opts.PruneEvery
	err := get(s.db, metaKey(metaAges),
		func(v []byte) error { return s.codec.decode(v, &s.ages.agesV1) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	s.ages.at = time.UnixMicro(s.ages.Wall)
	s.anchors.all = slices.Clone(s.ages.Anchors)
	return err
}

// PruneEvery is how often Prune must be called.
func (s *Store) PruneEvery() time.Duration { return s.opts.PruneEvery }

// Prune removes from the log what is older than Options.Retention or beyond Options.RetentionBytes,
// and is not awaited. It must be called every PruneEvery, also if nothing is ever removed: a call
// counts the time and the growth of the log since the last one. Calls wait for each other. It calls
// progress after each page with the number of event ids that the log has left, and the number that
// it will have left, as far as is known. When ctx ends it stops after a page, and a later call
// continues. The blocks of removed events are left to CollectGarbage.
func (s *Store) Prune(ctx context.Context, progress func(done, total int64)) error {
	if err := s.retain(ctx, s.opts.Retention, progress); err != nil {
		return fmt.Errorf("prune the log: %w", err)
	}
	return nil
}

func (s *Store) retain(ctx context.Context, retention time.Duration,
	progress func(done, total int64)) (err error) {
	s.ages.mu.Lock()
	defer s.ages.mu.Unlock()
	from := s.Tail()
	for more := true; more && err == nil; {
		var to uint64
		to, more, err = s.retainPage(ctx, retention)
		s.logBytes.Store(s.ages.forget(s.Tail()))
		progress(int64(s.Tail()-from), int64(max(to, s.Tail())-from))
	}
	return err
}

// retainPage removes a page of events, and returns the event before which it would remove all.
func (s *Store) retainPage(ctx context.Context, retention time.Duration) (to uint64, more bool,
	err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	head := s.Head() // before its bytes are taken, so that a mark never counts too few
	if err := s.measure(); err != nil {
		return 0, false, err
	}
	now := s.now()
	if skipped := s.ages.step(now, retention); skipped > 0 && retention > 0 {
		s.opts.Logger.Warn("the clock jumped, or the daemon was stopped for longer than --retention: "+
			"this time is not counted, so that events stay in the log for that much longer",
			"jump", skipped)
	}
	s.ages.note(head + 1)
	expired := max(s.ages.before(retention), s.ages.beyond(s.opts.RetentionBytes))
	to = s.anchors.limit(&s.ages.agesV1, s.opts.SnapshotRetention, expired)
	if s.opts.Archive {
		to = min(to, s.archived())
	}
	if err := s.saveAges(now); err != nil || retention == 0 && s.opts.RetentionBytes == 0 {
		return 0, false, err
	}
	return s.pruneAcknowledged(to)
}

// pruneAcknowledged prunes a page of the events before expired that no durable subscription keeps.
func (s *Store) pruneAcknowledged(expired uint64) (to uint64, more bool, err error) {
	s.backlogs.tail.Lock()
	defer s.backlogs.tail.Unlock()
	if to, err = s.awaited(expired); err != nil {
		return 0, false, err
	}
	more, err = s.pruneEntries(to)
	return to, more, err
}

// ArchiveBefore returns the id before which all events are older than age, or are to be pruned but
// for the archive. Age 0 means all events of the log. It waits for Prune.
func (s *Store) ArchiveBefore(age time.Duration) uint64 {
	if age == 0 {
		return s.Head() + 1
	}
	s.ages.mu.Lock()
	defer s.ages.mu.Unlock()
	return max(s.ages.before(age), s.ages.before(s.opts.Retention),
		s.ages.beyond(s.opts.RetentionBytes))
}

// saveAges does not wait for the disk: if a crash loses the write, events stay longer.
func (s *Store) saveAges(now time.Time) error {
	s.ages.Wall = now.UnixMicro()
	v, err := s.codec.encode(&s.ages.agesV1)
	if err != nil {
		return err
	}
	b := s.db.NewBatch()
	if err := b.Set(metaKey(metaAges), v, nil); err != nil {
		return errors.Join(err, b.Close())
	}
	return s.apply(b, pebble.NoSync)
}

// step counts the time since the last step, unless it is negative or longer than both retention and
// two usual steps, as a short retention would count no step otherwise: then it is skipped.
func (a *ages) step(now time.Time, retention time.Duration) (skipped time.Duration) {
	d := now.Sub(a.at)
	first := a.at.IsZero()
	a.at = now
	if retention == 0 {
		retention = ageStepMax
	}
	switch {
	case first || d < 0:
	case d > max(retention, 2*a.every):
		return d
	default:
		a.Age += d.Microseconds()
	}
	return 0
}

// note adds a mark at next, the next event id of the log, unless little time and few bytes have
// come since the last mark. When there are too many marks, every second one is dropped.
func (a *ages) note(next uint64) {
	if n := len(a.Marks); n > 0 {
		first, last := a.Marks[0], a.Marks[n-1]
		age, size := a.Age-last.Age, a.Bytes-last.Bytes
		small := age < (last.Age-first.Age)/ageSteps && size < (last.Bytes-first.Bytes)/ageSteps
		if last.Next == next || small || age < a.every.Microseconds()/2 {
			return
		}
	}
	a.Marks = append(a.Marks, ageMark{Age: a.Age, Next: next, Bytes: a.Bytes})
	if len(a.Marks) <= ageMarksMax {
		return
	}
	kept := a.Marks[:0]
	for i := 0; i < len(a.Marks); i += 2 {
		kept = append(kept, a.Marks[i])
	}
	a.Marks = kept
}

// before returns the id before which all events are older than retention, 0 if none is known. With
// 0 none is.
func (a *ages) before(retention time.Duration) (to uint64) {
	if retention == 0 {
		return 0
	}
	return a.last(func(m ageMark) bool { return m.Age <= a.Age-retention.Microseconds() })
}

// beyond returns the id from which on the log has at least so many bytes, 0 if it has fewer. With 0
// there is no bound.
func (a *ages) beyond(bytes int64) (to uint64) {
	if bytes == 0 {
		return 0
	}
	return a.last(func(m ageMark) bool { return m.Bytes <= a.Bytes-bytes })
}

// last returns where the last mark is that holds. The marks before it hold too.
func (a *ages) last(holds func(ageMark) bool) (next uint64) {
	n := sort.Search(len(a.Marks), func(i int) bool { return !holds(a.Marks[i]) })
	if n == 0 {
		return 0
	}
	return a.Marks[n-1].Next
}

// ageOf returns how old an event is at least.
func (a *ages) ageOf(id uint64) time.Duration {
	n := sort.Search(len(a.Marks), func(i int) bool { return a.Marks[i].Next > id })
	if n == len(a.Marks) {
		return 0
	}
	return time.Duration(a.Age-a.Marks[n].Age) * time.Microsecond
}

// forget drops the marks that tell nothing about the events from tail on, and returns how many
// bytes the log has.
func (a *ages) forget(tail uint64) (bytes int64) {
	n := sort.Search(len(a.Marks), func(i int) bool { return a.Marks[i].Next > tail })
	a.Marks = a.Marks[max(n-1, 0):]
	if len(a.Marks) == 0 {
		return a.Bytes
	}
	return a.Bytes - a.Marks[0].Bytes
}

// growth counts what is written to the log: rows of entries and of listings, before compression,
// and the blocks that a change supersedes, which only the log keeps from then on; in an ephemeral
// store all records and blocks, when they are written. Nothing has to
// read the rows again for it, and pruning need not know what it frees. A crash loses the count of
// up to a minute, and the log is then that much larger than it may be.
type growth struct {
	bytes      atomic.Int64
	superseded atomic.Int64 // blocks
}

// wrote counts a row.
func (g *growth) wrote(key, value []byte) { g.bytes.Add(int64(len(key) + len(value))) }

// measure adds what was written since the last call to the bytes counted so far. A superseded block
// counts as the mean of all blocks on disk.
func (s *Store) measure() error {
	s.ages.Bytes += s.growth.bytes.Swap(0)
	n := s.growth.superseded.Swap(0)
	if n == 0 {
		return nil
	}
	tables, err := s.tableBytes()
	if err != nil {
		return err
	}
	s.seq.mu.Lock()
	blocks := s.seq.counts[countBlocks]
	s.seq.mu.Unlock()
	s.ages.Bytes += n * (supersededBytes + tables[spaceBlock]/max(blocks, 1))
	return nil
}
