package linkindex

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
)

// write writes the run, with the state that it leads to, in one step: a crash leaves all of it or
// nothing. The run is empty then.
func (r *run) write() (err error) {
	x := r.x
	x.opts.Step("run")
	adds, removes := r.live(), r.removes
	r.next.Links += int64(len(adds) - len(removes))
	if err := x.health.rests(); err != nil {
		return err
	}
	out := x.newSink(r.rows())
	if err = out.finish(out.parts(
		func() error { return r.writeTargets(out, adds, removes) },
		func() error { return r.writeDistinct(out, adds, removes) },
		func() error { return r.writeRecords(out) },
		func() error { return r.writeNames(out) },
		func() error { return r.writeState(out) },
	)); err != nil {
		return err
	}
	x.mu.Lock()
	x.state = r.next
	x.mu.Unlock()
	x.opts.Step("written")
	r.reset()
	return nil
}

// live returns the links of versions that no later version replaces. r.adds, in which versions have
// places, stays as it is.
func (r *run) live() []link {
	adds := make([]link, 0, len(r.adds))
	for i := range r.versions {
		if v := &r.versions[i]; !v.dead {
			adds = append(adds, r.adds[v.links:v.links+v.count]...)
		}
	}
	return adds
}

// writeNames writes the numbers that the run gave.
func (r *run) writeNames(out *sink) error {
	if len(r.named) > 0 {
		dids, accounts := out.rows(spaceDID), out.rows(spaceAccount)
		for _, a := range r.named { // in order of number
			dids.set(numberKey(nil, spaceDID, a.number), []byte(a.did))
		}
		slices.SortFunc(r.named, func(a, b namedAccount) int { return cmp.Compare(a.did, b.did) })
		for _, a := range r.named {
			accounts.set(textKey(nil, spaceAccount, a.did), numberKey(nil, 0, a.number)[1:])
		}
		if err := errors.Join(dids.err, accounts.err); err != nil {
			return err
		}
	}
	if len(r.sourced) == 0 {
		return nil
	}
	names, numbers := out.rows(spaceSource), out.rows(spaceSourceText)
	for _, s := range r.sourced {
		names.set(numberKey(nil, spaceSource, s.number), []byte(s.source.text()))
	}
	slices.SortFunc(r.sourced, func(a, b namedSource) int {
		return cmp.Compare(a.source.text(), b.source.text())
	})
	for _, s := range r.sourced {
		numbers.set(textKey(nil, spaceSourceText, s.source.text()), numberKey(nil, 0, s.number)[1:])
	}
	return errors.Join(names.err, numbers.err)
}

// writeRecords writes the rows of records.
func (r *run) writeRecords(out *sink) error {
	order := make([]int32, 0, len(r.versions))
	for i := range r.versions {
		if v := &r.versions[i]; !v.dead && !v.removed {
			order = append(order, int32(i))
		}
	}
	if len(order) == 0 {
		return nil
	}
	slices.SortFunc(order, func(a, b int32) int {
		v, w := &r.versions[a], &r.versions[b]
		switch {
		case v.account != w.account:
			return cmp.Compare(v.account, w.account)
		case v.collection != w.collection:
			return cmp.Compare(v.collection, w.collection)
		}
		return bytes.Compare(r.rkeyOf(v), r.rkeyOf(w))
	})
	var key, value []byte
	to := out.rows(spaceRecord)
	for _, i := range order {
		v := &r.versions[i]
		key = recordKey(key, v.account, v.collection, r.rkeyOf(v))
		if v.count == 0 {
			to.delete(key)
			continue
		}
		value = appendArrival(value[:0], v.arrival)
		for _, l := range r.adds[v.links : v.links+v.count] {
			value = l.group.append(value)
		}
		to.set(key, value)
	}
	return to.err
}

// writeDistinct writes the rows by account.
func (r *run) writeDistinct(out *sink, adds, removes []link) error {
	if len(adds)+len(removes) == 0 {
		return nil
	}
	all := make([]placed, 0, len(adds)+len(removes))
	for _, links := range [][]link{removes, adds} {
		for _, l := range links {
			v := &r.versions[l.version]
			all = append(all, placed{l.group, v.arrival, v.account, v.removed})
		}
	}
	byAccount := func(a, b placed) int { return cmp.Compare(a.account, b.account) }
	if !slices.IsSortedFunc(all, byAccount) {
		slices.SortStableFunc(all, byAccount)
	}
	var key []byte
	to := out.rows(spaceDistinct)
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].account == all[0].account {
			n++
		}
		slices.SortFunc(all[:n], func(a, b placed) int {
			if c := a.group.compare(b.group); c != 0 {
				return c
			}
			return cmp.Compare(a.arrival, b.arrival)
		})
		for _, p := range all[:n] {
			key = distinctKey(key, p.group, p.account, p.arrival)
			if p.remove {
				to.delete(key)
			} else {
				to.set(key, nil)
			}
		}
		all = all[n:]
	}
	return to.err
}

// placed is a link in the order of rows by account.
type placed struct {
	group
	arrival uint64
	account uint32
	remove  bool
}

func (r *run) writeState(out *sink) error {
	value, err := r.next.encode()
	if err != nil {
		return err
	}
	to := out.rows(spaceState)
	to.set([]byte{spaceState}, value)
	return to.err
}
