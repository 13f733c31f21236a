package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// SetHost changes the settings of a host: its ban and its limits. The change is durable on return.
// A host without an id gets one.
func (s *Store) SetHost(name string, change func(row *HostRow)) (id uint32, err error) {
	s.enterWrites()
	defer s.leaveWrites()
	if id, err = s.changeHost(name, change); err != nil {
		return 0, err
	}
	// The row is in the log's queue. The sync is waited for without the mutex of the hosts, so that
	// lookups and counts of hosts do not wait for the disk.
	if err := s.guard(func() error { return s.db.LogData(nil, pebble.Sync) }); err != nil {
		s.fail(err)
		return 0, s.failure
	}
	return id, nil
}

func (s *Store) changeHost(name string, change func(row *HostRow)) (id uint32, err error) {
	q := &s.hosts
	q.mu.Lock()
	defer q.mu.Unlock()
	if id, err = s.giveHostID(name); err != nil {
		return 0, err
	}
	m := q.memo(id)
	row := m.row
	change(&row)
	err = s.putHosts(map[uint32]HostRow{id: row})
	q.freed(m)
	return id, err
}

// NoteHosts changes what was learnt about some hosts. The change is durable with the next durable
// write: a crash loses statistics only. A host that has no id any more is skipped.
func (s *Store) NoteHosts(ids []uint32, change func(id uint32, row *HostRow)) error {
	s.enterWrites() // before the mutex, which reads of hosts take
	defer s.leaveWrites()
	q := &s.hosts
	q.mu.Lock()
	defer q.mu.Unlock()
	rows := make(map[uint32]HostRow, len(ids))
	for _, id := range ids {
		if id == 0 || !q.known(id) {
			continue
		}
		q.touch(id, s.now())
		row := q.memo(id).row
		change(id, &row)
		row.Error = strings.ToValidUTF8(row.Error[:min(len(row.Error), ErrorBytesMax)], "")
		rows[id] = row
	}
	if len(rows) == 0 {
		return s.usable()
	}
	return s.putHosts(rows)
}

// putHosts writes rows. The mutex of the hosts is held, and the door of writes passed.
func (s *Store) putHosts(rows map[uint32]HostRow) error {
	if err := s.usable(); err != nil {
		return err
	}
	b := s.db.NewBatch()
	for id, row := range rows {
		value, err := s.codec.encode(&row)
		if err = errors.Join(err, b.Set(hostIDKey(spaceHostRow, id), value, nil)); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	if err := s.applyInside(b, pebble.NoSync); err != nil {
		return err
	}
	for id, row := range rows {
		s.hosts.memo(id).row = row
	}
	return nil
}

// hostChange is the change that a batch makes to the counts of a host.
type hostChange struct {
	HostCounts
	enqueued bool
	priority uint8 // lowest priority number of the rows it enqueues
}

// moveHost counts the change of a row for its host. A change of neither host nor queue costs
// nothing.
func (b *Batch) moveHost(old, now rowState) {
	if old.exists == now.exists && old.queued() == now.queued() && old.pending == now.pending {
		return
	}
	b.s.hosts.mu.Lock()
	for _, r := range []rowState{old, now} {
		if r.exists {
			b.pin(r.pending.Host)
		}
	}
	b.s.hosts.mu.Unlock()
	count := func(r rowState, n int64) {
		if r.exists {
			c := b.hosts[r.pending.Host]
			c.Accounts += n
			if r.queued() {
				c.Queued += n
			}
			b.hosts[r.pending.Host] = c
		}
	}
	count(old, -1)
	count(now, 1)
	if now.queued() && (!old.queued() || old.pending != now.pending) {
		c := b.hosts[now.pending.Host]
		if !c.enqueued || now.pending.Priority < c.priority {
			c.enqueued, c.priority = true, now.pending.Priority
		}
		b.hosts[now.pending.Host] = c
	}
}

// countHosts adds the new counts of hosts to the batch. The sequencer's mutex is held, so that the
// order of values is the order of batches.
func (s *Store) countHosts(b *Batch) error {
	if len(b.hosts) == 0 {
		return nil
	}
	q := &s.hosts
	q.mu.Lock()
	defer q.mu.Unlock()
	for id, c := range b.hosts {
		if c.HostCounts == (HostCounts{}) {
			continue
		}
		m := q.memo(id)
		m.Accounts += c.Accounts
		m.Queued += c.Queued
		if m.Queued < 0 || m.Accounts < m.Queued {
			return fmt.Errorf("host %d would have %d accounts and %d queued: %w",
				id, m.Accounts, m.Queued, ErrCorrupt)
		}
		if err := setHostCounts(b.b, id, m.HostCounts); err != nil {
			return err
		}
	}
	return nil
}

// enqueuedHosts records the hosts into whose queues an applied batch put rows.
func (s *Store) enqueuedHosts(b *Batch) {
	if len(b.hosts) == 0 {
		return
	}
	s.hosts.mu.Lock()
	defer s.hosts.mu.Unlock()
	for id, c := range b.hosts {
		if !c.enqueued {
			continue
		}
		if p, ok := s.hosts.fresh[id]; !ok || c.priority < p {
			s.hosts.fresh[id] = c.priority
		}
	}
}

// TakeEnqueued returns the hosts whose queues got rows since the last call, each with the lowest
// priority number of them.
func (s *Store) TakeEnqueued() map[uint32]uint8 {
	s.hosts.mu.Lock()
	defer s.hosts.mu.Unlock()
	fresh := s.hosts.fresh
	if len(fresh) == 0 {
		return nil // not the map itself, which is written to
	}
	s.hosts.fresh = map[uint32]uint8{}
	return fresh
}

// QueuedHosts returns the hosts with a row in their queue; 0 stands for the unknown hosts.
func (s *Store) QueuedHosts() []uint32 {
	s.hosts.mu.Lock()
	defer s.hosts.mu.Unlock()
	var ids []uint32
	for id, m := range s.hosts.of {
		if m.Queued > 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

func setHostCounts(b *pebble.Batch, id uint32, c HostCounts) error {
	if c == (HostCounts{}) {
		return b.Delete(hostIDKey(spaceHostCount, id), nil)
	}
	return b.Set(hostIDKey(spaceHostCount, id), appendHostCounts(nil, c), nil)
}

func appendHostCounts(dst []byte, c HostCounts) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(c.Accounts)), uint64(c.Queued))
}

func parseHostCounts(v []byte) (HostCounts, error) {
	accounts, n := binary.Uvarint(v)
	queued, m := binary.Uvarint(v[max(n, 0):])
	if n <= 0 || m <= 0 || n+m != len(v) || accounts > 1<<62 || queued > accounts {
		return HostCounts{}, fmt.Errorf("counts of a host %x: %w", v, ErrCorrupt)
	}
	return HostCounts{Accounts: int64(accounts), Queued: int64(queued)}, nil
}

// loadHostCounts reads the counts.
func (s *Store) loadHostCounts() error {
	q := &s.hosts
	lower, upper := []byte{spaceHostCount}, spaceEnd(spaceHostCount)
	return scan(s.db, lower, upper, func(key, value []byte) (bool, error) {
		id, err := parseHostIDKey(spaceHostCount, key)
		if err != nil {
			return false, err
		}
		q.memo(id).HostCounts, err = parseHostCounts(value)
		return true, err
	})
}
