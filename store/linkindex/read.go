package linkindex

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"cistern/store"

	"github.com/cockroachdb/pebble/v2"
)

// Limits of reads.
const (
	// DIDsMax bounds the accounts of a Query, each of which costs a seek, some 10 µs.
	DIDsMax = 1000
	// rowsMax bounds the rows that one page examines: of hidden accounts, and of accounts with
	// several links to a target.
	rowsMax = 4096
	// sourcesOfMax bounds the answer of Sources: records may link to a target from any path.
	sourcesOfMax = 10_000
)

// Counts says how often a target is linked to.
type Counts struct {
	Records int64 // with a link
	DIDs    int64 // accounts that have such records
}

// Record is a record that links to a target.
type Record struct{ DID, Collection, RKey string }

// Cursor is a place in the links to a target: behind, or with Reverse before, a link that arrived
// at that number. 0 is the beginning, and the end.
type Cursor uint64

// Query chooses links to a target.
type Query struct {
	DIDs    []string // of these accounts only, at most DIDsMax; nil: of all
	After   Cursor
	Limit   int  // records of the page, at least 1
	Reverse bool // oldest first instead of newest
}

// group returns the group of a normalised target and a source. ok is false if the index has no link
// of that source.
func (x *Index) group(target string, s Source) (g group, ok bool, err error) {
	g = targetOf(x.secret, target)
	g.source, ok, err = x.sourceNumber(s)
	return g, ok, err
}

// Count returns how many records link to a normalised target from a source, and of how many
// accounts. It reads one row. Links of accounts that were hidden after State().Through are counted.
func (x *Index) Count(target string, s Source) (records, dids int64, err error) {
	g, ok, err := x.group(target, s)
	if err != nil || !ok {
		return 0, 0, err
	}
	var c Counts
	_, err = x.get(countKey(nil, g), func(v []byte) (err error) {
		c, err = parseCounts(v)
		return err
	})
	return c.Records, c.DIDs, err
}

// Sources returns the counts of all sources from which records link to a normalised target, of the
// first 10,000 sources if there are more.
func (x *Index) Sources(target string) (map[Source]Counts, error) {
	all := map[Source]Counts{}
	prefix := targetKey(nil, targetOf(x.secret, target), kindCount)
	err := x.scan(prefix, after(prefix), func(key, value []byte) (bool, error) {
		g, _, _, err := parseTargetKey(key)
		if err != nil {
			return false, err
		}
		c, err := parseCounts(value)
		if err != nil {
			return false, err
		}
		if c == (Counts{}) {
			return true, nil
		}
		s, ok, err := x.sourceName(g.source)
		if ok {
			all[s] = c
		}
		return len(all) < sourcesOfMax, err
	})
	return all, err
}

// Records returns a page of the records that link to a normalised target from a source: those that
// Each calls fn for.
func (x *Index) Records(target string, s Source, q Query) (page []Record, next Cursor, err error) {
	next, err = x.Each(target, s, q, func(r Record, _ Cursor) bool {
		page = append(page, r)
		return true
	})
	if err != nil {
		return nil, 0, err
	}
	return page, next, nil
}

// Each calls fn for the records that link to a normalised target from a source, in order of
// arrival, the newest first, with their places, until fn returns false. A record arrives anew when
// its links change. It may call fn for fewer than q.Limit records, or none, though next is not 0:
// it ends after some thousand rows. Accounts that are hidden now are left out.
func (x *Index) Each(target string, s Source, q Query, fn func(r Record, at Cursor) bool) (
	next Cursor, err error,
) {
	if len(q.DIDs) > DIDsMax {
		return 0, fmt.Errorf("%d accounts are more than %d", len(q.DIDs), DIDsMax)
	}
	g, ok, err := x.group(target, s)
	if err != nil || !ok || q.Limit < 1 {
		return 0, err
	}
	r, err := x.newGroupReader(g)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	step := r.all
	if q.DIDs != nil {
		if err := r.choose(q); err != nil {
			return 0, err
		}
		step = r.chosen
	}
	at, n := uint64(q.After), 0
	for range rowsMax {
		arrival, ok, err := step(at, q.Reverse)
		if err != nil || !ok {
			return 0, err
		}
		if n == q.Limit {
			break
		}
		at = arrival
		did, rkey, err := r.record(arrival)
		if err != nil {
			return 0, err
		}
		if did == "" {
			continue
		}
		if n++; !fn(Record{did, s.Collection, rkey}, Cursor(at)) {
			break
		}
	}
	return Cursor(at), nil
}

// DIDs returns a page of the accounts whose records link to a normalised target from a source, each
// once, in order of its newest link, the newest first. As with Records the page may be short.
func (x *Index) DIDs(target string, s Source, after Cursor, limit int) (
	page []string, next Cursor, err error,
) {
	g, ok, err := x.group(target, s)
	if err != nil || !ok || limit < 1 {
		return nil, 0, err
	}
	r, err := x.newGroupReader(g)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	at := uint64(after)
	if after == 0 {
		r.seen = map[uint32]struct{}{}
	}
	for range rowsMax {
		arrival, ok, err := r.all(at, false)
		if err != nil || !ok {
			return page, 0, err
		}
		if len(page) == limit {
			return page, Cursor(at), nil
		}
		at = arrival
		newest, err := r.newest(arrival)
		if err != nil {
			return nil, 0, err
		}
		if !newest {
			continue
		}
		did, _, err := r.record(arrival)
		if err != nil {
			return nil, 0, err
		}
		if did != "" {
			page = append(page, did)
		}
	}
	return page, Cursor(at), nil
}

// groupReader reads the links of a group at one point in time.
type groupReader struct {
	x     *Index
	g     group
	links *pebble.Iterator
	place uint64           // the arrival of the row at links; 0: unknown
	other *pebble.Iterator // of spaceDistinct, at the same point in time
	shown map[uint32]string
	heads []head
	seen  map[uint32]struct{} // accounts so far; nil unless all links were read from the newest on
	key   []byte
}

// head is where the links of one account stand in a page.
type head struct {
	account uint32
	arrival uint64
}

func (x *Index) newGroupReader(g group) (*groupReader, error) {
	prefix := groupKey(nil, g, kindLink)
	it, err := x.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, err
	}
	other, err := it.Clone(pebble.CloneOptions{IterOptions: &pebble.IterOptions{
		LowerBound: []byte{spaceDistinct}, UpperBound: []byte{spaceDistinct + 1}}})
	if err != nil {
		return nil, errors.Join(err, it.Close())
	}
	return &groupReader{x: x, g: g, links: it, other: other, shown: map[uint32]string{}}, nil
}

func (r *groupReader) close() error { return errors.Join(r.links.Close(), r.other.Close()) }

// all returns the arrival of the link next to a place.
func (r *groupReader) all(at uint64, reverse bool) (arrival uint64, ok bool, err error) {
	it := r.links
	switch {
	case at == r.place && at > 0 && reverse:
		ok = it.Next()
	case at == r.place && at > 0:
		ok = it.Prev()
	case reverse:
		r.key = linkKey(r.key, r.g, at+1)
		ok = it.SeekGE(r.key)
	case at == 0:
		ok = it.Last()
	default:
		r.key = linkKey(r.key, r.g, at)
		ok = it.SeekLT(r.key)
	}
	r.place = 0
	if !ok {
		return 0, false, it.Error()
	}
	_, _, r.place, err = parseTargetKey(it.Key())
	return r.place, true, err
}

// choose has chosen go through the links of some accounts.
func (r *groupReader) choose(q Query) error {
	for _, did := range q.DIDs {
		n, ok, err := r.x.accountNumber(did)
		if err != nil {
			return err
		}
		if ok && !slices.ContainsFunc(r.heads, func(h head) bool { return h.account == n }) {
			r.heads = append(r.heads, head{account: n})
		}
	}
	for i := 0; i < len(r.heads); {
		if more, err := r.advance(&r.heads[i], uint64(q.After), q.Reverse); err != nil {
			return err
		} else if !more {
			r.heads = slices.Delete(r.heads, i, i+1)
			continue
		}
		i++
	}
	return nil
}

// advance moves a head to the link of its account next to a place.
func (r *groupReader) advance(h *head, at uint64, reverse bool) (ok bool, err error) {
	it := r.other
	if reverse {
		r.key = distinctKey(r.key, r.g, h.account, at+1)
		ok = it.SeekGE(r.key)
	} else {
		if at == 0 {
			at = arrivalMax
		}
		r.key = distinctKey(r.key, r.g, h.account, at)
		ok = it.SeekLT(r.key)
	}
	if !ok {
		return false, it.Error()
	}
	account, g, arrival, err := parseDistinct(it.Key())
	h.arrival = arrival
	return account == h.account && g == r.g, err
}

// chosen is all for the links of the chosen accounts.
func (r *groupReader) chosen(at uint64, reverse bool) (arrival uint64, ok bool, err error) {
	if i := slices.IndexFunc(r.heads, func(h head) bool { return h.arrival == at }); i >= 0 {
		more, err := r.advance(&r.heads[i], at, reverse)
		if err != nil {
			return 0, false, err
		}
		if !more {
			r.heads = slices.Delete(r.heads, i, i+1)
		}
	}
	if len(r.heads) == 0 {
		return 0, false, nil
	}
	by := func(a, b head) int { return cmp.Compare(a.arrival, b.arrival) }
	if reverse {
		return slices.MinFunc(r.heads, by).arrival, true, nil
	}
	return slices.MaxFunc(r.heads, by).arrival, true, nil
}

// newest reports whether an account has no later link than the one at links.
func (r *groupReader) newest(arrival uint64) (bool, error) {
	account, _, err := parseLink(r.links.Value())
	if err != nil {
		return false, err
	}
	if r.seen != nil {
		_, later := r.seen[account]
		r.seen[account] = struct{}{}
		return !later, nil
	}
	h := head{account: account}
	ok, err := r.advance(&h, arrival, true)
	return !ok, err
}

// record returns the account and the record key of a link; did is "" if the account is hidden.
func (r *groupReader) record(arrival uint64) (did, rkey string, err error) {
	if arrival != r.place {
		r.key = linkKey(r.key, r.g, arrival)
		if !r.links.SeekGE(r.key) || string(r.links.Key()) != string(r.key) {
			return "", "", errors.Join(r.links.Error(), damaged("link", r.key))
		}
		r.place = arrival
	}
	account, key, err := parseLink(r.links.Value())
	if err != nil {
		return "", "", err
	}
	did, ok := r.shown[account]
	if !ok {
		if did, err = r.x.shownDID(account); err != nil {
			return "", "", err
		}
		r.shown[account] = did
	}
	return did, string(key), nil
}

// shownDID returns the DID of an account, "" if the account is hidden now, or its records are not
// in the store any more.
func (x *Index) shownDID(account uint32) (did string, err error) {
	if did, err = x.accountDID(account); err != nil || did == "" {
		return "", err
	}
	row, err := x.opts.Store.Repo(did)
	if errors.Is(err, store.ErrNotFound) || err == nil && (row.Status.Hidden() || row.Ordinal == 0) {
		return "", nil
	}
	return did, err
}
