package store

import (
	"errors"
	"slices"
)

// PassRepo is a repository of a pass.
type PassRepo struct {
	DID string
	// Number rises: in a pass by DID the place among the wanted accounts, else the ordinal.
	Number uint64
	Behind RecordPosition // where the pass goes on behind it
}

// PassRepos returns the repositories of a pass from a position on, in order, at most limit, and
// whether these are the last. A position between two records of a repository stands for its
// beginning. In a pass by DID these are the wanted accounts, known or not; in one by ordinal, those
// that own one. The caller reads the repositories later, with a view of each, and calls Settled
// before it relies on what it saw; then it has the guarantees of ReadRecords. The errors are those
// of ReadRecords. Passes by collection have no order of repositories.
func (s *Store) PassRepos(
	p *Pass, at RecordPosition, limit int,
) (page []PassRepo, ended bool, err error) {
	err = s.at(func(rd reader) (err error) {
		if err = s.reachable(p); err != nil {
			return err
		}
		switch p.Order {
		case ByDID:
			page, ended = p.wantedFrom(at.DID, limit)
		case ByOrdinal:
			page, ended, err = p.ownersFrom(rd, at.Ordinal, limit)
		default:
			err = errors.New("a pass by collection has no order of repositories")
		}
		return err
	})
	return page, ended, err
}

// wantedFrom returns wanted accounts from a DID on.
func (p *Pass) wantedFrom(did string, limit int) (page []PassRepo, ended bool) {
	i, _ := slices.BinarySearch(p.dids, did)
	for ; i < len(p.dids) && len(page) < limit; i++ {
		r := PassRepo{DID: p.dids[i], Number: uint64(i)}
		if i+1 < len(p.dids) {
			r.Behind.DID = p.dids[i+1]
		}
		page = append(page, r)
	}
	return page, i == len(p.dids)
}

// ownersFrom returns the owners of ordinals from one on.
func (p *Pass) ownersFrom(
	rd reader, from Ordinal, limit int,
) (page []PassRepo, ended bool, err error) {
	ended = true
	if from >= p.End {
		return nil, true, nil
	}
	err = scan(rd, ordinalKey(nil, spaceOwner, from), ordinalKey(nil, spaceOwner, p.End),
		func(key, value []byte) (bool, error) {
			if len(page) == limit {
				ended = false
				return false, nil
			}
			o, err := parseOrdinalKey(spaceOwner, key)
			if err != nil {
				return false, err
			}
			did, err := parseDID(value)
			page = append(page, PassRepo{DID: did, Number: uint64(o),
				Behind: RecordPosition{Ordinal: o + 1}})
			return true, err
		})
	return page, ended, err
}
