package store

import (
	"fmt"
	"reflect"
	"slices"
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
	Version    uint32
	Readmitted uint32 // the last version, this one at most, that no longer excludes somebody
}

// filterV1 is a version on disk.
type filterV1 struct {
	Config     filter.Config `cbor:"1,keyasint"`
	Readmitted uint32        `cbor:"2,keyasint,omitempty"`
}

// filters are all versions there were: rows name them. Only that in force knows whom it excludes: lists of thousands that
// are changed often would add up.
type filters struct {
	mu  sync.Mutex                      // held while a version is added
	use sync.RWMutex                    // held by HoldFilter, and while all is replaced
	all atomic.Pointer[[]FilterVersion] // by version
}

// loadFilters reads the versions. That in force is the last.
func (s *Store) loadFilters() error {
	all := []FilterVersion{{Filter: new(filter.Filter)}}
	err := scan(s.db, []byte{spaceFilter}, spaceEnd(spaceFilter), func(key, value []byte) (bool, error) {
		version, err := parseFilterKey(key)
		if err != nil {
			return false, err
		}
		if int(version) != len(all) {
			return false, fmt.Errorf("filter version %d follows %d: %w", version, len(all)-1, ErrCorrupt)
		}
		var v filterV1
		if err := s.codec.decode(value, &v); err != nil {
			return false, err
		}
		f, err := filter.Compile(v.Config)
		if err != nil {
			return false, fmt.Errorf("filter version %d: %w: %w", version, err, ErrCorrupt)
		}
		all = append(all, FilterVersion{f, version, v.Readmitted})
		return true, nil
	})
	s.filters.all.Store(&all)
	return err
}

// Filter is the filter in force.
func (s *Store) Filter() FilterVersion {
	all := *s.filters.all.Load()
	return all[len(all)-1]
}

// FilterAt is the filter that had a number. Whom it excluded is known of the one in force only.
func (s *Store) FilterAt(version uint32) (*filter.Filter, error) {
	all := *s.filters.all.Load()
	if int64(version) >= int64(len(all)) {
		return nil, fmt.Errorf("filter version %d of %d: %w", version, len(all)-1, ErrCorrupt)
	}
	return all[version].Filter, nil
}

// HoldFilter keeps another filter from coming into force until release is called. Whoever follows a repository because
// of what the filter says holds it from asking until that is applied, and before any Lock: whatever brings the store to a
// filter then finds the row.
func (s *Store) HoldFilter() (release func()) {
	s.filters.use.RLock()
	return s.filters.use.RUnlock
}

// SetFilter puts a filter in force, and says in the same batch that every repository is to be brought to it. It is
// durable on return. One that says what the one in force says changes nothing. Called without locks or HoldFilter.
func (s *Store) SetFilter(c filter.Config) (FilterVersion, error) {
	f, err := filter.Compile(c)
	if err != nil {
		return FilterVersion{}, err
	}
	s.filters.mu.Lock()
	defer s.filters.mu.Unlock()
	all := *s.filters.all.Load()
	was := all[len(all)-1]
	if len(all) > 1 && reflect.DeepEqual(was.Config(), f.Config()) {
		return was, nil
	}
	if len(all) > filterVersionsMax {
		return FilterVersion{}, fmt.Errorf("the filter was changed more than %d times", filterVersionsMax)
	}
	defer s.Lock(RefilterCursor)() // whoever moves the cursor holds it
	next := slices.Clone(all)
	v := FilterVersion{f, uint32(len(all)), was.Readmitted}
	if old := was.Config(); len(old.Excludes) > 0 {
		if slices.ContainsFunc(old.Excludes, func(did string) bool { return !f.Excluded(did) }) {
			v.Readmitted = v.Version
		}
		old.Excludes = nil
		if was.Filter, err = filter.Compile(old); err != nil {
			return FilterVersion{}, err
		}
		next[was.Version] = was
	}
	next = append(next, v)
	b := s.NewBatch()
	b.putFilter(v)
	if was.Version > 0 {
		b.putFilter(was)
	}
	b.SetCrawlCursor(RefilterCursor, "")
	if err := b.CommitSync(); err != nil {
		return FilterVersion{}, err
	}
	s.filters.use.Lock()
	defer s.filters.use.Unlock()
	s.filters.all.Store(&next)
	return v, nil
}

func (b *Batch) putFilter(f FilterVersion) {
	v, err := b.s.codec.encode(filterV1{f.Config(), f.Readmitted})
	b.fail(err)
	b.set(filterKey(nil, f.Version), v)
}

// filterVersionsMax bounds the versions, all of which are kept, in memory too. Operators change filters now and then.
const filterVersionsMax = 1 << 16
