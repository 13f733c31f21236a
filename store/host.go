package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// hosts is the table of all hosts, with their counts and settings: some 200 bytes each.
type hosts struct {
	mu   sync.Mutex
	next uint32               // mu guards: ids rise, and none is assigned twice
	of   map[uint32]*hostMemo // mu guards; 0 stands for repositories whose host is unknown
	// sites groups the hosts that have an id by site. mu guards.
	sites map[string][]uint32
	named int64 // number of hosts that have an id. mu guards.
	// fresh has the hosts whose queues got rows since TakeEnqueued, each with the lowest priority
	// number of them. mu guards.
	fresh map[uint32]uint8
	idle  idleHosts // mu guards
}

// siteShare is the part of Options.HostsMax that the hosts of one site may have: 4,096 by default.
// The largest site has a hundred.
const siteShare = 64

// site returns the part of a host's name that one owner controls: the last two labels, below which
// the owner can make up names without end. All addresses are one site, as they have ports. The
// share of a site keeps its hosts from taking the places of all others.
func site(host string) string {
	name, _, _ := strings.Cut(host, ":")
	last := strings.LastIndexByte(name, '.')
	// not a domain: no domain ends like that
	if label := name[last+1:]; label == "" || label[0] == '[' || label[0] >= '0' && label[0] <= '9' {
		return "addresses"
	}
	return name[strings.LastIndexByte(name[:max(last, 0)], '.')+1:]
}

// hostMemo is a host in memory.
type hostMemo struct {
	name string
	row  HostRow
	HostCounts
	pins int32 // batches in flight that change how many rows name the host
	used int64 // unix microseconds of its last use, about
}

// HostCounts counts the repositories whose row names a host.
type HostCounts struct {
	Accounts int64 // all
	Queued   int64 // pending, including the ones in flight
}

// HostRow has the settings of a host, and what was learnt about it.
type HostRow struct {
	Banned bool       `cbor:"1,keyasint,omitempty"` // no requests are sent to it
	Limits HostLimits `cbor:"2,keyasint"`           // in place of the usual limits
	Bytes  int64      `cbor:"3,keyasint,omitempty"` // received from it
	Repos  int64      `cbor:"4,keyasint,omitempty"` // fetched from it
	// text of its last failure; stays when it answers again
	Error string `cbor:"5,keyasint,omitempty"`
	// unix seconds since when its answers fail, 0 if they do not
	Failing   int64 `cbor:"6,keyasint,omitempty"`
	FirstSeen int64 `cbor:"7,keyasint,omitempty"` // unix seconds when its name became known
	// unix seconds of its last good answer, about
	LastSeen int64 `cbor:"8,keyasint,omitempty"`
	// unix seconds of its last failure, 0 if unknown: older versions do not write it
	ErrorAt int64 `cbor:"9,keyasint,omitempty"`
}

// HostLimits are the limits set for a host; 0 means not set. A pace.Override has the same fields,
// so that one converts to the other.
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
	err = scan(s.db, []byte{spaceHostName}, spaceEnd(spaceHostName),
		func(key, value []byte) (bool, error) {
			id, err := parseHostIDKey(spaceHostName, key)
			q.enter(id, string(value))
			return true, err
		})
	if err != nil {
		return err
	}
	err = scan(s.db, []byte{spaceHostRow}, spaceEnd(spaceHostRow),
		func(key, value []byte) (bool, error) {
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

// memo returns the entry of a host, which it creates if there is none. The mutex is held.
func (q *hosts) memo(id uint32) *hostMemo {
	m := q.of[id]
	if m == nil {
		m = &hostMemo{}
		q.of[id] = m
	}
	return m
}

// Rehost puts r into the queue of another host, now or whenever it is queued next. If the table has
// no room for that host, r goes into the queue of repositories whose host is unknown.
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

// HostID returns the id of a host (host or host:port, lower case), and assigns one to a new host.
// Ids are never assigned twice. At most Options.HostsMax hosts have one at a time, and the hosts of
// one site only a part of that. A new host then takes the place of the host that has been idle
// longest, among those that no row names and that have no settings. If there is none, HostID
// returns an error.
func (s *Store) HostID(host string) (uint32, error) {
	// The mutex is not held here, as this may read the disk and the commits of all batches take it.
	id, err := s.hostID(host)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	q := &s.hosts
	if err == nil && q.touchNamed(id, host, s.now()) {
		return id, nil
	}
	s.enterWrites() // before the mutex, which reads of hosts take
	defer s.leaveWrites()
	q.mu.Lock()
	defer q.mu.Unlock()
	return s.giveHostID(host)
}

// touchNamed notes that a host is used, and reports whether it has that name.
func (q *hosts) touchNamed(id uint32, name string, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.of[id]
	if m == nil || m.name != name {
		return false
	}
	q.touch(id, now)
	return true
}

// giveHostID implements HostID. The mutex is held, and the door of writes passed.
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
		return 0, fmt.Errorf("host %s: the host ids are used up", host)
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
	// This needs no sync: a batch that uses the id comes later in the log, and the batches that
	// removed the last rows of the evicted host come before. A crash leaves either the old host or
	// the new one.
	err = errors.Join(b.Set(hostKey(host), binary.BigEndian.AppendUint32(nil, id), nil),
		b.Set(hostNameKey(id), []byte(host), nil), b.Set(hostIDKey(spaceHostRow, id), value, nil),
		setMetaNumber(b, metaHost, uint64(id)+1), s.applyInside(b, pebble.NoSync))
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

// HostByID returns the host with an id, from memory.
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

// HostNamed returns the host with a name, or ErrNotFound.
func (s *Store) HostNamed(name string) (Host, error) {
	id, err := s.hostID(name)
	if err != nil {
		return Host{}, err
	}
	h, _ := s.HostByID(id)
	return h, nil
}

// HostsByID returns up to limit hosts with a higher id than after, in order of id, which is the
// order in which they became known.
func (s *Store) HostsByID(after uint32, limit int) (page []Host, err error) {
	lower := append(hostNameKey(after), 0)
	err = scan(s.db, lower, spaceEnd(spaceHostName), func(key, _ []byte) (bool, error) {
		id, err := parseHostIDKey(spaceHostName, key)
		if h, ok := s.HostByID(id); ok && err == nil {
			page = append(page, h)
		}
		return len(page) < limit, err
	})
	return page, err
}

// Hosts returns up to limit hosts that match, in order of name, behind the name after. next is the
// name to continue after, "" at the end.
func (s *Store) Hosts(
	after string, limit int, match func(*Host) bool,
) (page []Host, next string, err error) {
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
