package store

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// idleHosts are hosts whose place a new host may take. A scan of all hosts takes tens of
// milliseconds, so that one scan collects many. Each is checked again before it is evicted.
type idleHosts struct {
	found []idleHost // idle longest first
	none  bool       // the last scan found none, and no host has become idle since
}

type idleHost struct {
	id   uint32
	used int64 // when it was found; a larger hostMemo.used means that it was used since
}

// idleHostsMax bounds the hosts that one scan collects.
const idleHostsMax = 1024

// enter adds a host to the table. The mutex is held.
func (q *hosts) enter(id uint32, name string) *hostMemo {
	m := q.memo(id)
	m.name = name
	of := site(name)
	q.sites[of] = append(q.sites[of], id)
	q.named++
	return m
}

// leave removes a host from the table. The mutex is held.
func (q *hosts) leave(id uint32) {
	of := site(q.of[id].name)
	ids := q.sites[of]
	if i := slices.Index(ids, id); i >= 0 {
		ids[i] = ids[len(ids)-1]
		q.sites[of] = ids[:len(ids)-1]
	}
	if len(q.sites[of]) == 0 {
		delete(q.sites, of)
	}
	delete(q.of, id)
	delete(q.fresh, id)
	q.named--
}

// touch records that a host is in use. The mutex is held.
func (q *hosts) touch(id uint32, now time.Time) {
	if m := q.of[id]; m != nil {
		m.used = max(m.used, now.UnixMicro())
	}
}

// known reports whether a host has that id, or the id is 0, which stands for unknown hosts. The
// mutex is held.
func (q *hosts) known(id uint32) bool {
	m := q.of[id]
	return id == 0 || m != nil && m.name != ""
}

// evictable reports whether no row, batch or setting needs the host. The caller checks the sources.
// The mutex is held.
func (m *hostMemo) evictable() bool {
	set := m.row.Banned || m.row.Limits != (HostLimits{})
	return m.name != "" && m.HostCounts == (HostCounts{}) && m.pins == 0 && !set
}

// makeRoom adds to b the deletion of a host if the table is full, and returns its id, or 0 if there
// is room. The caller holds the mutex of the hosts.
func (s *Store) makeRoom(b *pebble.Batch, host string) (evicted uint32, err error) {
	q := &s.hosts
	of, most := site(host), int(max(1, s.opts.HostsMax/siteShare))
	full := q.named >= s.opts.HostsMax
	if !full && len(q.sites[of]) < most {
		return 0, nil
	}
	sources, err := s.sourceHosts()
	if err != nil {
		return 0, err
	}
	if len(q.sites[of]) >= most {
		if evicted = q.idleOf(of, sources); evicted == 0 {
			return 0, fmt.Errorf("host %s: the table has %d hosts of site %s, all in use", host, most, of)
		}
	} else if evicted = q.nextIdle(sources); evicted == 0 {
		return 0, fmt.Errorf("host %s: the table of hosts has %d, all in use", host, q.named)
	}
	return evicted, errors.Join(b.Delete(hostKey(q.of[evicted].name), nil),
		b.Delete(hostNameKey(evicted), nil), b.Delete(hostIDKey(spaceHostRow, evicted), nil))
}

// idleOf returns the host of a site that has been idle longest, 0 if every host is needed. The
// mutex is held.
func (q *hosts) idleOf(of string, sources map[string]bool) (id uint32) {
	var found idleHost
	for _, i := range q.sites[of] {
		m := q.of[i]
		h := idleHost{i, m.used}
		if m.evictable() && !sources[m.name] && (found.id == 0 || longerIdle(h, found) < 0) {
			found = h
		}
	}
	return found.id
}

// nextIdle returns the host that has been idle longest, or one of the longest, 0 if every host is
// needed. The mutex is held.
func (q *hosts) nextIdle(sources map[string]bool) (id uint32) {
	for looked := false; ; looked = true {
		for len(q.idle.found) > 0 {
			h := q.idle.found[0]
			q.idle.found = q.idle.found[1:]
			if m := q.of[h.id]; m != nil && m.used == h.used && m.evictable() && !sources[m.name] {
				return h.id
			}
		}
		if looked || q.idle.none {
			return 0
		}
		q.findIdle(sources)
	}
}

// findIdle collects idle hosts from all hosts. The mutex is held.
func (q *hosts) findIdle(sources map[string]bool) {
	var found []idleHost
	keep := func() {
		slices.SortFunc(found, longerIdle)
		found = found[:min(len(found), idleHostsMax)]
	}
	// last of the hosts kept, once their number is at its maximum
	last := idleHost{used: math.MaxInt64}
	for id, m := range q.of {
		h := idleHost{id, m.used}
		if longerIdle(h, last) > 0 || !m.evictable() || sources[m.name] {
			continue
		}
		if found = append(found, h); len(found) == 4*idleHostsMax {
			keep() // now rather than once at the end: most hosts are then ruled out early
			last = found[len(found)-1]
		}
	}
	keep()
	q.idle.found, q.idle.none = found, len(found) == 0
}

// longerIdle orders hosts by last use, then by id.
func longerIdle(a, b idleHost) int {
	return cmp.Or(cmp.Compare(a.used, b.used), cmp.Compare(a.id, b.id))
}

// freed makes the next search scan the table again if m may be idle now. The caller holds the
// mutex.
func (q *hosts) freed(m *hostMemo) {
	if m.evictable() {
		q.idle.none = false
	}
}

// sourceHosts returns the hosts of the stored sources. There are few; they are read when a host is
// to be evicted.
func (s *Store) sourceHosts() (map[string]bool, error) {
	firehoses, err := s.Sources()
	if err != nil {
		return nil, err
	}
	crawls, err := s.CrawlSources()
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(firehoses)+len(crawls))
	note := func(url string) {
		_, rest, _ := strings.Cut(url, "://")
		name, _, _ := strings.Cut(rest, "/")
		names[name] = true
	}
	for _, src := range firehoses {
		note(src.URL)
	}
	for _, c := range crawls {
		note(c.URL)
	}
	return names, nil
}

// pinHost returns the id under which a row of the batch names a host: 0 if the host has lost its id
// meanwhile, so that it is resolved again. The host keeps its id until the batch is applied or
// discarded.
func (b *Batch) pinHost(id uint32) uint32 {
	q := &b.s.hosts
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.known(id) {
		return 0
	}
	q.touch(id, b.s.now())
	b.pin(id)
	return id
}

// pin keeps the id of a host that a row of the batch names or named. The counts of hosts change
// before the batch is in the write-ahead log, and an eviction must not get there first. The mutex
// of the hosts is held.
func (b *Batch) pin(id uint32) {
	if _, pinned := b.hosts[id]; pinned {
		return
	}
	if b.hosts == nil {
		b.hosts = map[uint32]hostChange{}
	}
	b.hosts[id] = hostChange{}
	b.s.hosts.memo(id).pins++
}

// unpin releases the hosts that pin keeps, after the batch was applied or discarded.
func (b *Batch) unpin() {
	if len(b.hosts) == 0 && !b.unsourced {
		return
	}
	q := &b.s.hosts
	q.mu.Lock()
	defer q.mu.Unlock()
	if b.unsourced {
		q.idle.none = false
	}
	for id := range b.hosts {
		if m := q.of[id]; m != nil {
			m.pins--
			q.freed(m)
		}
	}
	b.hosts = nil
}
