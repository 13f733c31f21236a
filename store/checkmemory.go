package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
)

// caches compares the cached rows and counts with the rows on disk.
func (c *checker) caches() error {
	for did, row := range c.rows {
		err := get(c.r, repoKey(nil, did), func(v []byte) error {
			want, err := c.s.codec.encode(&row)
			if err != nil {
				return err
			}
			if !bytes.Equal(v, want) || row.DID != did || row.loaded != row.rowState() {
				return fmt.Errorf("is %x instead of %+v", v, row)
			}
			return nil
		})
		if err != nil {
			c.report("cached row of %s: %v", did, err)
		}
	}
	for of, says := range c.counted {
		n := int64(0)
		err := get(c.r, collectionKey(nil, []byte(of.collection), of.ordinal),
			func(v []byte) (err error) {
				n, err = parseCountValue(v)
				return err
			})
		owned, oerr := holds(c.r, ordinalKey(nil, spaceOwner, of.ordinal))
		if err = errors.Join(err, oerr); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if owned && n != says { // the count of a wiped repository is never read again
			c.report("cached count %s of ordinal %d: is %d instead of %d",
				of.collection, of.ordinal, n, says)
		}
	}
	return nil
}

// newest compares the newest events, which are kept in memory, with the log.
func (c *checker) newest() error {
	for _, g := range c.recent {
		if g.end <= c.tail {
			continue // pruned, so that no reader reaches it
		}
		if g.listed {
			if err := g.checkListed(c); err != nil {
				c.report("listed events %d to %d in memory: the entry: %v", g.id, g.end-1, err)
			}
			continue
		}
		at := 0
		r := logReader{s: c.s, view: c.r, head: g.end - 1, next: max(g.id, c.tail), left: len(g.events),
			fn: func(ev *Event) error {
				for at < len(g.events) && g.events[at].ID < ev.ID {
					at++
				}
				if at == len(g.events) || !reflect.DeepEqual(g.events[at], *ev) {
					c.report("event %d in memory differs from the log's %+v", ev.ID, *ev)
				}
				return nil
			}}
		if err := r.run(c.ctx); err != nil {
			return err
		}
		if r.next != g.end || at != len(g.events)-1 {
			c.report("events %d to %d in memory: the log has them to %d", g.id, g.end-1, r.next-1)
		}
	}
	return nil
}

// checkListed checks an entry of which memory says that its events are in listing rows.
func (g *eventGroup) checkListed(c *checker) error {
	return get(c.r, eventKey(nil, g.id), func(v []byte) error {
		var e entryV1
		err := c.s.codec.decode(v, &e)
		if err == nil && (!e.listed() || e.Live || g.id+e.ids() != g.end) {
			return fmt.Errorf("is %+v", e)
		}
		return err
	})
}

// numbers checks the next event id, enqueue id, ordinal and host id: each must be higher than all
// that are in use.
func (c *checker) numbers() error {
	next, err1 := c.s.metaNumber(c.r, metaNext, 1)
	t, err2 := c.s.metaNumber(c.r, metaTime, 0)
	enqueue, err3 := c.s.metaNumber(c.r, metaEnqueue, 1)
	ordinal, err4 := c.s.metaNumber(c.r, metaOrdinal, 1)
	host, err5 := c.s.metaNumber(c.r, metaHost, 1)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	if next != c.next || int64(t) != c.time {
		c.report("next event is %d after time %d on disk, and %d after time %d in memory",
			next, t, c.next, c.time)
	}
	pending := c.space(spacePending, func(key, _ []byte) error {
		k, err := parsePendingKey(key)
		if err == nil && k.Enqueue >= enqueue {
			c.report("pending row %+v: the next enqueue id is %d", k, enqueue)
		}
		return err
	})
	owners := c.space(spaceOwner, func(key, _ []byte) error {
		o, err := parseOrdinalKey(spaceOwner, key)
		if err == nil && uint64(o) >= ordinal {
			c.report("owner row %d: the next ordinal is %d", o, ordinal)
		}
		return err
	})
	hosts := c.space(spaceHost, func(key, value []byte) error {
		if len(value) != 4 || uint64(binary.BigEndian.Uint32(value)) >= host {
			c.report("host %s: has id %x, the next id is %d", key[1:], value, host)
			return nil
		}
		c.expect(hostNameKey(binary.BigEndian.Uint32(value)), key[1:], "name of host %x", value)
		return nil
	})
	return errors.Join(pending, owners, hosts)
}
