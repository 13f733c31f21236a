package store

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// collectionHiddenMax bounds the hidden accounts that a page of ReposByCollection passes: some
// milliseconds of work.
const collectionHiddenMax = 1000

// ReposByCollection lists the accounts that show records in at least one of the collections, in the
// order of first imports, after an ordinal; of no collections, all accounts with a copy. Hidden
// accounts are left out. It stops where ReposByOrdinal does. A page may be short or empty before
// the end: next is the ordinal to go on after, and ended reports whether none follows by now.
func (s *Store) ReposByCollection(
	collections []string, after Ordinal, limit int,
) (page []Repo, next Ordinal, ended bool, err error) {
	next = after
	end := s.ords.lowestOpen()
	if after >= OrdinalMax || after+1 >= end {
		return nil, next, true, nil
	}
	err = s.at(func(rd reader) error {
		m, err := newOrdinalMerge(rd, collections, after+1, end)
		if err != nil {
			return err
		}
		for hidden := 0; err == nil && len(page) < limit && hidden < collectionHiddenMax; {
			o := m.lowest()
			if ended = o >= end; ended {
				break
			}
			next = o
			var row Repo
			if row, err = s.owner(rd, o); err == nil && row.Ordinal == o && !row.Status.Hidden() {
				page = append(page, row)
			} else {
				hidden++
			}
			err = errors.Join(err, m.pass(o))
		}
		return errors.Join(err, m.close())
	})
	return page, next, ended, err
}

// owner returns the row of the repository with an ordinal. It is the zero Repo if the row is gone.
func (s *Store) owner(rd reader, o Ordinal) (row Repo, err error) {
	var did string
	err = get(rd, ordinalKey(nil, spaceOwner, o), func(v []byte) (err error) {
		did, err = parseDID(v)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return row, fmt.Errorf("ordinal %d is in the index of collections, and has no owner: %w",
			o, ErrCorrupt)
	}
	if err != nil {
		return row, err
	}
	if row, err = s.loadRepo(rd, did); errors.Is(err, ErrNotFound) {
		return Repo{}, nil
	}
	return row, err
}

// ordinalMerge merges the ordinals of collections, each in rising order.
type ordinalMerge struct {
	it       *pebble.Iterator
	prefixes [][]byte  // of the keys of each collection
	heads    []Ordinal // lowest ordinal of each that is not passed yet; end: none
	end      Ordinal
	key      []byte
}

func newOrdinalMerge(rd reader, collections []string, from, end Ordinal) (*ordinalMerge, error) {
	space := byte(spaceCollection)
	if len(collections) == 0 {
		space = spaceOwner
	}
	it, err := rd.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: spaceEnd(space)})
	if err != nil {
		return nil, engineError(err)
	}
	m := &ordinalMerge{it: it, end: end}
	if len(collections) == 0 {
		m.prefixes = [][]byte{{space}}
	}
	for _, c := range collections {
		key := collectionKey(nil, []byte(c), 0)
		m.prefixes = append(m.prefixes, key[:len(key)-ordinalBytes])
	}
	m.heads = make([]Ordinal, len(m.prefixes))
	for i := range m.heads {
		if err := m.seek(i, from); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	return m, nil
}

// seek moves the head of a collection to its first ordinal from o on.
func (m *ordinalMerge) seek(i int, o Ordinal) error {
	m.heads[i] = m.end
	prefix := m.prefixes[i]
	m.key = appendOrdinal(append(m.key[:0], prefix...), o)
	if !m.it.SeekGE(m.key) {
		return engineError(m.it.Error())
	}
	if key := m.it.Key(); len(key) == len(m.key) && slices.Equal(key[:len(prefix)], prefix) {
		m.heads[i] = min(parseOrdinal(key[len(prefix):]), m.end)
	}
	return nil
}

// lowest returns the lowest ordinal that is not passed, or end.
func (m *ordinalMerge) lowest() Ordinal { return slices.Min(m.heads) }

// pass passes an ordinal in all collections.
func (m *ordinalMerge) pass(o Ordinal) (err error) {
	for i := range m.heads {
		if m.heads[i] == o {
			err = errors.Join(err, m.seek(i, o+1))
		}
	}
	return err
}

func (m *ordinalMerge) close() error { return engineError(m.it.Close()) }
