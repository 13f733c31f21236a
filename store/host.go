package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// hostsMax bounds the hosts we give ids to, each two rows of some 40 bytes on disk. The network
// has some thousands; but whoever has DIDs can name hosts, ids are never taken back, and when
// none is left no new host is known any more. Making 16 million DIDs takes long.
const hostsMax = 1 << 24

type hosts struct {
	mu   sync.Mutex
	next uint32 // mu guards
}

func (s *Store) loadHosts() error {
	n, err := s.metaNumber(s.db, metaHost, 1)
	s.hosts.next = uint32(n)
	return err
}

// HostID gives the id of a host (host or host:port, lower case), handing one out to a host
// not met before. Ids are never reused.
func (s *Store) HostID(host string) (uint32, error) {
	id, err := s.hostID(host)
	if !errors.Is(err, ErrNotFound) {
		return id, err
	}
	s.hosts.mu.Lock()
	defer s.hosts.mu.Unlock()
	if id, err = s.hostID(host); !errors.Is(err, ErrNotFound) {
		return id, err
	}
	if s.hosts.next > hostsMax {
		return 0, fmt.Errorf("host %s: more than %d hosts", host, hostsMax)
	}
	id = s.hosts.next
	b := s.db.NewBatch()
	// Unsynced: whatever batch uses the id comes later in the log.
	err = errors.Join(b.Set(hostKey(host), binary.BigEndian.AppendUint32(nil, id), nil),
		b.Set(hostNameKey(id), []byte(host), nil), setMetaNumber(b, metaHost, uint64(id)+1), s.apply(b, pebble.NoSync))
	if err == nil {
		s.hosts.next++
	}
	return id, err
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

// HostName is the host with that id, or ErrNotFound.
func (s *Store) HostName(id uint32) (string, error) {
	var name string
	err := get(s.db, hostNameKey(id), func(v []byte) error { name = string(v); return nil })
	return name, err
}
