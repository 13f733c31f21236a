package backlinks

import (
	"cistern/api/wire"
	"cistern/store/linkindex"
)

// total is a count.
type total struct {
	Total int64 `json:"total"`
}

// bySource has something of each source, by collection and path.
type bySource[T any] struct {
	Links map[string]map[string]T `json:"links"`
}

// counts are the counts of one source.
type counts struct {
	Records int64 `json:"records"`
	DIDs    int64 `json:"distinct_dids"`
}

// getBacklinksCount answers blue.microcosm.links.getBacklinksCount.
func (b *Backlinks) getBacklinksCount(q wire.Query) (any, error) {
	s, err := scopeOf(q)
	if err != nil {
		return nil, err
	}
	records, _, err := b.index.Count(s.target, s.source)
	return total{records}, indexError(err)
}

// count answers /links/count.
func (b *Backlinks) count(q wire.Query) (any, error) {
	s, err := olderScope(q)
	if err != nil {
		return nil, err
	}
	records, _, err := b.index.Count(s.target, s.source)
	return total{records}, indexError(err)
}

// countDistinctDIDs answers /links/count/distinct-dids.
func (b *Backlinks) countDistinctDIDs(q wire.Query) (any, error) {
	s, err := olderScope(q)
	if err != nil {
		return nil, err
	}
	_, dids, err := b.index.Count(s.target, s.source)
	return total{dids}, indexError(err)
}

// all answers /links/all.
func (b *Backlinks) all(q wire.Query) (any, error) {
	return sources(b, q, func(c linkindex.Counts) counts { return counts(c) })
}

// allCount answers /links/all/count.
func (b *Backlinks) allCount(q wire.Query) (any, error) {
	return sources(b, q, func(c linkindex.Counts) int64 { return c.Records })
}

// sources returns something of all sources from which records link to the target.
func sources[T any](b *Backlinks, q wire.Query, of func(linkindex.Counts) T) (any, error) {
	target, err := targetOf(q, "target")
	if err != nil {
		return nil, err
	}
	found, err := b.index.Sources(target)
	all := bySource[T]{map[string]map[string]T{}}
	for s, c := range found {
		if all.Links[s.Collection] == nil {
			all.Links[s.Collection] = map[string]T{}
		}
		all.Links[s.Collection][s.Path] = of(c)
	}
	return all, indexError(err)
}
