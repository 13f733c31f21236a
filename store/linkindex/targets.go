package linkindex

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// writeTargets writes the rows of links and of counts, target by target. The links stay in their
// order: writeDistinct reads them at the same time.
func (r *run) writeTargets(out *sink, adds, removes []link) (err error) {
	if len(adds)+len(removes) == 0 {
		return nil
	}
	adds = sortLinks(adds)
	removes = slices.Clone(removes)
	slices.SortFunc(removes, func(a, b link) int {
		return cmp.Or(a.compare(b.group),
			cmp.Compare(r.versions[a.version].arrival, r.versions[b.version].arrival))
	})
	w := targetWriter{run: r, out: out.rows(spaceTarget)}
	defer func() { err = errors.Join(err, w.close()) }()
	for len(adds)+len(removes) > 0 && w.out.err == nil {
		g := first(adds, removes)
		same := func(h group) bool { return h.sameTarget(g) }
		a, d := leading(adds, same), leading(removes, same)
		if err := w.target(adds[:a], removes[:d]); err != nil {
			return err
		}
		adds, removes = adds[a:], removes[d:]
	}
	return w.out.err
}

// first returns the lowest group of two sorted slices.
func first(adds, removes []link) group {
	if len(adds) == 0 || len(removes) > 0 && removes[0].compare(adds[0].group) < 0 {
		return removes[0].group
	}
	return adds[0].group
}

// leading returns how many links at the beginning are in groups that fn is true of.
func leading(links []link, fn func(group) bool) (n int) {
	for n < len(links) && fn(links[n].group) {
		n++
	}
	return n
}

// targetWriter writes the rows of one target after the other.
type targetWriter struct {
	run   *run
	out   *rows
	it    *pebble.Iterator // of rows of spaceDistinct; nil until one is needed
	rows  []distinct
	key   []byte
	value []byte
}

// distinct is a row of spaceDistinct that comes, or goes.
type distinct struct {
	account uint32
	arrival uint64
	remove  bool
	fresh   bool
}

func (w *targetWriter) close() error {
	if w.it == nil {
		return nil
	}
	return w.it.Close()
}

// target writes the changes of one target: the counts of its groups, and then their links.
func (w *targetWriter) target(adds, removes []link) error {
	for a, d := adds, removes; len(a)+len(d) > 0; {
		g := first(a, d)
		same := func(h group) bool { return h == g }
		n, m := leading(a, same), leading(d, same)
		change, err := w.change(g, a[:n], d[:m])
		if err != nil {
			return err
		}
		if change != (Counts{}) {
			w.key, w.value = countKey(w.key, g), appendCounts(w.value[:0], change)
			w.out.merge(w.key, w.value)
		}
		a, d = a[n:], d[m:]
	}
	for len(adds)+len(removes) > 0 {
		g := first(adds, removes)
		for ; len(removes) > 0 && removes[0].group == g; removes = removes[1:] {
			w.key = linkKey(w.key, g, w.run.versions[removes[0].version].arrival)
			w.out.delete(w.key)
		}
		for ; len(adds) > 0 && adds[0].group == g; adds = adds[1:] { // all arrived after removes
			v := &w.run.versions[adds[0].version]
			w.key = linkKey(w.key, g, v.arrival)
			w.value = binary.BigEndian.AppendUint32(w.value[:0], v.account)
			w.value = append(w.value, w.run.rkeyOf(v)...)
			w.out.set(w.key, w.value)
		}
	}
	return w.out.err
}

// change returns by how much the counts of a group change.
func (w *targetWriter) change(g group, adds, removes []link) (c Counts, err error) {
	c.Records = int64(len(adds) - len(removes))
	w.rows = w.rows[:0]
	for _, links := range [][]link{removes, adds} {
		for _, l := range links {
			v := &w.run.versions[l.version]
			w.rows = append(w.rows, distinct{v.account, v.arrival, v.removed, v.fresh})
		}
	}
	order := func(a, b distinct) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.arrival, b.arrival))
	}
	if !slices.IsSortedFunc(w.rows, order) {
		slices.SortFunc(w.rows, order)
	}
	for rows := w.rows; len(rows) > 0; {
		n := 1
		for n < len(rows) && rows[n].account == rows[0].account {
			n++
		}
		d, err := w.account(g, rows[:n])
		if err != nil {
			return c, err
		}
		c.DIDs += d
		rows = rows[n:]
	}
	return c, nil
}

// account returns by how much the rows of one account change the number of accounts of a group.
func (w *targetWriter) account(g group, rows []distinct) (d int64, err error) {
	removed, added, fresh := 0, 0, false
	for _, row := range rows {
		if row.remove {
			removed++
			continue
		}
		added, fresh = added+1, row.fresh
	}
	switch {
	case fresh:
		return 1, nil
	case removed == 0:
		left, err := w.left(g, rows)
		if left {
			return 0, err
		}
		return 1, err
	case added == 0:
		left, err := w.left(g, rows)
		if left {
			return 0, err
		}
		return -1, err
	}
	return 0, nil
}

// left reports whether the index has a link of the account in the group that the run does not
// remove.
func (w *targetWriter) left(g group, rows []distinct) (bool, error) {
	if w.it == nil {
		var err error
		w.it, err = w.run.x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceDistinct},
			UpperBound: []byte{spaceDistinct + 1}})
		if err != nil {
			return false, err
		}
	}
	w.key = accountOfGroupKey(w.key, g, rows[0].account)
	for ok := w.it.SeekGE(w.key); ok; ok = w.it.Next() {
		if !bytes.HasPrefix(w.it.Key(), w.key) {
			break
		}
		_, _, arrival, err := parseDistinct(w.it.Key())
		if err != nil {
			return false, err
		}
		i, ok := slices.BinarySearchFunc(rows, arrival, func(d distinct, arrival uint64) int {
			return cmp.Compare(d.arrival, arrival)
		})
		if !ok || !rows[i].remove {
			return true, nil
		}
	}
	return false, w.it.Error()
}

const (
	// sortBits is how many bits of a hash choose a bucket: half a million links are some 8 in each.
	sortBits = 16
	// sortFew is up to how many links are sorted without buckets.
	sortFew = 4096
)

// sortLinks returns links by group and version. versions rise in links, which stays as it is.
func sortLinks(links []link) []link {
	if len(links) <= sortFew {
		sorted := slices.Clone(links)
		sortBucket(sorted)
		return sorted
	}
	// Hashes are spread evenly, but for those of targets that have many links.
	starts := make([]uint32, 1<<sortBits+1)
	for i := range links {
		starts[links[i].high>>(64-sortBits)+1]++
	}
	for i := range starts[1:] {
		starts[i+1] += starts[i]
	}
	ends := slices.Clone(starts[:1<<sortBits])
	sorted := make([]link, len(links))
	for i := range links {
		bucket := links[i].high >> (64 - sortBits)
		sorted[ends[bucket]] = links[i]
		ends[bucket]++
	}
	for i := range ends {
		sortBucket(sorted[starts[i]:ends[i]])
	}
	return sorted
}

// sortBucket sorts links by group and version.
func sortBucket(links []link) {
	slices.SortFunc(links, func(a, b link) int {
		if c := a.compare(b.group); c != 0 {
			return c
		}
		return cmp.Compare(a.version, b.version)
	})
}
