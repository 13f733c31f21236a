package store

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"cistern/filter"
)

// FilterVersion is the filter in force, with its numbers. The first filter that is set has version
// 1; 0 is the zero Filter.
type FilterVersion struct {
	*filter.Filter
	Version uint32 // rises with every change, and is never assigned twice
	// version that introduced this selection (the filter without excludes); rows name it
	Selection  uint32
	Readmitted uint32 // the last version, at most this one, that lifted an exclusion
	Widened    uint32 // every filter from that version on discovers all that this filter discovers
}

// DiscoversSince reports whether the filter discovers repositories that a listing may have passed
// over since that version. If the selections of that time are deleted, it may report true although
// the filter discovers no more: then the listing is read once more without need.
func (f FilterVersion) DiscoversSince(version uint32) bool {
	return version < max(f.Readmitted, f.Widened)
}

// selectionV1 is a filter without its excludes on disk, under the version that introduced it. It
// does not store modes by name, so that package filter may rename them.
type selectionV1 struct {
	Full        bool     `cbor:"1,keyasint,omitempty"` // filter.ModeFull, else filter.ModeFilter
	All         bool     `cbor:"2,keyasint,omitempty"` // filter.StoreAll, else filter.StoreWanted
	Signals     []string `cbor:"3,keyasint,omitempty"`
	Collections []string `cbor:"4,keyasint,omitempty"`
	Before      uint32   `cbor:"5,keyasint,omitempty"` // the selection in force before it
}

// row returns a selection in its form on disk.
func (x selection) row() selectionV1 {
	c := x.filter.Config()
	return selectionV1{Full: c.Mode == filter.ModeFull, All: c.Store == filter.StoreAll,
		Signals: c.Signals, Collections: c.Collections, Before: x.before}
}

func (v selectionV1) equal(to selectionV1) bool {
	return v.Full == to.Full && v.All == to.All && v.Before == to.Before &&
		slices.Equal(v.Signals, to.Signals) && slices.Equal(v.Collections, to.Collections)
}

// compile returns the filter of a row on disk.
func (v selectionV1) compile() (*filter.Filter, error) {
	c := filter.Config{Mode: filter.ModeFilter, Store: filter.StoreWanted,
		Signals: v.Signals, Collections: v.Collections}
	if v.Full {
		c.Mode = filter.ModeFull
	}
	if v.All {
		c.Store = filter.StoreAll
	}
	return filter.Compile(c)
}

// inForceV1 is the rest of the filter in force. The excludes may be thousands of DIDs, and a change
// keeps most of them, so they are not stored for each version.
type inForceV1 struct {
	Version    uint32   `cbor:"1,keyasint"`
	Excludes   []string `cbor:"2,keyasint,omitempty"`
	Readmitted uint32   `cbor:"3,keyasint,omitempty"`
	Widened    uint32   `cbor:"4,keyasint,omitempty"`
}

// selection is a Filter without excludes.
type selection struct {
	number, before uint32
	filter         *filter.Filter
}

// selections holds every selection that a row may name, in ascending order: the zero Filter first,
// the selection in force last. It is immutable.
type selections struct {
	inForce FilterVersion
	all     []selection
}

// at returns the selection with a number.
func (k *selections) at(number uint32) (*filter.Filter, error) {
	if last := k.all[len(k.all)-1]; last.number == number {
		return last.filter, nil
	}
	i, ok := slices.BinarySearchFunc(k.all, number, func(x selection, n uint32) int {
		return cmp.Compare(x.number, n)
	})
	if !ok {
		return nil, fmt.Errorf("filter version %d does not exist, the last is %d: %w", number,
			k.inForce.Version, ErrCorrupt)
	}
	return k.all[i].filter, nil
}

type filters struct {
	mu   sync.Mutex   // held while selections are added or deleted
	use  sync.RWMutex // held by HoldFilter, and while another filter comes into force
	kept atomic.Pointer[selections]
}

// loadFilters reads the selections. The last is in force.
func (s *Store) loadFilters() error {
	k := &selections{all: []selection{{filter: new(filter.Filter)}}}
	err := scan(s.db, []byte{spaceFilter}, spaceEnd(spaceFilter),
		func(key, value []byte) (bool, error) {
			x, err := s.parseSelection(key, value)
			k.all = append(k.all, x)
			return true, err
		})
	if err != nil {
		return err
	}
	last := k.all[len(k.all)-1]
	k.inForce = FilterVersion{Filter: last.filter, Selection: last.number}
	var rest inForceV1
	err = get(s.db, metaKey(metaFilter), func(v []byte) error { return s.codec.decode(v, &rest) })
	if errors.Is(err, ErrNotFound) && last.number == 0 {
		err = nil
	}
	if err == nil && rest.Version < last.number {
		err = fmt.Errorf("version %d is in force, and the last selection is %d: %w",
			rest.Version, last.number, ErrCorrupt)
	}
	if err != nil {
		return fmt.Errorf("filter in force: %w", err)
	}
	if len(rest.Excludes) > 0 {
		c := last.filter.Config()
		c.Excludes = rest.Excludes
		if k.inForce.Filter, err = filter.Compile(c); err != nil {
			return fmt.Errorf("filter version %d: %w: %w", rest.Version, err, ErrCorrupt)
		}
	}
	f := &k.inForce
	f.Version, f.Readmitted, f.Widened = rest.Version, rest.Readmitted, rest.Widened
	s.filters.kept.Store(k)
	return nil
}

func (s *Store) parseSelection(key, value []byte) (x selection, err error) {
	if x.number, err = parseFilterKey(key); err != nil {
		return x, err
	}
	var v selectionV1
	if err := s.codec.decode(value, &v); err != nil {
		return x, err
	}
	if x.before = v.Before; x.before >= x.number {
		return x, fmt.Errorf("filter version %d follows %d: %w", x.number, x.before, ErrCorrupt)
	}
	if x.filter, err = v.compile(); err != nil {
		return x, fmt.Errorf("filter version %d: %w: %w", x.number, err, ErrCorrupt)
	}
	return x, nil
}

// Filter returns the filter in force.
func (s *Store) Filter() FilterVersion { return s.filters.kept.Load().inForce }

// FilterAt returns a selection, without excludes, by the number that Repo.Filter holds. The error
// is ErrCorrupt if the store has no such selection.
func (s *Store) FilterAt(selection uint32) (*filter.Filter, error) {
	return s.filters.kept.Load().at(selection)
}

// Selections returns the numbers that FilterAt knows, in ascending order. The first is 0, the last
// is the selection in force.
func (s *Store) Selections() []uint32 {
	k := s.filters.kept.Load()
	numbers := make([]uint32, len(k.all))
	for i := range k.all {
		numbers[i] = k.all[i].number
	}
	return numbers
}

// HoldFilter keeps the filter in force until release is called. A caller that follows a repository
// because of the filter holds it from reading the filter until the row is written, and takes it
// before any Lock: the pass that applies the next filter then finds the row.
func (s *Store) HoldFilter() (release func()) {
	s.filters.use.RLock()
	return s.filters.use.RUnlock
}

// SetFilter puts a filter in force, and in the same batch requests a pass that adapts every
// repository to it. The change is durable on return. A filter equal to the one in force changes
// nothing; a change of the excludes alone adds no selection. The error is ErrFilters while the
// store holds the maximum of selections, and ErrStoresAll if an ephemeral store is to store all
// records. The caller holds neither locks nor HoldFilter.
func (s *Store) SetFilter(c filter.Config) (FilterVersion, error) {
	f, err := filter.Compile(c)
	if err != nil {
		return FilterVersion{}, err
	}
	if s.ephemeral && f.StoresAll() {
		return FilterVersion{}, ErrStoresAll
	}
	s.filters.mu.Lock()
	defer s.filters.mu.Unlock()
	was := s.filters.kept.Load()
	if was.inForce.Version > 0 && reflect.DeepEqual(was.inForce.Config(), f.Config()) {
		return was.inForce, nil
	}
	now, err := was.with(f)
	if err != nil {
		return FilterVersion{}, err
	}
	defer s.LockRefilterCursor()()
	b := s.NewBatch()
	b.putInForce(now.inForce)
	if last := now.all[len(now.all)-1]; now.inForce.Selection != was.inForce.Selection {
		b.putSelection(last)
	}
	b.PutRefilterCursor(RefilterCursor{})
	// From here on the filter and the request of its pass are durable. A crash before this leaves
	// the former filter.
	if err := b.CommitSync(); err != nil {
		return FilterVersion{}, err
	}
	s.filters.use.Lock()
	defer s.filters.use.Unlock()
	s.filters.kept.Store(now)
	return now.inForce, nil
}

// with returns the selections after a change of the filter.
func (k *selections) with(f *filter.Filter) (*selections, error) {
	was := k.inForce
	if was.Version == math.MaxUint32 {
		return nil, fmt.Errorf("filter: the version numbers are used up at %d", was.Version)
	}
	next := &selections{inForce: was, all: k.all}
	now := &next.inForce
	now.Filter, now.Version = f, was.Version+1
	if slices.ContainsFunc(was.Config().Excludes, func(did string) bool { return !f.Excluded(did) }) {
		now.Readmitted = now.Version
	}
	c := f.Config()
	c.Excludes = nil
	selects, err := filter.Compile(c)
	if err != nil {
		return nil, err
	}
	last := k.all[len(k.all)-1]
	if last.number > 0 && reflect.DeepEqual(last.filter.Config(), selects.Config()) {
		return next, nil
	}
	if len(k.all) > selectionsMax {
		return nil, fmt.Errorf("the store holds %d earlier filters: %w", len(k.all)-1, ErrFilters)
	}
	now.Selection, now.Widened = now.Version, k.widened(selects, now.Version)
	next.all = append(slices.Clone(k.all), selection{now.Version, was.Selection, selects})
	return next, nil
}

// widened returns FilterVersion.Widened of a filter that comes into force as version.
func (k *selections) widened(f *filter.Filter, version uint32) uint32 {
	end := version // version at which the current selection went out of force
	for i := len(k.all) - 1; i >= 0; i-- {
		x := k.all[i]
		if f.Discovers(x.filter) {
			return end
		}
		end = x.number
		if i > 0 && x.before != k.all[i-1].number {
			// The selections in between are deleted. The selections seen so far discover all that f
			// discovers, so Widened of the filter in force covers the deleted selections.
			return min(end, k.inForce.Widened)
		}
	}
	return 0
}

// DropSelections deletes the selections below number before that are not in named. The caller knows
// that no row names any other selection, and that no task uses one. The deletion is durable on
// return. The caller holds no locks.
func (s *Store) DropSelections(before uint32, named map[uint32]bool) (dropped int, err error) {
	s.filters.mu.Lock()
	defer s.filters.mu.Unlock()
	was := s.filters.kept.Load()
	now := &selections{inForce: was.inForce}
	b := s.NewBatch()
	for _, x := range was.all {
		if x.number == 0 || x.number >= min(before, was.inForce.Selection) || named[x.number] {
			now.all = append(now.all, x)
			continue
		}
		b.delete(filterKey(nil, x.number))
		dropped++
	}
	if dropped == 0 {
		b.Discard()
		return 0, nil
	}
	// From here on all of them are gone. After a crash before this, a later pass deletes them.
	if err := b.CommitSync(); err != nil {
		return 0, err
	}
	s.filters.kept.Store(now)
	return dropped, nil
}

func (b *control) putSelection(x selection) {
	b.put(filterKey(nil, x.number), x.row())
}

func (b *control) putInForce(f FilterVersion) {
	b.put(metaKey(metaFilter), inForceV1{f.Version, f.Config().Excludes, f.Readmitted, f.Widened})
}

// selectionsMax bounds the selections, which are in memory too: when the pass over all repositories
// ends, rows name the newest 64 at most.
const selectionsMax = 4096
