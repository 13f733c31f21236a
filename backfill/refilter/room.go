package refilter

import (
	"context"
	"time"

	"cistern/loop"
	"cistern/store"
)

// room bounds the repositories that wait for a fetch because of the filter: live commits of a
// repository are not applied while it waits.
type room struct {
	queued map[string]uint32 // repositories that the pass queued, and their hosts
	// by host: when a repository was last completed, or the first was queued
	moved  map[uint32]time.Time
	slow   map[uint32]bool // hosts that this round does not wait for
	looked time.Time       // when the queued repositories were last examined
}

func newRoom() room { return room{queued: map[string]uint32{}, moved: map[uint32]time.Time{}} }

// reset begins a round, which waits for slow hosts again.
func (m *room) reset() { m.slow = map[uint32]bool{} }

func (m *room) add(did string, host uint32, now time.Time) {
	if _, there := m.moved[host]; !there {
		m.moved[host] = now
	}
	m.queued[did] = host
}

// tally counts the repositories queued of a host, and of all hosts that are waited for.
func (m *room) tally(host uint32) (own, all int) {
	for _, h := range m.queued {
		if h == host {
			own++
		}
		if !m.slow[h] {
			all++
		}
	}
	return own, all
}

// dead reports whether a host has completed nothing for so long that its other repositories go to
// the retry queue.
func (m *room) dead(host uint32, now time.Time) bool {
	moved, there := m.moved[host]
	return there && now.Sub(moved) >= roomDead
}

// hasRoom reports whether one more repository of a host may be queued. A patient pass waits for
// room, but not for a host that has completed nothing for roomWait, a time that runs for all hosts
// at once.
func (p *pass) hasRoom(ctx context.Context, host uint32) bool {
	for {
		own, all := p.room.tally(host)
		if own >= roomHostMax || all >= roomAllMax {
			p.makeRoom()
			own, all = p.room.tally(host)
		}
		switch {
		case own < roomHostMax && all < roomAllMax:
			return true
		case !p.patient || p.room.slow[host]:
			return false
		}
		loop.Sleep(ctx, roomLook, nil)
		if !p.r.opts.Gate.Pass(ctx) || p.r.store.Filter().Version != p.filter.Version {
			return false
		}
	}
}

// makeRoom finds out, now and then, which repositories are done and which hosts complete nothing.
func (p *pass) makeRoom() {
	m := &p.room
	if time.Since(m.looked) < roomLook {
		return
	}
	m.looked = time.Now()
	now := p.r.opts.Now()
	for did, host := range m.queued {
		row, err := p.r.store.RepoOrNew(did)
		if err != nil || row.State == store.StatePending && row.Lacks {
			continue
		}
		delete(m.queued, did)
		if !row.Lacks {
			m.moved[host] = now
		}
	}
	waiting := make(map[uint32]bool, len(m.moved))
	for _, host := range m.queued {
		waiting[host] = true
	}
	for host, moved := range m.moved {
		switch {
		case !waiting[host]:
			delete(m.moved, host)
		case now.Sub(moved) >= roomWait:
			m.slow[host] = true // also a host that fails fast
		}
	}
}
