package backfill

import (
	"context"
	"time"

	"cistern/store"
)

// room says who of those that lack something may be made pending. While a repository waits its live commits are not
// applied, so that only some wait at a time.
type room struct {
	queued map[string]uint32    // who was made pending, and their hosts
	moved  map[uint32]time.Time // of hosts: when the last of theirs was whole, or the first queued
	slow   map[uint32]bool      // hosts that are not waited for in this round
	looked time.Time            // when the queued were looked at
}

func newRoom() room { return room{queued: map[string]uint32{}, moved: map[uint32]time.Time{}} }

// reset begins a round: what hosts were is looked at again.
func (m *room) reset() { m.slow = map[uint32]bool{} }

func (m *room) add(did string, host uint32, now time.Time) {
	if _, there := m.moved[host]; !there {
		m.moved[host] = now
	}
	m.queued[did] = host
}

// tally is how many are queued of a host, and of all that are waited for.
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

// dead says whether so long nothing has come from a host that its others need not wait for those before them.
func (m *room) dead(host uint32, now time.Time) bool {
	moved, there := m.moved[host]
	return there && now.Sub(moved) >= roomDead
}

// hasRoom says whether a repository of a host may be made pending. A patient pass waits for that, but for no host
// from which nothing has come for roomWait: that time runs for all of them at once.
func (p *refiltering) hasRoom(ctx context.Context, host uint32) bool {
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
		sleep(ctx, roomLook, nil)
		if !p.r.tasksGate.pass(ctx) || p.r.store.Filter().Version != p.filter.Version {
			return false
		}
	}
}

// makeRoom looks who is done, now and then, and at which hosts nothing moves.
func (p *refiltering) makeRoom() {
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
			m.slow[host] = true // also one that fails fast, which makes room by that
		}
	}
}
