package backfill

import (
	"context"
	"time"

	"cistern/store"
)

// room says who of those that lack something may be made pending. While a repository waits its live commits are not
// applied, so that only some wait at a time.
type room struct {
	slow   map[uint32]bool // hosts that made no room while we waited for it
	looked time.Time       // when the queued were looked at
}

// reset begins a round: every host is waited for again.
func (m *room) reset() { m.slow, m.looked = map[uint32]bool{}, time.Time{} }

// hasRoom says whether a repository of a host may be made pending. A patient pass waits for that, but for no host
// longer than roomWait.
func (p *refiltering) hasRoom(ctx context.Context, host uint32) bool {
	for until := p.r.opts.Now().Add(roomWait); ; {
		own, all := p.waiting(host)
		switch {
		case own < roomHostMax && all < roomAllMax:
			return true
		case !p.patient || p.room.slow[host]:
			return false
		case p.r.opts.Now().After(until):
			if own >= roomHostMax {
				p.room.slow[host] = true
				return false
			}
			for _, h := range p.queued {
				p.room.slow[h] = true // nobody makes room: others need not wait for them
			}
		}
		sleep(ctx, roomLook, nil)
		if !p.r.tasksGate.pass(ctx) || p.r.store.Filter().Version != p.filter.Version {
			return false
		}
	}
}

// waiting is how many are queued of a host, and of all that are not slow.
func (p *refiltering) waiting(host uint32) (own, all int) {
	own, all = p.tally(host)
	if own < roomHostMax && all < roomAllMax || time.Since(p.room.looked) < roomLook {
		return own, all
	}
	p.room.looked = time.Now()
	for did := range p.queued {
		row, err := p.r.store.RepoOrNew(did)
		if err == nil && (row.State != store.StatePending || !row.Lacks) {
			delete(p.queued, did)
		}
	}
	return p.tally(host)
}

func (p *refiltering) tally(host uint32) (own, all int) {
	for _, h := range p.queued {
		if h == host {
			own++
		}
		if !p.room.slow[h] {
			all++
		}
	}
	return own, all
}
