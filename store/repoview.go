package store

import (
	"bytes"
	"errors"
	"fmt"

	"cistern/filter"

	"github.com/cockroachdb/pebble/v2"
)

// RepoView reads one repository at one point in time, whatever is written meanwhile. It keeps
// memtables and tables from being freed until it is closed, so that a caller needs a deadline. It
// belongs to one goroutine at a time.
type RepoView struct {
	s      *Store
	view   view
	repo   Repo
	rows   *pebble.Iterator // of Scan
	at     *pebble.Iterator // of Find
	blocks *blockCursor
	key    []byte // scratch
	upper  []byte // scratch
}

// ViewRepo returns a view of a repository, or ErrNotFound. The caller decides by Repo whether it
// may be shown, and closes it.
func (s *Store) ViewRepo(did string) (*RepoView, error) {
	base, err := s.view()
	if err != nil {
		return nil, err
	}
	v := &RepoView{s: s, view: base}
	if v.repo, err = s.loadRepo(base, did); err == nil {
		err = v.open()
	}
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

func (v *RepoView) open() (err error) {
	bounds := &pebble.IterOptions{LowerBound: ordinalKey(nil, spaceRecord, v.repo.Ordinal),
		UpperBound: ordinalKey(nil, spaceRecord, v.repo.Ordinal+1)}
	if v.rows, err = v.view.NewIter(bounds); err != nil {
		return engineError(err)
	}
	if v.at, err = v.view.NewIter(bounds); err != nil {
		return engineError(err)
	}
	v.blocks, err = newBlockCursor(v.view, v.repo.Ordinal)
	return err
}

// Repo returns the row of the repository. It must not be changed.
func (v *RepoView) Repo() *Repo { return &v.repo }

// Filter returns the filter that chose the records. The error is ErrStale if the store does not
// have it any more, since the repository has another one by now.
func (v *RepoView) Filter() (*filter.Filter, error) {
	f, err := v.s.FilterAt(v.repo.Filter)
	if err != nil {
		if now, rerr := v.s.RepoOrNew(v.repo.DID); rerr != nil || now.Filter != v.repo.Filter {
			return nil, errors.Join(ErrStale, rerr)
		}
	}
	return f, err
}

// Scan calls fn for the record rows behind one path and before another, in MST key order, until fn
// returns an error. A nil path is no bound. Rows are valid during the call of fn.
func (v *RepoView) Scan(after, before []byte, fn func(Row) error) error {
	v.key = recordKey(v.key[:0], v.repo.Ordinal, after)
	if after != nil {
		v.key = append(v.key, 0)
	}
	v.upper = recordKey(v.upper[:0], v.repo.Ordinal, before)
	for ok := v.rows.SeekGE(v.key); ok; ok = v.rows.Next() {
		if before != nil && bytes.Compare(v.rows.Key(), v.upper) >= 0 {
			return nil
		}
		row, err := rowAt(v.rows)
		if err == nil {
			err = fn(row)
		}
		if err != nil {
			return err
		}
	}
	return engineError(v.rows.Error())
}

// Find returns the row of a path, or ErrNotFound. It is valid until the next call. Paths in the
// order of keys are found fastest.
func (v *RepoView) Find(path []byte) (Row, error) {
	v.key = recordKey(v.key[:0], v.repo.Ordinal, path)
	found := v.at.Valid() && v.at.Next() && bytes.Equal(v.at.Key(), v.key)
	if !found && (!v.at.SeekGE(v.key) || !bytes.Equal(v.at.Key(), v.key)) {
		if err := v.at.Error(); err != nil {
			return Row{}, engineError(err)
		}
		return Row{}, ErrNotFound
	}
	return rowAt(v.at)
}

// Body returns the record in a block that a row of this view names, valid until the next call.
func (v *RepoView) Body(block uint32) ([]byte, error) {
	body, err := v.blocks.get(block)
	if err != nil {
		err = fmt.Errorf("record of %s: %w", v.repo.DID, err)
	}
	return body, err
}

// Close releases what the view keeps. It is called once.
func (v *RepoView) Close() error {
	var err error
	its := []*pebble.Iterator{v.rows, v.at}
	if v.blocks != nil {
		its = append(its, v.blocks.it)
	}
	for _, it := range its {
		if it != nil {
			err = errors.Join(err, engineError(it.Close()))
		}
	}
	return errors.Join(err, v.view.close())
}
