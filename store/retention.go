package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// pruneInterval is how often the log is pruned.
	pruneInterval = time.Minute
	// ageMarksMax bounds the marks kept, of about 15 bytes each, and ageSteps is the number of
	// steps that the time between the first and the last is divided into: an event stays for up to
	// 1/256 longer than retention.
	ageMarksMax = 2048
	ageSteps    = 256
	// ageStepMax is the longest step of the clock that is counted while there is no retention, and
	// ageStepMin the longest that a short retention counts: it must exceed pruneInterval, or no
	// step would count.
	ageStepMax = 24 * time.Hour
	ageStepMin = 2 * pruneInterval
)

// ages maps an age to the event at which the log stood then, by a clock that cannot jump: it counts
// the time that passes, and leaves out a step of the clock that is negative, or longer than both
// the retention and ageStepMin. The times of events cannot serve: if the clock was ahead once,
// events are dated ahead until the true time has caught up, and if it was behind, events are dated
// long ago. Owned by runPrune.
type ages struct {
	agesV1
	at time.Time // of the last step
}

// agesV1 is ages on disk.
type agesV1 struct {
	Age     int64     `cbor:"1,keyasint"` // microseconds counted so far
	Wall    int64     `cbor:"2,keyasint"` // unix microseconds of that moment
	Marks   []ageMark `cbor:"3,keyasint"` // in rising order of both fields
	Anchors []anchor  `cbor:"4,keyasint,omitempty"`
}

// ageMark states that events before Next are at least as old as Age.
type ageMark struct {
	_    struct{} `cbor:",toarray"`
	Age  int64
	Next uint64
}

func (s *Store) loadAges() error {
	s.ages = ages{}
	err := get(s.db, metaKey(metaAges), func(v []byte) error { return s.codec.decode(v, &s.ages.agesV1) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	s.ages.at = time.UnixMicro(s.ages.Wall)
	s.anchors.all = slices.Clone(s.ages.Anchors)
	return err
}

// runPrune counts the time and prunes the log, until ctx ends.
func (s *Store) runPrune(ctx context.Context) error {
	t := time.NewTicker(pruneInterval)
	defer t.Stop()
	for {
		if err := s.retain(ctx, s.opts.Retention); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("prune the log: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// retain counts the time since the last call and prunes events older than retention; 0 prunes
// nothing.
func (s *Store) retain(ctx context.Context, retention time.Duration) error {
	for more := true; more; {
		now := s.now()
		if skipped := s.ages.step(now, retention); skipped > 0 && retention > 0 {
			s.opts.Logger.Warn("the clock jumped, or the daemon was stopped for longer than --retention: this time is not counted, so that events stay in the log for that much longer",
				"jump", skipped)
		}
		s.ages.note(s.Head() + 1)
		to := s.anchors.limit(&s.ages.agesV1, s.opts.SnapshotRetention, s.ages.before(retention))
		if err := s.saveAges(now); err != nil || retention == 0 {
			return err
		}
		var err error
		if more, err = s.prunePage(ctx, to); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
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
// ageStepMin: then it is skipped.
func (a *ages) step(now time.Time, retention time.Duration) (skipped time.Duration) {
	d := now.Sub(a.at)
	first := a.at.IsZero()
	a.at = now
	if retention == 0 {
		retention = ageStepMax
	}
	switch {
	case first || d < 0:
	case d > max(retention, ageStepMin):
		return d
	default:
		a.Age += d.Microseconds()
	}
	return 0
}

// note adds a mark at next, the next event id of the log, unless the last mark is recent. When
// there are too many marks, every second one is dropped.
func (a *ages) note(next uint64) {
	n := len(a.Marks)
	if n > 0 {
		first, last := a.Marks[0], a.Marks[n-1]
		if last.Next == next || a.Age-last.Age < max(pruneInterval.Microseconds()/2, (last.Age-first.Age)/ageSteps) {
			return
		}
	}
	a.Marks = append(a.Marks, ageMark{Age: a.Age, Next: next})
	if len(a.Marks) <= ageMarksMax {
		return
	}
	kept := a.Marks[:0]
	for i := 0; i < len(a.Marks); i += 2 {
		kept = append(kept, a.Marks[i])
	}
	a.Marks = kept
}

// before returns the id before which all events are older than retention, 0 if none is known. It
// drops marks that no later call needs.
func (a *ages) before(retention time.Duration) (to uint64) {
	if retention == 0 {
		return 0
	}
	for len(a.Marks) > 0 && a.Marks[0].Age <= a.Age-retention.Microseconds() {
		to = a.Marks[0].Next
		if len(a.Marks) == 1 || a.Marks[1].Age > a.Age-retention.Microseconds() {
			break
		}
		a.Marks = a.Marks[1:]
	}
	return to
}
