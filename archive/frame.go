package archive

import (
	"fmt"

	"cistern/ingest/repo"
	"cistern/objects"
	"cistern/store"
)

// pieceV1 is some events of one entry of the log: their ids and times rise by one from ID and Time.
type pieceV1 struct {
	_       struct{} `cbor:",toarray"`
	ID      uint64
	Time    int64
	Kind    uint8
	DID     string
	Ordinal uint64
	Commit  bool
	Live    bool
	Rev     string
	Ops     []opV1   // of records; else there is one event
	About   *aboutV1 // of any other kind
}

// opV1 is one record event. Its CID is the hash of the record and is not stored.
type opV1 struct {
	_      struct{} `cbor:",toarray"`
	Action uint8
	Path   []byte // collection, slash, rkey
	Record []byte // nil for a delete
}

// aboutV1 is what an event of another kind than a record has.
type aboutV1 struct {
	_         struct{} `cbor:",toarray"`
	Status    uint8
	Handle    string
	PDS       string
	Condition uint8
	Reason    uint8
	Since     int64
	NextLook  int64
}

// pieceBytes and opBytes are about the size of a piece and of an op without the texts.
const (
	pieceBytes = 40
	opBytes    = 8
)

// frameWriter gathers events.
type frameWriter struct {
	pieces []pieceV1
	events int
	bytes  int // about, before compression
}

// add adds an event. It copies what is valid during the call only.
func (w *frameWriter) add(k *store.Kept) {
	w.events++
	if k.Kind != store.KindRecord {
		w.bytes += pieceBytes + len(k.DID) + len(k.Rev) + len(k.Handle) + len(k.PDS)
		w.pieces = append(w.pieces, pieceV1{ID: k.ID, Time: k.Time, Kind: uint8(k.Kind), DID: k.DID,
			Live: k.Live, Rev: k.Rev, About: &aboutV1{Status: uint8(k.Status), Handle: k.Handle,
				PDS: k.PDS, Condition: uint8(k.Condition), Reason: uint8(k.Reason), Since: k.Since,
				NextLook: k.NextLook}})
		return
	}
	op := opV1{Action: uint8(k.Action)}
	op.Path = make([]byte, 0, len(k.Collection)+1+len(k.Rkey))
	op.Path = append(append(append(op.Path, k.Collection...), '/'), k.Rkey...)
	if k.Action != store.Delete {
		op.Record = append([]byte{}, k.Record...)
	}
	w.bytes += opBytes + len(op.Path) + len(op.Record)
	if n := len(w.pieces); n > 0 && w.pieces[n-1].precedes(k) {
		w.pieces[n-1].Ops = append(w.pieces[n-1].Ops, op)
		return
	}
	w.bytes += pieceBytes + len(k.DID) + len(k.Rev)
	w.pieces = append(w.pieces, pieceV1{ID: k.ID, Time: k.Time, Kind: uint8(k.Kind), DID: k.DID,
		Ordinal: uint64(k.Ordinal), Commit: k.Commit, Live: k.Live, Rev: k.Rev, Ops: []opV1{op}})
}

// precedes reports whether a record event may be added to the piece.
func (p *pieceV1) precedes(k *store.Kept) bool {
	n := len(p.Ops)
	return n > 0 && k.ID == p.ID+uint64(n) && k.Time == p.Time+int64(n) && k.DID == p.DID &&
		uint64(k.Ordinal) == p.Ordinal && k.Commit == p.Commit && k.Live == p.Live && k.Rev == p.Rev
}

// decodeFrame returns the events of a frame, which are from id first on and before id next, in
// order.
func decodeFrame(c codec, b []byte, first, next uint64) ([]store.Kept, error) {
	raw, err := c.decompress(b)
	if err != nil {
		return nil, err
	}
	var pieces []pieceV1
	if err := c.decode(raw, &pieces); err != nil {
		return nil, err
	}
	var all []store.Kept
	for i := range pieces {
		p := &pieces[i]
		n := uint64(max(len(p.Ops), 1))
		if p.ID < first || p.ID >= next || n > next-p.ID || len(all)+int(n) > frameEvents {
			return nil, fmt.Errorf("%w: events %d and %d more are not in order from %d to %d, or too many",
				objects.ErrDamaged, p.ID, n-1, first, next)
		}
		if all, err = p.appendTo(all); err != nil {
			return nil, err
		}
		first = p.ID + n
	}
	return all, nil
}

// appendTo appends the events of a piece.
func (p *pieceV1) appendTo(all []store.Kept) ([]store.Kept, error) {
	k := store.Kept{Event: store.Event{ID: p.ID, Time: p.Time, Kind: store.Kind(p.Kind), DID: p.DID,
		Live: p.Live, Rev: p.Rev}, Ordinal: store.Ordinal(p.Ordinal), Commit: p.Commit}
	if k.Kind != store.KindRecord {
		if k.Kind == 0 || k.Kind > store.KindRepo || p.About == nil || len(p.Ops) > 0 {
			return nil, fmt.Errorf("%w: event %d of kind %d", objects.ErrDamaged, p.ID, p.Kind)
		}
		a := p.About
		k.Status, k.Handle, k.PDS = store.Status(a.Status), a.Handle, a.PDS
		k.Condition, k.Reason = store.Condition(a.Condition), store.ErrorKind(a.Reason)
		k.Since, k.NextLook = a.Since, a.NextLook
		return append(all, k), nil
	}
	if len(p.Ops) == 0 {
		return nil, fmt.Errorf("%w: event %d has no operation", objects.ErrDamaged, p.ID)
	}
	for i, op := range p.Ops {
		k.ID, k.Time, k.Action = p.ID+uint64(i), p.Time+int64(i), store.Action(op.Action)
		collection, rkey, ok := repo.SplitPath(op.Path)
		if !ok || k.Action < store.Create || k.Action > store.Delete {
			return nil, fmt.Errorf("%w: event %d of path %.80q, action %d", objects.ErrDamaged, k.ID,
				op.Path, op.Action)
		}
		k.Collection, k.Rkey, k.CID, k.Record = collection, rkey, repo.CID{}, nil
		if k.Action != store.Delete {
			k.Record, k.CID = op.Record, repo.HashCID(op.Record)
		}
		all = append(all, k)
	}
	return all, nil
}
