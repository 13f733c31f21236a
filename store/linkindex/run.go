package linkindex

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cistern/ingest/repo"
	"cistern/links"
)

// run has the changes of the index that are not written yet. What a record has in the run replaces
// what the index has of it, so that it does not matter if a record comes twice.
type run struct {
	x *Index

	// next is the state that the run leads to. Numbers are given in it.
	next     state
	accounts map[string]*account
	versions []version
	rkeys    []byte // of versions
	adds     []link // of versions in their order
	removes  []link
	named    []namedAccount
	sourced  []namedSource
	given    map[Source]uint32 // of sourced
	texts    int               // bytes of sourced
	gathered int               // paths of accounts

	// at and of are those of the record before: in an import they are those of the next one too.
	of   string // DID
	at   *account
	from collection

	// of the record at hand, kept for their memory:
	found  links.Finder
	groups []group
	old    []group
	key    []byte
}

// account is what a run knows of an account. It has no row of a record in the index if it is fresh:
// then nothing has to be read.
type account struct {
	did    string
	number uint32
	fresh  bool
	latest int32 // the last version of the account, -1 for none
	// top is the highest path of the versions. While paths rise, as those of an import do, no record
	// comes twice; then paths are gathered.
	top   []byte
	paths map[string]int32 // path → version; nil while paths rise
}

// collection has numbers of sources in one collection.
type collection struct {
	name  string
	paths map[string]uint32 // at most pathsMax; the number of the collection is that of the empty path
}

// version is what the run makes of one record.
type version struct {
	arrival    uint64
	account    uint32
	collection uint32
	rkey       uint32 // where it begins in rkeys
	links      uint32 // where they begin in adds
	count      uint32 // links; 0 deletes the row of the record
	previous   int32  // of the same account
	length     uint16 // of the rkey
	fresh      bool   // its account is
	dead       bool   // a later version replaces it
	removed    bool   // what the index has; nothing is written for the record itself
}

// link is one link of a version.
type link struct {
	group
	version int32
}

type namedAccount struct {
	did    string
	number uint32
}

type namedSource struct {
	source Source
	number uint32
}

// Sizes of what a run holds in memory, with what maps and slices take beside.
const (
	versionBytes = 72
	linkBytes    = 32
	accountBytes = 400
	sourceBytes  = 200
	pathBytes    = 80
	// pathsMax bounds the sources of one collection that a run remembers.
	pathsMax = 1000
)

func (x *Index) newRun() *run {
	r := &run{x: x}
	r.reset()
	return r
}

// keptMax is the length up to which slices are kept for the next run, though they were hardly used.
const keptMax = 16 << 10

// emptied returns a slice of no elements: s, unless most of a large s was of no use. While events
// are few, the memory of the large runs of an import goes.
func emptied[T any](s []T) []T {
	if cap(s) > keptMax && len(s) < cap(s)/8 {
		return nil
	}
	return s[:0]
}

// reset empties the run. Its state is that of the index.
func (r *run) reset() {
	r.x.mu.Lock()
	r.next = r.x.state
	r.x.mu.Unlock()
	r.accounts, r.given = map[string]*account{}, map[Source]uint32{}
	r.of, r.at, r.from = "", nil, collection{}
	r.versions, r.rkeys = emptied(r.versions), emptied(r.rkeys)
	r.adds, r.removes = emptied(r.adds), emptied(r.removes)
	r.named, r.sourced = emptied(r.named), emptied(r.sourced)
	r.texts, r.gathered = 0, 0
}

// bytes returns about how much memory the run takes.
func (r *run) bytes() int {
	return versionBytes*len(r.versions) + len(r.rkeys) + linkBytes*(len(r.adds)+len(r.removes)) +
		accountBytes*len(r.accounts) + r.texts + pathBytes*r.gathered
}

// full reports whether the run must be written.
func (r *run) full() bool { return r.bytes() >= r.x.opts.RunBytes }

// rows returns about how many rows the run will write.
func (r *run) rows() int { return 3*(len(r.adds)+len(r.removes)) + len(r.versions) }

// account returns what the run knows of an account; nil if create is false and the index does not
// know it.
func (r *run) account(did string, create bool) (*account, error) {
	if r.at != nil && r.of == did {
		return r.at, nil
	}
	if a, ok := r.accounts[did]; ok {
		r.of, r.at = a.did, a
		return a, nil
	}
	n, ok, err := r.x.accountNumber(did)
	if err != nil || !ok && !create {
		return nil, err
	}
	did = strings.Clone(did)
	a := &account{did: did, number: n, fresh: !ok, latest: -1}
	if ok {
		a.fresh, err = r.x.isFresh(n)
	} else {
		if r.next.Accounts == numberMax {
			return nil, errNumbers
		}
		r.next.Accounts++
		a.number = r.next.Accounts
		r.named = append(r.named, namedAccount{did, a.number})
	}
	r.accounts[did] = a
	r.of, r.at = did, a
	return a, err
}

// isFresh reports whether the index has no record of an account.
func (x *Index) isFresh(account uint32) (fresh bool, err error) {
	fresh = true
	lower := numberKey(nil, spaceRecord, account)
	err = x.scan(lower, after(lower), func(_, _ []byte) (bool, error) {
		fresh = false
		return false, nil
	})
	return fresh, err
}

// source returns the number of a source. One that the run gave is not in the index yet.
func (r *run) source(of Source) (uint32, error) {
	if n, ok := r.given[of]; ok {
		return n, nil
	}
	n, ok, err := r.x.sourceNumber(of)
	if err != nil || ok {
		return n, err
	}
	if r.next.Sources == numberMax {
		return 0, errNumbers
	}
	r.next.Sources++
	n = r.next.Sources
	of = Source{strings.Clone(of.Collection), strings.Clone(of.Path)}
	r.sourced = append(r.sourced, namedSource{of, n})
	r.given[of] = n
	r.texts += sourceBytes + len(of.text())
	_, _, cleared := r.x.sources.number(of)
	r.x.sources.put(of, n, cleared)
	return n, nil
}

// sourceIn returns the number of the source with a path in a collection.
func (r *run) sourceIn(name, path []byte) (uint32, error) {
	c := &r.from
	if c.name != string(name) || c.paths == nil || len(c.paths) >= pathsMax {
		*c = collection{string(name), map[string]uint32{}}
	}
	if n, ok := c.paths[string(path)]; ok {
		return n, nil
	}
	of := string(path)
	n, err := r.source(Source{c.name, of})
	if err == nil {
		c.paths[of] = n
	}
	return n, err
}

// collection returns the number of the collection of r.groups. ok is false if there are no links
// and neither the run nor the index knows it: then there is no record of it.
func (r *run) collection(name []byte) (n uint32, ok bool, err error) {
	if len(r.groups) > 0 {
		n, err = r.sourceIn(name, nil)
		return n, true, err
	}
	of := Source{Collection: string(name)}
	if n, ok = r.given[of]; ok {
		return n, true, nil
	}
	return r.x.sourceNumber(of)
}

// put makes the index have the links of a record, and no other links of it.
func (r *run) put(did string, collection, rkey, record []byte) error {
	if err := r.extract(collection, record); err != nil {
		return err
	}
	return r.replace(did, collection, rkey)
}

// remove makes the index have no links of a record.
func (r *run) remove(did string, collection, rkey []byte) error {
	r.groups = r.groups[:0]
	return r.replace(did, collection, rkey)
}

// extract finds the links of a record. Two at one path to one target are one.
func (r *run) extract(collection, record []byte) (err error) {
	r.groups = r.groups[:0]
	if err = r.found.Find(record); errors.Is(err, repo.ErrInvalid) {
		r.x.metrics.refused.Inc()
		return nil
	} else if err != nil {
		return err
	}
	for path, target := range r.found.All() {
		g := targetOf(r.x.secret, target)
		if g.source, err = r.sourceIn(collection, path); err != nil {
			return err
		}
		r.groups = append(r.groups, g)
	}
	if len(r.groups) > 1 {
		slices.SortFunc(r.groups, group.compare)
		r.groups = slices.Compact(r.groups)
	}
	return nil
}

// replace makes the index have r.groups as the links of a record.
func (r *run) replace(did string, collection, rkey []byte) error {
	a, err := r.account(did, len(r.groups) > 0)
	if a == nil || err != nil {
		return err
	}
	number, ok, err := r.collection(collection)
	if err != nil || !ok {
		return err
	}
	path := append(append(append(r.key[:0], collection...), '/'), rkey...)
	r.key = path
	before := r.find(a, number, path, rkey)
	switch {
	case before >= 0:
		v := &r.versions[before]
		if slices.EqualFunc(r.adds[v.links:v.links+v.count], r.groups,
			func(l link, g group) bool { return l.group == g }) {
			return nil
		}
		v.dead = true
	case a.fresh:
		if len(r.groups) == 0 {
			return nil
		}
	default:
		if same, err := r.supersede(a.number, number, rkey); same || err != nil {
			return err
		}
	}
	return r.add(a, number, path, rkey)
}

// supersede removes what the index has of a record. same is true if that is what it is to have.
func (r *run) supersede(number, collection uint32, rkey []byte) (same bool, err error) {
	var arrival uint64
	r.old = r.old[:0]
	_, err = r.x.get(recordKey(nil, number, collection, rkey), func(v []byte) (err error) {
		arrival, r.old, err = parseLinks(v, r.old)
		return err
	})
	if err != nil || slices.Equal(r.old, r.groups) {
		return err == nil, err
	}
	r.drop(number, arrival, r.old)
	return false, nil
}

// drop removes links that the index has.
func (r *run) drop(number uint32, arrival uint64, groups []group) {
	if len(groups) == 0 {
		return
	}
	v := int32(len(r.versions))
	r.versions = append(r.versions, version{arrival: arrival, account: number, previous: -1,
		removed: true})
	for _, g := range groups {
		r.removes = append(r.removes, link{g, v})
	}
}

// add appends a version with the links r.groups.
func (r *run) add(a *account, collection uint32, path, rkey []byte) error {
	v := version{account: a.number, collection: collection, rkey: uint32(len(r.rkeys)),
		length: uint16(len(rkey)), links: uint32(len(r.adds)), count: uint32(len(r.groups)),
		previous: a.latest, fresh: a.fresh}
	if len(r.groups) > 0 {
		if r.next.Arrival == arrivalMax {
			return fmt.Errorf("arrivals: %w", errNumbers)
		}
		r.next.Arrival++
		v.arrival = r.next.Arrival
	}
	n := int32(len(r.versions))
	r.versions = append(r.versions, v)
	r.rkeys = append(r.rkeys, rkey...)
	for _, g := range r.groups {
		r.adds = append(r.adds, link{g, n})
	}
	a.latest = n
	if a.paths != nil {
		a.paths[pathOf(collection, rkey)] = n
		r.gathered++
	} else {
		a.top = append(a.top[:0], path...)
	}
	return nil
}

// find returns the version that the run has of a record, -1 for none.
func (r *run) find(a *account, collection uint32, path, rkey []byte) int32 {
	if a.latest < 0 || a.paths == nil && bytes.Compare(path, a.top) > 0 {
		return -1
	}
	r.gather(a)
	if n, ok := a.paths[pathOf(collection, rkey)]; ok {
		return n
	}
	return -1
}

// gather has paths of an account found that do not rise.
func (r *run) gather(a *account) {
	if a.paths != nil {
		return
	}
	a.paths = map[string]int32{}
	for i := a.latest; i >= 0; i = r.versions[i].previous {
		v := &r.versions[i]
		a.paths[pathOf(v.collection, r.rkeyOf(v))] = i // paths rose: each has one version
		r.gathered++
	}
}

func pathOf(collection uint32, rkey []byte) string {
	return string(numberKey(nil, 0, collection)) + string(rkey)
}

func (r *run) rkeyOf(v *version) []byte { return r.rkeys[v.rkey : v.rkey+uint32(v.length)] }

// removeAll removes all links of an account. more is true if the run is full before the end: after
// the run was written, removeAll must be called again.
func (r *run) removeAll(did string) (more bool, err error) {
	a, err := r.account(did, false)
	if a == nil || err != nil {
		return false, err
	}
	r.gather(a)
	r.groups = r.groups[:0]
	for i := a.latest; i >= 0; i = r.versions[i].previous {
		if v := &r.versions[i]; !v.dead && v.count > 0 {
			v.dead = true
			if err := r.add(a, v.collection, nil, r.rkeyOf(v)); err != nil {
				return false, err
			}
		}
	}
	if a.fresh {
		return false, nil
	}
	lower := numberKey(nil, spaceRecord, a.number)
	err = r.x.scan(lower, after(lower), func(key, value []byte) (bool, error) {
		_, collection, rkey, err := parseRecordKey(key)
		if err != nil {
			return false, err
		}
		if _, ok := a.paths[pathOf(collection, rkey)]; ok { // the run replaces it
			return true, nil
		}
		if more = r.full(); more {
			return false, nil
		}
		var arrival uint64
		if arrival, r.old, err = parseLinks(value, r.old[:0]); err != nil {
			return false, err
		}
		r.drop(a.number, arrival, r.old)
		return true, r.add(a, collection, nil, rkey)
	})
	return more, err
}
