package store

import (
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	"cistern/filter"
)

// RefilterCursor names the crawl cursor of the pass that brings repositories to the filter in force: the last DID
// it is done with. SetFilter sets it to ""; it is dropped when the pass is over.
const RefilterCursor = "refilter"

// FilterVersion is a filter under its number. The first that is set has number 1; 0 is the zero Filter.
type FilterVersion struct {
	*filter.Filter
	Version uint32
}

// filters are all versions there were: rows name them.
type filters struct {
	mu  sync.Mutex                       // held while a version is added
	all atomic.Pointer[[]*filter.Filter] // by version
}

// loadFilters reads the versions. That in force is the last.
func (s *Store) loadFilters() error {
	all := []*filter.Filter{new(filter.Filter)}
	err := scan(s.db, []byte{spaceFilter}, spaceEnd(spaceFilter), func(key, value []byte) (bool, error) {
		version, err := parseFilterKey(key)
		if err != nil {
			return false, err
		}
		if int(version) != len(all) {
			return false, fmt.Errorf("filter version %d follows %d: %w", version, len(all)-1, ErrCorrupt)
		}
		var c filter.Config
		if err := s.codec.decode(value, &c); err != nil {
			return false, err
		}
		f, err := filter.Compile(c)
		if err != nil {
			return false, fmt.Errorf("filter version %d: %w: %w", version, err, ErrCorrupt)
		}
		all = append(all, f)
		return true, nil
	})
	s.filters.all.Store(&all)
	return err
}

// Filter is the filter in force.
func (s *Store) Filter() FilterVersion {
	all := *s.filters.all.Load()
	return FilterVersion{all[len(all)-1], uint32(len(all) - 1)}
}

// FilterAt is the filter that had a number.
func (s *Store) FilterAt(version uint32) (*filter.Filter, error) {
	all := *s.filters.all.Load()
	if int64(version) >= int64(len(all)) {
		return nil, fmt.Errorf("filter version %d of %d: %w", version, len(all)-1, ErrCorrupt)
	}
	return all[version], nil
}

// SetFilter puts a filter in force, and says in the same batch that every repository is to be brought to it. It is
// durable on return. One that says what the one in force says changes nothing.
func (s *Store) SetFilter(c filter.Config) (FilterVersion, error) {
	f, err := filter.Compile(c)
	if err != nil {
		return FilterVersion{}, err
	}
	s.filters.mu.Lock()
	defer s.filters.mu.Unlock()
	all := *s.filters.all.Load()
	if len(all) > 1 && reflect.DeepEqual(all[len(all)-1].Config(), f.Config()) {
		return s.Filter(), nil
	}
	if len(all) > filterVersionsMax {
		return FilterVersion{}, fmt.Errorf("the filter was changed more than %d times", filterVersionsMax)
	}
	defer s.Lock(RefilterCursor)() // whoever moves the cursor holds it
	b := s.NewBatch()
	v, err := s.codec.encode(f.Config())
	b.fail(err)
	b.set(filterKey(nil, uint32(len(all))), v)
	b.SetCrawlCursor(RefilterCursor, "")
	if err := b.CommitSync(); err != nil {
		return FilterVersion{}, err
	}
	next := append(all[:len(all):len(all)], f)
	s.filters.all.Store(&next)
	return s.Filter(), nil
}

// filterVersionsMax bounds the versions, all of which are kept, in memory too. Operators change filters now and then.
const filterVersionsMax = 1 << 16
