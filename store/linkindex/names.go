package linkindex

import (
	"errors"
	"strings"
	"sync"
)

// sourcesBytesMax bounds the sources kept in memory: some 30,000 of usual length. Records may have
// any keys, so that neither their number nor their length has a useful limit.
const sourcesBytesMax = 8 << 20

// errNumbers means that an index has given all its numbers.
var errNumbers = errors.New("all numbers of accounts or sources are given")

// Source is where links come from: a path in the records of a collection.
type Source struct {
	Collection string
	Path       string // with a leading dot, as package links has it
}

// sources remembers the numbers of sources.
type sources struct {
	// mu guards:
	mu      sync.Mutex
	numbers map[Source]uint32
	names   map[uint32]Source // the inverse
	bytes   int
	cleared uint64 // how often: what was read before must not be put after
}

// number returns the number of a source, if it is in memory, and how often the memory was cleared.
func (s *sources) number(of Source) (n uint32, ok bool, cleared uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok = s.numbers[of]
	return n, ok, s.cleared
}

// name is the inverse of number.
func (s *sources) name(n uint32) (of Source, ok bool, cleared uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of, ok = s.names[n]
	return of, ok, s.cleared
}

// put remembers a number that was read when the memory had been cleared so often. When there are
// too many, all are forgotten: they are read again.
func (s *sources) put(of Source, n uint32, cleared uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cleared != cleared {
		return
	}
	if s.bytes >= sourcesBytesMax || s.numbers == nil {
		s.numbers, s.names, s.bytes = map[Source]uint32{}, map[uint32]Source{}, 0
	}
	if _, ok := s.names[n]; !ok {
		s.bytes += sourceBytes + len(of.text())
	}
	s.numbers[of], s.names[n] = n, of
}

func (s *sources) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.numbers, s.names = nil, nil
	s.cleared++
}

// text returns the text of a source in keys. No collection has a zero byte.
func (s Source) text() string { return s.Collection + "\x00" + s.Path }

// sourceNumber returns the number of a source that the index knows; ok is false for another.
func (x *Index) sourceNumber(of Source) (n uint32, ok bool, err error) {
	n, ok, cleared := x.sources.number(of)
	if ok {
		return n, true, nil
	}
	ok, err = x.get(textKey(nil, spaceSourceText, of.text()), func(v []byte) (err error) {
		n, err = parseNumber(v)
		return err
	})
	if ok && err == nil {
		x.sources.put(Source{strings.Clone(of.Collection), strings.Clone(of.Path)}, n, cleared)
	}
	return n, ok, err
}

// sourceName returns the source with a number. ok is false if the index was emptied since the
// number was read.
func (x *Index) sourceName(n uint32) (of Source, ok bool, err error) {
	of, ok, cleared := x.sources.name(n)
	if ok {
		return of, true, nil
	}
	ok, err = x.get(numberKey(nil, spaceSource, n), func(v []byte) error {
		collection, path, found := strings.Cut(string(v), "\x00")
		if !found {
			return damaged("source", v)
		}
		of = Source{collection, path}
		return nil
	})
	if err == nil && ok {
		x.sources.put(of, n, cleared)
	}
	return of, ok, err
}

// accountNumber returns the number of an account that the index knows; ok is false for another.
func (x *Index) accountNumber(did string) (n uint32, ok bool, err error) {
	ok, err = x.get(textKey(nil, spaceAccount, did), func(v []byte) (err error) {
		n, err = parseNumber(v)
		return err
	})
	return n, ok, err
}

// accountDID returns the DID of the account with a number, "" if the index was emptied since the
// number was read.
func (x *Index) accountDID(n uint32) (did string, err error) {
	_, err = x.get(numberKey(nil, spaceDID, n), func(v []byte) error {
		did = string(v)
		return nil
	})
	return did, err
}
