package store

import "fmt"

// NumbersFrom is below all numbers of a subscription: the ids of the messages of its snapshots. The
// log never has so many events, and every language's numbers are exact up to twice that.
const NumbersFrom = 1 << 52

// SubscriptionPosition is what the consumer of a subscription has acknowledged: every event before
// Next except the outstanding ones, and of a snapshot in progress, all records before its place
// except the outstanding ones. Next is at most the head plus one.
type SubscriptionPosition struct {
	Next        uint64
	Outstanding []uint64 // in rising order; the first may be below the tail of the log
	// Numbered is the last number of the snapshots of the subscription; 0 if it never had one.
	Numbered uint64
	Snapshot *SubscriptionSnapshot // that comes before the log from Next on; nil: none
}

// SubscriptionSnapshot is how far the snapshot of a subscription has come.
type SubscriptionSnapshot struct {
	End         Ordinal        // of its pass
	At          RecordPosition // where the pass goes on
	Read        bool           // the pass has ended
	Records     uint64         // how many became outstanding
	Outstanding []NumberedRecord
	// Last is the number of the message that ends the snapshot, which is outstanding; 0: it is not
	// due yet.
	Last uint64
}

// NumberedRecord is a record of a snapshot that is outstanding.
type NumberedRecord struct {
	Number uint64
	RecordName
}

// positionV1 is a SubscriptionPosition on disk. Steps are differences of ids, which are shorter
// than the ids: the first outstanding one, each to the one before it, and Next to the last.
type positionV1 struct {
	Steps    []uint64    `cbor:"1,keyasint"`
	Numbered uint64      `cbor:"2,keyasint,omitempty"`
	Snapshot *snapshotV1 `cbor:"3,keyasint,omitempty"`
}

// snapshotV1 is a SubscriptionSnapshot on disk.
type snapshotV1 struct {
	End     Ordinal     `cbor:"1,keyasint"`
	DID     string      `cbor:"2,keyasint,omitempty"`
	Ordinal Ordinal     `cbor:"3,keyasint,omitempty"`
	Path    []byte      `cbor:"4,keyasint,omitempty"`
	Read    bool        `cbor:"5,keyasint,omitempty"`
	Records uint64      `cbor:"6,keyasint,omitempty"`
	Last    uint64      `cbor:"7,keyasint,omitempty"`
	Runs    []recordRun `cbor:"8,keyasint,omitempty"`
}

// recordRun has consecutive outstanding records of one account. Steps are differences of their
// numbers, the first to the one before the run.
type recordRun struct {
	_     struct{} `cbor:",toarray"`
	DID   string
	Steps []uint64
	Paths [][]byte
}

func (p SubscriptionPosition) row() positionV1 {
	steps, last := make([]uint64, 0, len(p.Outstanding)+1), uint64(0)
	for _, id := range append(p.Outstanding[:len(p.Outstanding):len(p.Outstanding)], p.Next) {
		steps, last = append(steps, id-last), id
	}
	return positionV1{steps, p.Numbered, p.Snapshot.row()}
}

func (p *SubscriptionSnapshot) row() *snapshotV1 {
	if p == nil {
		return nil
	}
	row := &snapshotV1{p.End, p.At.DID, p.At.Ordinal, p.At.Path, p.Read, p.Records, p.Last, nil}
	before := uint64(0)
	for _, r := range p.Outstanding {
		if n := len(row.Runs); n == 0 || row.Runs[n-1].DID != r.DID {
			row.Runs = append(row.Runs, recordRun{DID: r.DID})
		}
		run := &row.Runs[len(row.Runs)-1]
		run.Steps, before = append(run.Steps, r.Number-before), r.Number
		run.Paths = append(run.Paths, []byte(r.Path))
	}
	return row
}

// position returns the position; ok is false if it is not valid.
func (row positionV1) position() (p SubscriptionPosition, ok bool) {
	id := uint64(0)
	for i, step := range row.Steps {
		if id += step; i < len(row.Steps)-1 {
			p.Outstanding = append(p.Outstanding, id)
		}
	}
	p.Next, p.Numbered = id, row.Numbered
	if row.Snapshot != nil {
		if p.Snapshot, ok = row.Snapshot.snapshot(); !ok {
			return p, false
		}
	}
	return p, p.valid()
}

// snapshot returns the snapshot; ok is false if a run has no account, or not as many paths as
// steps.
func (row *snapshotV1) snapshot() (p *SubscriptionSnapshot, ok bool) {
	p = &SubscriptionSnapshot{End: row.End, Read: row.Read, Records: row.Records, Last: row.Last,
		At: RecordPosition{DID: row.DID, Ordinal: row.Ordinal, Path: row.Path}}
	number := uint64(0)
	for _, run := range row.Runs {
		if run.DID == "" || len(run.Paths) != len(run.Steps) {
			return p, false
		}
		for i, step := range run.Steps {
			number += step
			p.Outstanding = append(p.Outstanding,
				NumberedRecord{number, RecordName{run.DID, string(run.Paths[i])}})
		}
	}
	return p, true
}

// valid reports whether the ids and the numbers rise, the ids are below NumbersFrom, and the
// numbers above it and up to Numbered.
func (p *SubscriptionPosition) valid() bool {
	last := uint64(0)
	for _, id := range p.Outstanding {
		if id <= last {
			return false
		}
		last = id
	}
	return p.Next > last && p.Next < NumbersFrom && (p.Numbered == 0 || p.Numbered >= NumbersFrom) &&
		(p.Snapshot == nil || p.Snapshot.valid(p.Numbered))
}

func (p *SubscriptionSnapshot) valid(numbered uint64) bool {
	last := uint64(NumbersFrom)
	for _, r := range p.Outstanding {
		if r.Number <= last || r.Number > numbered || r.DID == "" {
			return false
		}
		last = r.Number
	}
	return p.Last == 0 ||
		p.Last > NumbersFrom && p.Last <= numbered && p.Read && len(p.Outstanding) == 0
}

// PutSubscriptionPosition writes the position of a subscription.
func (b *control) PutSubscriptionPosition(name string, p SubscriptionPosition) {
	if !p.valid() || name == "" {
		b.fail(fmt.Errorf("position %d of subscription %.80q: its ids do not rise", p.Next, name))
		return
	}
	b.put(subscriptionKey(b.key[:0], spacePosition, name), p.row())
}

// SubscriptionPosition returns the position of a subscription as last written. The error is
// ErrNotFound if it has no row.
func (s *Store) SubscriptionPosition(name string) (p SubscriptionPosition, err error) {
	err = get(s.db, subscriptionKey(nil, spacePosition, name), func(v []byte) error {
		p, err = s.parsePosition(v)
		return err
	})
	if err != nil {
		err = fmt.Errorf("position of subscription %s: %w", name, err)
	}
	return p, err
}

func (s *Store) parsePosition(v []byte) (p SubscriptionPosition, err error) {
	var row positionV1
	if err = s.codec.decode(v, &row); err != nil {
		return p, err
	}
	p, ok := row.position()
	if !ok {
		err = fmt.Errorf("ids up to %d, in %d steps, or numbers up to %d, do not rise: %w", p.Next,
			len(row.Steps), row.Numbered, ErrCorrupt)
	}
	return p, err
}
