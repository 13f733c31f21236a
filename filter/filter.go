package filter

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Modes of discovery.
const (
	// ModeFilter follows what was asked for by name, and what a signal finds.
	ModeFilter = "filter"
	// ModeFull follows every repository.
	ModeFull = "full"
)

// What is stored of a repository.
const (
	// StoreWanted keeps the records of the wanted collections.
	StoreWanted = "wanted"
	// StoreAll keeps all records, and shows those of the wanted collections.
	StoreAll = "all"
)

// Config is a filter as operators write it. Package store keeps it in a form of its own. Zero values take the first of the modes above.
type Config struct {
	Mode        string   `json:"mode"`        // ModeFilter or ModeFull
	Store       string   `json:"store"`       // StoreWanted or StoreAll
	Signals     []string `json:"signals"`     // collections that make a repository one to follow
	Collections []string `json:"collections"` // collections whose records are wanted; none: all
	Excludes    []string `json:"excludes"`    // DIDs that are not followed
}

// Filter says which repositories are followed, and which of their records are wanted. It never changes. The zero
// value follows only what is asked for by name, and wants all of it.
type Filter struct {
	config      Config
	signals     patterns
	collections patterns
	excludes    map[string]struct{}
}

// patterns are whole collections, and beginnings with the dot they end at, which no collection has.
type patterns map[string]struct{}

// Compile makes a filter. A signal or collection is an NSID (app.bsky.feed.post), or a prefix at a dot (app.bsky.*).
// The error names every value that is none.
func Compile(c Config) (*Filter, error) {
	var errs []error
	f := &Filter{excludes: map[string]struct{}{}}
	c.Mode, c.Store = defaultTo(c.Mode, ModeFilter), defaultTo(c.Store, StoreWanted)
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
	}{{"signals", len(f.signals)}, {"collections", len(f.collections)}, {"excludes", len(f.excludes)}} {
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

// normal is a set in ascending order, never nil.
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

// parse gives the text under which a pattern is looked up.
func parse(noun, text string) (string, error) {
	prefix, wild := strings.CutSuffix(text, "*")
	if !wild {
		if _, err := syntax.ParseNSID(text); err != nil {
			return "", fmt.Errorf("%s %.400q is neither an NSID nor the beginning of one with .* at its end", noun, text)
		}
		return text, nil
	}
	// It begins an NSID if a letter completes it, or two between which a dot stands (app.*).
	_, short := syntax.ParseNSID(prefix + "a")
	_, long := syntax.ParseNSID(prefix + "a.a")
	if !strings.HasSuffix(prefix, ".") || (short != nil && long != nil) {
		return "", fmt.Errorf("%s %.400q: what stands before the star does not begin an NSID or does not end at a dot", noun, text)
	}
	return prefix, nil
}

// match says whether a collection is one of them.
func (p patterns) match(collection []byte) bool {
	if len(p) == 0 || len(collection) == 0 {
		return false
	}
	// The last byte is not looked at as a dot: a prefix stands before something.
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

// covers says whether whatever matches q matches p.
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

// Config is the filter as it is written, with sets sorted and without doubles.
func (f *Filter) Config() Config {
	c := f.config
	c.Mode, c.Store = defaultTo(c.Mode, ModeFilter), defaultTo(c.Store, StoreWanted)
	c.Signals, c.Collections, c.Excludes = normal(c.Signals), normal(c.Collections), normal(c.Excludes)
	return c
}

// Full says whether every repository is followed.
func (f *Filter) Full() bool { return f.config.Mode == ModeFull }

// StoresAll says whether records that are not wanted are kept too, shown to nobody.
func (f *Filter) StoresAll() bool { return f.config.Store == StoreAll }

// Signals are the patterns of collections that make a repository one to follow, in ascending order.
func (f *Filter) Signals() []string { return normal(f.config.Signals) }

// Signal says whether a record of this collection makes its repository one to follow.
func (f *Filter) Signal(collection []byte) bool { return f.signals.match(collection) }

// Excluded says whether a repository is not to be followed.
func (f *Filter) Excluded(did string) bool {
	_, ok := f.excludes[did]
	return ok
}

// WantsAll says whether every collection is wanted.
func (f *Filter) WantsAll() bool { return len(f.collections) == 0 }

// Wants says whether the records of a collection are wanted.
func (f *Filter) Wants(collection []byte) bool {
	return len(f.collections) == 0 || f.collections.match(collection)
}

// Keeps says whether what stands under an MST key is held, shown or not. Keys that are no collection and record key are
// held only where all is.
func (f *Filter) Keeps(key []byte) bool {
	if f.WantsAll() || f.StoresAll() {
		return true
	}
	collection, rkey, ok := bytes.Cut(key, []byte("/"))
	if !ok || !f.collections.match(collection) {
		return false
	}
	_, odd := syntax.ParseNSID(string(collection)) // a prefix matches what is none
	_, odder := syntax.ParseRecordKey(string(rkey))
	return odd == nil && odder == nil
}

// Covers says whether f wants whatever g wants.
func (f *Filter) Covers(g *Filter) bool {
	return f.WantsAll() || !g.WantsAll() && f.collections.covers(g.collections)
}

// SignalsCovered says whether f wants the records that g's signals look for, so that what is held by f shows
// whether a repository has one.
func (f *Filter) SignalsCovered(g *Filter) bool {
	return f.WantsAll() || f.collections.covers(g.signals)
}

// Discovers reports whether f has repositories followed that g passes over.
func (f *Filter) Discovers(g *Filter) bool {
	switch {
	case f.Full() || g.Full():
		return !g.Full()
	case len(f.signals) == 0:
		return len(g.signals) > 0 // a list that an operator names is followed whole then
	}
	for signal := range f.signals {
		if _, ok := g.signals[signal]; !ok {
			return true
		}
	}
	return false
}

// Range is a range of MST keys: those at or above Lower and below Upper.
type Range struct{ Lower, Upper []byte }

// Ranges are the MST keys of the wanted collections, and with signals those of the signals too, in ascending
// order and apart from each other. nil is all keys.
func (f *Filter) Ranges(signals bool) []Range {
	if f.WantsAll() {
		return nil
	}
	var keys []string
	add := func(p patterns) {
		for key := range p {
			if !strings.HasSuffix(key, ".") {
				key += "/"
			}
			keys = append(keys, key)
		}
	}
	add(f.collections)
	if signals {
		add(f.signals)
	}
	slices.Sort(keys)
	var out []Range
	last := ""
	for _, key := range keys {
		if last != "" && strings.HasPrefix(key, last) {
			continue
		}
		last = key
		upper := []byte(key)
		upper[len(upper)-1]++ // a dot or a slash
		out = append(out, Range{[]byte(key), upper})
	}
	return out
}

// defaultTo is v, or def where v was left empty.
func defaultTo(v, def string) string {
	if v == "" {
		return def
	}
	return v
}
