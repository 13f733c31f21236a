package store

import (
	"bytes"
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// view reads the database at one point in time. It must be short-lived, as it keeps memtables and
// tables from being freed. Pebble's snapshots are for long reads only: each time one is closed,
// Pebble looks through all tables for one to compact, holding the lock that every flush and commit
// needs, so that the cost of a read would grow with the store. An iterator also reads one point in
// time, and so do its clones. A view is not for concurrent use.
type view struct {
	it *pebble.Iterator
}

var _ reader = view{}

var nothing = io.NopCloser(nil) // closer that Get returns

func (s *Store) view() (view, error) {
	it, err := s.db.NewIter(nil)
	return view{it}, engineError(err)
}

// at calls fn with a view.
func (s *Store) at(fn func(reader) error) error {
	v, err := s.view()
	if err != nil {
		return err
	}
	return errors.Join(fn(v), v.close())
}

// Get has the contract of Pebble's Get. The value is valid until the next Get.
func (v view) Get(key []byte) ([]byte, io.Closer, error) {
	// The prefix is the whole key, so that the tables' filters are consulted.
	if !v.it.SeekPrefixGE(key) || !bytes.Equal(v.it.Key(), key) {
		if err := v.it.Error(); err != nil {
			return nil, nil, err
		}
		return nil, nil, pebble.ErrNotFound
	}
	value, err := v.it.ValueAndErr()
	return value, nothing, err
}

func (v view) NewIter(o *pebble.IterOptions) (*pebble.Iterator, error) {
	return v.it.Clone(pebble.CloneOptions{IterOptions: o})
}

func (v view) close() error { return engineError(v.it.Close()) }
