package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// hosts knows every host, and what is counted and set for it: some 200 bytes each.
type hosts struct {
	mu   sync.Mutex
	next uint32               // mu guards: ids rise, and none is given again
	of   map[uint32]*hostMemo // mu guards; 0 stands for repositories whose host is unknown
	// sites are the hosts that have an id by what their names have in common. mu guards.
	sites map[string][]uint32
	named int64 // how many hosts have an id. mu guards.
	// fresh are the hosts into whose queues rows came since somebody asked, each with the first priority of them. mu guards.
	fresh map[uint32]uint8
	idle  idleHosts // mu guards
}

// siteShare is the part of Options.HostsMax that the hosts of one site may have: 4,096 by default. The largest has a hundred.
const siteShare = 64

// site is what names of hosts have in common that whoever has one can make up more of: the last two labels, and all addresses, which have
// ports. Nobody else's hosts are to stay unknown because of them.
func site(host string) string {
	name, _, _ := strings.Cut(host, ":")
	last := strings.LastIndexByte(name, '.')
	if label := name[last+1:]; label == "" || label[0] == '[' || label[0] >= '0' && label[0] <= '9' { // no domain ends like that
		return "addresses"
	}
	return name[strings.LastIndexByte(name[:max(last, 0)], '.')+1:]
}

// hostMemo is a host in memory.
type hostMemo struct {
	name string
	row  HostRow
	HostCounts
	pins int32 // batches under way that change how many rows name it
	used int64 // unix microseconds when it was used last, about
}

// HostCounts are the repositories whose row names a host.
type HostCounts struct {
	Accounts int64 // known
	Queued   int64 // pending, those in flight too
}

// HostRow is what is set for a host, and what was learnt of it.
type HostRow struct {
	Banned    bool       `cbor:"1,keyasint,omitempty"` // not to be asked
	Limits    HostLimits `cbor:"2,keyasint"`           // instead of the usual ones
	Bytes     int64      `cbor:"3,keyasint,omitempty"` // received from it
	Repos     int64      `cbor:"4,keyasint,omitempty"` // fetched from it
	Error     string     `cbor:"5,keyasint,omitempty"` // of its last failure
	Failing   int64      `cbor:"6,keyasint,omitempty"` // unix seconds since when it has not answered in order, 0: it does
	FirstSeen int64      `cbor:"7,keyasint,omitempty"` // unix seconds when its name became known
	LastSeen  int64      `cbor:"8,keyasint,omitempty"` // unix seconds when it answered in order last, about
}

// HostLimits are the limits that were set for a host; 0 means that none was set. A pace.Override has
// the same fields, so that one converts to the other.
type HostLimits struct {
	Concurrency int `cbor:"1,keyasint,omitempty"` // requests at a time
	PerSecond   int `cbor:"2,keyasint,omitempty"` // requests that begin in any second
	PerHour     int `cbor:"3,keyasint,omitempty"`
	PerDay      int `cbor:"4,keyasint,omitempty"`
}

// Host is a host as the store knows it.
type Host struct {
	ID   uint32
	Name string // host or host:port
	HostCounts
	HostRow
}

// loadHosts reads all hosts.
func (s *Store) loadHosts() error {
	n, err := s.metaNumber(s.db, metaHost, 1)
	q := &s.hosts
	q.next, q.of = uint32(n), map[uint32]*hostMemo{0: {}}
	q.fresh, q.sites = map[uint32]uint8{}, map[string][]uint32{}
	if err != nil {
		return err
	}
	err = scan(s.db, []byte{spaceHostName}, spaceEnd(spaceHostName), func(key, value []byte) (bool, error) {
		id, err := parseHostIDKey(spaceHostName, key)
		q.enter(id, string(value))
		return true, err
	})
	if err != nil {
		return err
	}
	err = scan(s.db, []byte{spaceHostRow}, spaceEnd(spaceHostRow), func(key, value []byte) (bool, error) {
		id, err := parseHostIDKey(spaceHostRow, key)
		if err != nil {
			return false, err
		}
		m := q.memo(id)
		err = s.codec.decode(value, &m.row)
		m.used = 1e6 * max(m.row.FirstSeen, m.row.LastSeen)
		return true, err
	})
	if err != nil {
		return err
	}
	return s.loadHostCounts()
}

// memo is the entry of a host. The mutex is held.
func (q *hosts) memo(id uint32) *hostMemo {
	m := q.of[id]
	if m == nil {
		m = &hostMemo{}
		q.of[id] = m
	}
	return m
}

// Rehost puts r into the queue of another host, now or whenever it is queued next. If the table has no room for that
// host, r is queued among the repositories whose host is unknown.
func (b *Batch) Rehost(r *Repo, host string) {
	id, err := b.s.HostID(host)
	if errors.Is(err, ErrCorrupt) {
		b.fail(err)
	}
	if err != nil {
		id = 0
	}
	r.Pending.Host = id
}

// HostID gives the id of a host (host or host:port, lower case), handing one out to a host not met
// before. Ids are never given again. Only Options.HostsMax hosts have one at a time, and no more
// than a part of them are of one site: then a new one takes the place of the one that has been idle
// longest, among those that no row names and nothing is set for. Without any of those it is an
// error.
func (s *Store) HostID(host string) (uint32, error) {
	// Without the mutex, which the commits of all batches take: this may read the disk.
	id, err := s.hostID(host)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	q := &s.hosts
	q.mu.Lock()
	defer q.mu.Unlock()
	if m := q.of[id]; err == nil && m != nil && m.name == host {
		q.touch(id, s.now())
		return id, nil
	}
	return s.giveHostID(host)
}

// giveHostID is HostID. The mutex is held.
func (s *Store) giveHostID(host string) (uint32, error) {
	q := &s.hosts
	id, err := s.hostID(host)
	if err == nil {
		q.touch(id, s.now())
	}
	if !errors.Is(err, ErrNotFound) {
		return id, err
	}
	if q.next == math.MaxUint32 {
		return 0, fmt.Errorf("host %s: as many hosts were known as a store can count", host)
	}
	b := s.db.NewBatch()
	evicted, err := s.makeRoom(b, host)
	if err != nil {
		return 0, errors.Join(err, b.Close())
	}
	id = q.next
	row := HostRow{FirstSeen: s.now().Unix()}
	value, err := s.codec.encode(&row)
	if err != nil {
		return 0, errors.Join(err, b.Close())
	}
	// Unsynced: whatever batch uses the id comes later in the log, and the batches that took the
	// last rows from the host whose place this is come before it. A crash leaves the one host or
	// the other.
	err = errors.Join(b.Set(hostKey(host), binary.BigEndian.AppendUint32(nil, id), nil),
		b.Set(hostNameKey(id), []byte(host), nil), b.Set(hostIDKey(spaceHostRow, id), value, nil),
		setMetaNumber(b, metaHost, uint64(id)+1), s.apply(b, pebble.NoSync))
	if err != nil {
		return 0, err
	}
	if evicted != 0 {
		q.leave(evicted)
	}
	q.next++
	m := q.enter(id, host)
	m.row = row
	q.touch(id, s.now())
	return id, nil
}

func (s *Store) hostID(host string) (uint32, error) {
	var id uint32
	err := get(s.db, hostKey(host), func(v []byte) error {
		if len(v) != 4 {
			return fmt.Errorf("id of host %s is %x: %w", host, v, ErrCorrupt)
		}
		id = binary.BigEndian.Uint32(v)
		return nil
	})
	return id, err
}

// HostByID is the host with that id, from memory.
func (s *Store) HostByID(id uint32) (h Host, ok bool) {
	q := &s.hosts
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.of[id]
	if m == nil || m.name == "" {
		return Host{}, false
	}
	return m.host(id), true
}

func (m *hostMemo) host(id uint32) Host {
	return Host{ID: id, Name: m.name, HostCounts: m.HostCounts, HostRow: m.row}
}

// HostNamed is the host of that name, or ErrNotFound.
func (s *Store) HostNamed(name string) (Host, error) {
	id, err := s.hostID(name)
	if err != nil {
		return Host{}, err
	}
	h, _ := s.HostByID(id)
	return h, nil
}

// Hosts gives up to limit hosts that match, in order of name behind after; next is where to go on, "" at the end.
func (s *Store) Hosts(after string, limit int, match func(*Host) bool) (page []Host, next string, err error) {
	lower := []byte{spaceHost}
	if after != "" {
		lower = append(hostKey(after), 0)
	}
	err = scan(s.db, lower, spaceEnd(spaceHost), func(key, value []byte) (bool, error) {
		if len(value) != 4 {
			return false, errKey(spaceHost, key)
		}
		h, ok := s.HostByID(binary.BigEndian.Uint32(value))
		if !ok || match != nil && !match(&h) {
			return true, nil
		}
		if len(page) == limit {
			next = page[limit-1].Name
			return false, nil
		}
		page = append(page, h)
		return true, nil
	})
	return page, next, err
}
