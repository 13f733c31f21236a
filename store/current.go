package store

import (
	"bytes"
	"context"
	"errors"

	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
)

// RecordName names a record of an account, whatever the ordinal of its repository.
type RecordName struct {
	DID  string
	Path string // collection/rkey
}

// ReadCurrent calls fn for each named record that is shown, in the order of names, with the place
// of its name, as an event that creates it (without an id, a time, or Live), until fn returns
// false. It returns when the state that it saw is durable: a record that it left out is gone also
// after a crash. Events are valid during the call of fn. It is fastest if the records of a
// repository are next to each other, in order of path.
func (s *Store) ReadCurrent(
	ctx context.Context, names []RecordName, fn func(place int, ev *Event) bool,
) error {
	r := currentReader{s: s, fn: fn}
	if err := s.at(func(rd reader) error { return r.read(ctx, rd, names) }); err != nil {
		return err
	}
	return s.Settled(ctx)
}

// currentReader reads records by name.
type currentReader struct {
	s  *Store
	fn func(int, *Event) bool

	view   reader
	rows   *pebble.Iterator // records
	did    string           // of the last record
	repo   Repo
	blocks *blockCursor // of repo; nil: none
	key    []byte
	full   bool // fn returned false
}

func (r *currentReader) read(ctx context.Context, rd reader, names []RecordName) (err error) {
	r.view = rd
	r.rows, err = rd.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceRecord},
		UpperBound: spaceEnd(spaceRecord)})
	if err != nil {
		return engineError(err)
	}
	for i := 0; i < len(names) && !r.full && err == nil; i++ {
		if err = ctx.Err(); err == nil {
			err = r.one(i, names[i])
		}
	}
	return errors.Join(err, r.leave(), engineError(r.rows.Close()))
}

// leave ends the reading of blocks of the last repository.
func (r *currentReader) leave() error {
	if r.blocks == nil {
		return nil
	}
	err := engineError(r.blocks.it.Close())
	r.blocks = nil
	return err
}

// enter goes to a repository.
func (r *currentReader) enter(did string) (err error) {
	if err := r.leave(); err != nil {
		return err
	}
	r.did = did
	if r.repo, err = r.s.loadRepo(r.view, did); errors.Is(err, ErrNotFound) {
		r.repo, err = Repo{}, nil
	}
	if err != nil || r.repo.Ordinal == 0 || r.repo.Status.Hidden() {
		return err
	}
	r.blocks, err = newBlockCursor(r.view, r.repo.Ordinal)
	return err
}

// one reads one record.
func (r *currentReader) one(place int, name RecordName) error {
	if r.did != name.DID || r.did == "" {
		if err := r.enter(name.DID); err != nil {
			return err
		}
	}
	if r.blocks == nil { // it shows nothing
		return nil
	}
	r.key = recordKey(r.key[:0], r.repo.Ordinal, []byte(name.Path))
	if !r.rows.SeekGE(r.key) || !bytes.Equal(r.rows.Key(), r.key) {
		return engineError(r.rows.Error())
	}
	row, err := parseRecordRow(r.rows.Value())
	collection, rkey, valid := repo.SplitPath([]byte(name.Path))
	if err != nil || row.place() != shown || !valid {
		return err
	}
	ev := Event{Kind: KindRecord, DID: name.DID, Rev: string(row.rev), Action: Create,
		Collection: collection, Rkey: rkey, CID: row.cid}
	if ev.Record, err = r.blocks.get(row.block); err == nil {
		r.full = !r.fn(place, &ev)
	}
	return err
}
