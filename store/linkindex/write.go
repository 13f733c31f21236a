package linkindex

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// write writes the run, with the state that it leads to, in one step: a crash leaves all of it or
// nothing. The run is empty then.
func (r *run) write() (err error) {
	x := r.x
	x.opts.Step("run")
	out, err := x.newSink(r.rows())
	if err != nil {
		x.fail(err)
		return err
	}
	for _, part := range []func(*sink) error{r.writeNames, r.writeLinks, r.writeRecords,
		r.writeState} {
		if err == nil {
			err = part(out)
		}
	}
	if err = out.finish(err); err != nil {
		x.fail(err)
		return err
	}
	x.mu.Lock()
	x.state = r.next
	x.mu.Unlock()
	x.measure()
	x.opts.Step("written")
	r.reset()
	return nil
}

// writeNames writes the numbers that the run gave.
func (r *run) writeNames(out *sink) error {
	for _, a := range r.named { // in order of number
		out.set(numberKey(r.key, spaceDID, a.number), []byte(a.did))
	}
	for _, s := range r.sourced {
		out.set(numberKey(r.key, spaceSource, s.number), []byte(s.source.text()))
	}
	slices.SortFunc(r.named, func(a, b namedAccount) int { return cmp.Compare(a.did, b.did) })
	for _, a := range r.named {
		out.set(textKey(r.key, spaceAccount, a.did), numberKey(nil, 0, a.number)[1:])
	}
	slices.SortFunc(r.sourced, func(a, b namedSource) int {
		return cmp.Compare(a.source.text(), b.source.text())
	})
	for _, s := range r.sourced {
		out.set(textKey(r.key, spaceSourceText, s.source.text()), numberKey(nil, 0, s.number)[1:])
	}
	return out.err
}

// writeRecords writes the rows of records.
func (r *run) writeRecords(out *sink) error {
	order := make([]int32, 0, len(r.versions))
	for i := range r.versions {
		if v := &r.versions[i]; !v.dead && !v.removed {
			order = append(order, int32(i))
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		v, w := &r.versions[a], &r.versions[b]
		return cmp.Or(cmp.Compare(v.account, w.account), cmp.Compare(v.collection, w.collection),
			slices.Compare(r.rkeyOf(v), r.rkeyOf(w)))
	})
	var value []byte
	for _, i := range order {
		v := &r.versions[i]
		key := recordKey(r.key, v.account, v.collection, r.rkeyOf(v))
		if v.count == 0 {
			out.delete(key)
			continue
		}
		value = appendArrival(value[:0], v.arrival)
		for _, l := range r.adds[v.links : v.links+v.count] {
			value = l.group.append(value)
		}
		out.set(key, value)
	}
	return out.err
}

func (r *run) writeState(out *sink) error {
	value, err := r.next.encode()
	if err == nil {
		out.set([]byte{spaceState}, value)
		err = out.err
	}
	return err
}

// writeLinks writes the rows of links and of counts, group by group.
func (r *run) writeLinks(out *sink) error {
	adds := make([]link, 0, len(r.adds)) // r.adds stays in the order of versions
	for _, l := range r.adds {
		if !r.versions[l.version].dead {
			adds = append(adds, l)
		}
	}
	slices.SortFunc(adds, func(a, b link) int {
		return cmp.Or(a.compare(b.group), cmp.Compare(a.version, b.version)) // as arrivals rise
	})
	removes := r.removes
	slices.SortFunc(removes, func(a, b link) int {
		return cmp.Or(a.compare(b.group),
			cmp.Compare(r.versions[a.version].arrival, r.versions[b.version].arrival))
	})
	w := groupWriter{run: r, out: out}
	defer w.close()
	r.next.Links += int64(len(adds) - len(removes))
	for len(adds)+len(removes) > 0 && out.err == nil {
		g := first(adds, removes)
		var a, d int
		for a < len(adds) && adds[a].group == g {
			a++
		}
		for d < len(removes) && removes[d].group == g {
			d++
		}
		if err := w.group(g, adds[:a], removes[:d]); err != nil {
			return err
		}
		adds, removes = adds[a:], removes[d:]
	}
	return out.err
}

// first returns the lowest group of two sorted slices.
func first(adds, removes []link) group {
	if len(adds) == 0 || len(removes) > 0 && removes[0].compare(adds[0].group) < 0 {
		return removes[0].group
	}
	return adds[0].group
}

// groupWriter writes the rows of one group after the other.
type groupWriter struct {
	run   *run
	out   *sink
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

func (w *groupWriter) close() {
	if w.it != nil {
		if err := w.it.Close(); err != nil && w.out.err == nil {
			w.out.err = err
		}
	}
}

// group writes the changes of one group.
func (w *groupWriter) group(g group, adds, removes []link) error {
	w.rows = w.rows[:0]
	for _, l := range removes { // all of them arrived before adds
		v := &w.run.versions[l.version]
		w.key = linkKey(w.key, g, v.arrival)
		w.out.delete(w.key)
		w.rows = append(w.rows, distinct{v.account, v.arrival, true, false})
	}
	for _, l := range adds {
		v := &w.run.versions[l.version]
		w.key = linkKey(w.key, g, v.arrival)
		w.value = binary.BigEndian.AppendUint32(w.value[:0], v.account)
		w.value = append(w.value, w.run.rkeyOf(v)...)
		w.out.set(w.key, w.value)
		w.rows = append(w.rows, distinct{v.account, v.arrival, false, v.fresh})
	}
	order := func(a, b distinct) int {
		return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.arrival, b.arrival))
	}
	if !slices.IsSortedFunc(w.rows, order) {
		slices.SortFunc(w.rows, order)
	}
	change := Counts{Records: int64(len(adds) - len(removes))}
	for rows := w.rows; len(rows) > 0; {
		n := 1
		for n < len(rows) && rows[n].account == rows[0].account {
			n++
		}
		d, err := w.account(g, rows[:n])
		if err != nil {
			return err
		}
		change.DIDs += d
		rows = rows[n:]
	}
	if change != (Counts{}) {
		w.key, w.value = groupKey(w.key, spaceCount, g), appendCounts(w.value[:0], change)
		w.out.merge(w.key, w.value)
	}
	return w.out.err
}

// account writes the rows of one account in a group, and returns by how much the number of accounts
// changes.
func (w *groupWriter) account(g group, rows []distinct) (d int64, err error) {
	removed, added, fresh := 0, 0, false
	for _, row := range rows {
		w.key = distinctKey(w.key, g, row.account, row.arrival)
		if row.remove {
			removed++
			w.out.delete(w.key)
			continue
		}
		added, fresh = added+1, row.fresh
		w.out.set(w.key, nil)
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
func (w *groupWriter) left(g group, rows []distinct) (bool, error) {
	if w.it == nil {
		var err error
		w.it, err = w.run.x.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceDistinct},
			UpperBound: []byte{spaceDistinct + 1}})
		if err != nil {
			return false, err
		}
	}
	account := rows[0].account
	w.key = accountOfGroupKey(w.key, g, account)
	for ok := w.it.SeekGE(w.key); ok; ok = w.it.Next() {
		if len(w.it.Key()) < len(w.key) || string(w.it.Key()[:len(w.key)]) != string(w.key) {
			break
		}
		_, arrival, err := parseDistinct(w.it.Key())
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
