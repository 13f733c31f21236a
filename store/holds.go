package store

import (
	"bytes"
	"errors"

	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
)

// Holds reports whether a record is stored, shown or not, in a collection that match accepts. It
// takes one seek for each collection.
func (s *Store) Holds(o Ordinal, match func(collection []byte) bool) (found bool, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: ordinalKey(nil, spaceRecord, o),
		UpperBound: ordinalKey(nil, spaceRecord, o+1)})
	if err != nil {
		return false, engineError(err)
	}
	for ok := it.First(); ok && err == nil; {
		var path []byte
		if _, path, err = parseRecordKey(it.Key()); err != nil {
			break
		}
		collection, _, valid := repo.SplitPath(path)
		if !valid {
			ok = it.Next()
			continue
		}
		if match(collection) {
			found = true
			break
		}
		ok = it.SeekGE(recordKey(nil, o, append(bytes.Clone(collection), '0')))
	}
	return found, errors.Join(err, engineError(it.Close()))
}
