package store

import "encoding/binary"

// copied returns a copy of the counts of all hosts.
func (q *hosts) copied() map[uint32]HostCounts {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := map[uint32]HostCounts{}
	for id, m := range q.of {
		if m.HostCounts != (HostCounts{}) {
			all[id] = m.HostCounts
		}
	}
	return all
}

// countHost counts a row for its host.
func (c *checker) countHost(r rowState) {
	n := c.byHost[r.pending.Host]
	n.Accounts++
	if r.queued() {
		n.Queued++
	}
	c.byHost[r.pending.Host] = n
}

// hosts compares the counts of hosts with the rows, and checks the rows of hosts.
func (c *checker) hosts() error {
	disk := map[uint32]HostCounts{}
	err := c.space(spaceHostCount, func(key, value []byte) error {
		id, err := parseHostIDKey(spaceHostCount, key)
		if err != nil {
			return err
		}
		n, err := parseHostCounts(value)
		if err != nil {
			c.report("counts of host %d: %v", id, err)
		}
		disk[id] = n
		return nil
	})
	if err != nil {
		return err
	}
	for _, all := range []map[uint32]HostCounts{c.byHost, disk, c.hostsSay} {
		for id := range all {
			if is := c.byHost[id]; disk[id] != is || c.hostsSay[id] != is {
				c.report("host %d: counts are %+v on disk and %+v in memory, the rows make %+v",
					id, disk[id], c.hostsSay[id], is)
				// each host is reported once
				c.byHost[id], disk[id], c.hostsSay[id] = HostCounts{}, HostCounts{}, HostCounts{}
			}
		}
	}
	if err := c.hostNames(); err != nil {
		return err
	}
	return c.space(spaceHostRow, func(key, value []byte) error {
		id, err := parseHostIDKey(spaceHostRow, key)
		if err != nil {
			return err
		}
		var row HostRow
		if err := c.s.codec.decode(value, &row); err != nil {
			c.report("row of host %d: %v", id, err)
			return nil
		}
		if ok, err := holds(c.r, hostNameKey(id)); err != nil || !ok {
			c.report("row of host %d: it has no name (%v)", id, err)
		}
		return nil
	})
}

// hostNames checks that each host that a row names has a name, and each name its id.
func (c *checker) hostNames() error {
	for id, n := range c.byHost {
		if id == 0 || n.Accounts == 0 {
			continue
		}
		ok, err := holds(c.r, hostNameKey(id))
		if err != nil {
			return err
		}
		if !ok {
			c.report("host %d: %d rows refer to it, and it has no name", id, n.Accounts)
		}
	}
	return c.space(spaceHostName, func(key, value []byte) error {
		id, err := parseHostIDKey(spaceHostName, key)
		if err == nil {
			c.expect(hostKey(string(value)), binary.BigEndian.AppendUint32(nil, id), "id of host %s", value)
		}
		return err
	})
}
