package export

import (
	"bytes"

	"cistern/store"
)

// Part is the part of a repository that is exported: the records with keys in a range, and the
// nodes that prove the range complete. The zero value is the whole repository.
type Part struct {
	collection   string // of all keys of the range; "": any
	lower, upper []byte // of the range: from lower on, below upper; nil: no bound
}

// Record returns the part of one record, or of its absence.
func Record(collection, rkey string) Part {
	key := []byte(collection + "/" + rkey)
	return Part{collection, key, append(bytes.Clone(key), 0)}
}

// Prefix returns the part of the records of a collection whose record keys begin with a prefix.
func Prefix(collection, rkeys string) Part {
	lower := []byte(collection + "/" + rkeys)
	upper := bytes.Clone(lower)
	upper[len(upper)-1]++ // all characters of a path are ASCII
	return Part{collection, lower, upper}
}

// holds reports whether a key is in the range.
func (p *Part) holds(key []byte) bool {
	return bytes.Compare(p.lower, key) <= 0 && (p.upper == nil || bytes.Compare(key, p.upper) < 0)
}

// meets reports whether the range may have keys behind lo and before hi; nil is no bound. The key
// right behind lo is lo with a zero byte.
func (p *Part) meets(lo, hi []byte) bool {
	switch {
	case hi != nil && bytes.Compare(p.lower, hi) >= 0:
		return false
	case lo == nil || p.upper == nil:
		return true
	}
	next := len(p.upper) - 1
	isNext := next >= 0 && p.upper[next] == 0 && bytes.Equal(p.upper[:next], lo)
	return bytes.Compare(lo, p.upper) < 0 && !isNext
}

// shows reports whether all records of the part are shown, unless the filter of the repository is
// being changed. wants reports whether that filter wants a collection.
func (p *Part) shows(r *store.Repo, wants func(collection []byte) bool) bool {
	return r.Shelved == 0 || p.collection != "" && wants([]byte(p.collection))
}
