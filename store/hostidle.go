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

// idleHosts are hosts whose place another may take. To look at all hosts takes tens of
// milliseconds, so that one look finds many. Whether a host may go is asked again when its turn
// comes.
type idleHosts struct {
	found []idleHost // idle longest first
	none  bool       // the last look found none, and none has come to be idle since
}

type idleHost struct {
	id   uint32
	used int64 // as it was found: it was used since if that is less than hostMemo.used
}

// idleHostsMax bounds what one look finds.
const idleHostsMax = 1024

// enter takes a host into the table. The mutex is held.
func (q *hosts) enter(id uint32, name string) *hostMemo {
	m := q.memo(id)
	m.name = name
	of := site(name)
	q.sites[of] = append(q.sites[of], id)
	q.named++
	return m
}

// leave takes a host out of the table. The mutex is held.
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

// touch notes that a host is used. The mutex is held.
func (q *hosts) touch(id uint32, now time.Time) {
	if m := q.of[id]; m != nil {
		m.used = max(m.used, now.UnixMicro())
	}
}

// known reports whether a host has that id, or had none when its rows were written. The mutex is
// held.
func (q *hosts) known(id uint32) bool {
	m := q.of[id]
	return id == 0 || m != nil && m.name != ""
}

// evictable reports whether nothing needs a host, apart from the sources that name it. The mutex is
// held.
func (m *hostMemo) evictable() bool {
	set := m.row.Banned || m.row.Limits != (HostLimits{})
	return m.name != "" && m.HostCounts == (HostCounts{}) && m.pins == 0 && !set
}

// makeRoom adds to b the deletion of a host, if there are as many as there can be, and returns its
// id, or 0 if there is room. The caller holds the mutex of the hosts.
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
			return 0, fmt.Errorf("host %s: %d hosts of %s are known, each in use", host, most, of)
		}
	} else if evicted = q.nextIdle(sources); evicted == 0 {
		return 0, fmt.Errorf("host %s: %d hosts are known, each in use", host, q.named)
	}
	return evicted, errors.Join(b.Delete(hostKey(q.of[evicted].name), nil),
		b.Delete(hostNameKey(evicted), nil), b.Delete(hostIDKey(spaceHostRow, evicted), nil))
}

// idleOf is the host of a site that has been idle longest, 0 if each is needed. The mutex is held.
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

// nextIdle is the host that has been idle longest, or one of some, 0 if each is needed. The mutex
// is held.
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

// findIdle looks at all hosts. The mutex is held.
func (q *hosts) findIdle(sources map[string]bool) {
	var found []idleHost
	keep := func() {
		slices.SortFunc(found, longerIdle)
		found = found[:min(len(found), idleHostsMax)]
	}
	last := idleHost{used: math.MaxInt64} // of those kept, if they are as many as there can be
	for id, m := range q.of {
		h := idleHost{id, m.used}
		if longerIdle(h, last) > 0 || !m.evictable() || sources[m.name] {
			continue
		}
		if found = append(found, h); len(found) == 4*idleHostsMax {
			keep() // rather than all at the end: most are out of the question soon
			last = found[len(found)-1]
		}
	}
	keep()
	q.idle.found, q.idle.none = found, len(found) == 0
}

// longerIdle orders hosts: the one that was used least recently first, of two the older.
func longerIdle(a, b idleHost) int {
	return cmp.Or(cmp.Compare(a.used, b.used), cmp.Compare(a.id, b.id))
}

// freed has the next look for idle hosts take place if m may be one now. The caller holds the mutex.
func (q *hosts) freed(m *hostMemo) {
	if m.evictable() {
		q.idle.none = false
	}
}

// sourceHosts are the hosts of the sources that are remembered: some, which are read when a host is
// to go.
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

// pinHost returns the id under which a row of the batch is to name a host: 0 where the host has
// lost its id since it was asked for, so that it is resolved anew. Until the batch is applied, or
// dropped, the host keeps its id.
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

// pin keeps the id of a host that a row of the batch names or named: the counts of hosts change
// before the batch is in the write-ahead log, where the end of a host must not overtake it. The
// mutex of the hosts is held.
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

// unpin ends what pin began, for a batch that is applied or dropped.
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
