package filter

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Modes of discovery.
const (
	// ModeFilter follows repositories added by name, and repositories that a signal finds.
	ModeFilter = "filter"
	// ModeFull follows every repository.
	ModeFull = "full"
)

// What is stored of a repository.
const (
	// StoreWanted keeps the records of the wanted collections.
	StoreWanted = "wanted"
	// StoreAll keeps all records, and shows the records of the wanted collections only.
	StoreAll = "all"
)

// Config is a filter as an operator writes it. An empty Mode is ModeFilter, an empty Store
// StoreWanted. Package store persists it in another form.
type Config struct {
	Mode        string   `json:"mode"`        // ModeFilter or ModeFull
	Store       string   `json:"store"`       // StoreWanted or StoreAll
	Signals     []string `json:"signals"`     // a repository with a record of one of them is followed
	Collections []string `json:"collections"` // collections whose records are wanted; empty: all
	Excludes    []string `json:"excludes"`    // DIDs of repositories that are not followed
}

// Filter decides which repositories are followed, and which of their records are wanted. It never
// changes. The zero value follows repositories added by name only, and wants all of their records.
type Filter struct {
	config      Config
	signals     patterns
	collections patterns
	excludes    map[string]struct{}
}

// patterns are collections, and prefixes of collections. A prefix ends with a dot, and a collection
// does not.
type patterns map[string]struct{}

// Compile returns the filter of a config. A signal or collection is an NSID (app.bsky.feed.post),
// or a prefix up to a dot (app.bsky.*). The error names every invalid value.
func Compile(c Config) (*Filter, error) {
	var errs []error
	f := &Filter{excludes: map[string]struct{}{}}
	c.Mode, c.Store = cmp.Or(c.Mode, ModeFilter), cmp.Or(c.Store, StoreWanted)
	if c.Mode != ModeFilter && c.Mode != ModeFull {
		errs = append(errs, fmt.Errorf("mode %.400q is not %s or %s", c.Mode, ModeFilter, ModeFull))
	}
	if c.Store != StoreWanted && c.Store != StoreAll {
		errs = append(errs, fmt.Errorf("store %.400q is not %s or %s", c.Store, StoreWanted, StoreAll))
	}
	var err error
	f.signals, err = compile("signal", c.Signals)
	errs = append(errs, err)
	f.collections, err = compile("collection", c.Collections)
	errs = append(errs, err)
	for _, did := range c.Excludes {
		errs = append(errs, checkExclude(did))
		f.excludes[did] = struct{}{}
	}
	for _, set := range []struct {
		noun  string
		items int
	}{{"signals", len(f.signals)}, {"collections", len(f.collections)},
		{"excludes", len(f.excludes)}} {
		if set.items > itemsMax {
			errs = append(errs, fmt.Errorf("%d %s, which is more than %d", set.items, set.noun, itemsMax))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.Signals, c.Collections, c.Excludes = normal(c.Signals), normal(c.Collections), normal(c.Excludes)
	f.config = c
	return f, nil
}

// itemsMax bounds each set: 10,000 DIDs of 32 bytes take some 1 MB in memory, and as much for each
// selection that a store keeps.
const itemsMax = 10_000

func checkExclude(did string) error {
	if _, err := syntax.ParseDID(did); err != nil {
		return fmt.Errorf("exclude %.400q is not a DID", did)
	}
	return nil
}

// normal returns a set in ascending order without duplicates, never nil.
func normal(set []string) []string {
	set = slices.Clone(set)
	slices.Sort(set)
	return append([]string{}, slices.Compact(set)...)
}

func compile(noun string, texts []string) (patterns, error) {
	p := make(patterns, len(texts))
	var errs []error
	for _, s := range texts {
		key, err := parse(noun, s)
		errs = append(errs, err)
		p[key] = struct{}{}
	}
	return p, errors.Join(errs...)
}

// parse checks a pattern and returns its key in patterns.
func parse(noun, text string) (string, error) {
	prefix, wild := strings.CutSuffix(text, "*")
	if !wild {
		if _, err := syntax.ParseNSID(text); err != nil {
			return "", fmt.Errorf("%s %.400q is neither an NSID nor the beginning of one with .* at its end",
				noun, text)
		}
		return text, nil
	}
	// The prefix begins an NSID if one more segment completes it, or two more (app.*).
	_, short := syntax.ParseNSID(prefix + "a")
	_, long := syntax.ParseNSID(prefix + "a.a")
	if !strings.HasSuffix(prefix, ".") || (short != nil && long != nil) {
		return "", fmt.Errorf("%s %.400q: the text before the star does not begin an NSID or does not "+
			"end with a dot", noun, text)
	}
	return prefix, nil
}

// match reports whether any of the patterns matches a collection.
func (p patterns) match(collection []byte) bool {
	if len(p) == 0 || len(collection) == 0 {
		return false
	}
	// A dot in the last byte ends no prefix: a segment must follow it.
	for i, b := range collection[:len(collection)-1] {
		if b != '.' {
			continue
		}
		if _, ok := p[string(collection[:i+1])]; ok {
			return true
		}
	}
	if collection[len(collection)-1] == '.' {
		return false
	}
	_, ok := p[string(collection)]
	return ok
}

// covers reports whether p matches every collection that q matches.
func (p patterns) covers(q patterns) bool {
	for key := range q {
		found := false
		for i := 1; i <= len(key) && !found; i++ {
			if key[i-1] == '.' {
				_, found = p[key[:i]]
			}
		}
		if _, same := p[key]; !same && !found {
			return false
		}
	}
	return true
}

// Config returns the config of the filter in its normal form (invariant 4).
func (f *Filter) Config() Config {
	c := f.config
	c.Mode, c.Store = cmp.Or(c.Mode, ModeFilter), cmp.Or(c.Store, StoreWanted)
	c.Signals, c.Collections, c.Excludes = normal(c.Signals), normal(c.Collections), normal(c.Excludes)
	return c
}

// Full reports whether every repository is followed.
func (f *Filter) Full() bool { return f.config.Mode == ModeFull }

// StoresAll reports whether unwanted records are kept too. They are never shown.
func (f *Filter) StoresAll() bool { return f.config.Store == StoreAll }

// Signals returns the patterns of the signals, in ascending order.
func (f *Filter) Signals() []string { return normal(f.config.Signals) }

// Signal reports whether a record of this collection has its repository followed.
func (f *Filter) Signal(collection []byte) bool { return f.signals.match(collection) }

// Excluded reports whether a repository must not be followed.
func (f *Filter) Excluded(did string) bool {
	_, ok := f.excludes[did]
	return ok
}

// WantsAll reports whether every collection is wanted.
func (f *Filter) WantsAll() bool { return len(f.collections) == 0 }

// Wants reports whether the records of a collection are wanted.
func (f *Filter) Wants(collection []byte) bool {
	return len(f.collections) == 0 || f.collections.match(collection)
}

// Keeps reports whether the record at an MST key is stored, shown or not. A key that is not a
// collection and a record key is stored only if all keys are.
func (f *Filter) Keeps(key []byte) bool {
	if f.WantsAll() || f.StoresAll() {
		return true
	}
	collection, rkey, ok := bytes.Cut(key, []byte("/"))
	if !ok || !f.collections.match(collection) {
		return false
	}
	_, odd := syntax.ParseNSID(string(collection)) // a prefix matches invalid NSIDs too
	_, odder := syntax.ParseRecordKey(string(rkey))
	return odd == nil && odder == nil
}

// Covers reports whether f wants every collection that g wants.
func (f *Filter) Covers(g *Filter) bool {
	return f.WantsAll() || !g.WantsAll() && f.collections.covers(g.collections)
}

// SignalsCovered reports whether f wants the collections of g's signals. If it does, the records
// held by f show whether g's signals find a repository.
func (f *Filter) SignalsCovered(g *Filter) bool {
	return f.WantsAll() || f.collections.covers(g.signals)
}

// Discovers reports whether f may follow repositories that g does not.
func (f *Filter) Discovers(g *Filter) bool {
	switch {
	case f.Full() || g.Full():
		return !g.Full()
	case len(f.signals) == 0:
		// without signals, a crawl source named by an operator is followed as a whole
		return len(g.signals) > 0
	}
	for signal := range f.signals {
		if _, ok := g.signals[signal]; !ok {
			return true
		}
	}
	return false
}

// Range is a range of keys, from Lower on and below Upper.
type Range struct{ Lower, Upper []byte }

// Ranges returns the MST keys of the wanted collections, and with signals those of the signals too,
// as disjoint ranges in ascending order. nil means all keys.
func (f *Filter) Ranges(signals bool) []Range {
	if f.WantsAll() {
		return nil
	}
	if !signals {
		return ranges('/', f.collections)
	}
	return ranges('/', f.collections, f.signals)
}

// ranges returns the texts that begin with a collection of the patterns, followed by end, as
// disjoint ranges in ascending order.
func ranges(end byte, sets ...patterns) []Range {
	var keys []string
	for _, p := range sets {
		for key := range p {
			if !strings.HasSuffix(key, ".") {
				key += string(rune(end))
			}
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var out []Range
	last := ""
	for i, key := range keys {
		if i > 0 && strings.HasPrefix(key, last) {
			continue
		}
		last = key
		upper := []byte(key)
		upper[len(upper)-1]++ // a dot or end
		out = append(out, Range{[]byte(key), upper})
	}
	return out
}
