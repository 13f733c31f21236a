package refilter

import (
	"context"
	"time"

	"cistern/loop"
	"cistern/store"
)

// backlog is the bounded set of repositories that wait for a fetch because of the filter: live
// commits of a repository are not applied while it waits.
type backlog struct {
	queued map[string]uint32 // repositories that the pass queued, and their hosts
	// by host: when a repository was last completed, or the first was queued
	moved  map[uint32]time.Time
	slow   map[uint32]bool // hosts that this round does not wait for
	looked time.Time       // when the queued repositories were last examined
}

func newBacklog() backlog {
	return backlog{queued: map[string]uint32{}, moved: map[uint32]time.Time{}}
}

// reset begins a round, which waits for slow hosts again.
func (m *backlog) reset() { m.slow = map[uint32]bool{} }

func (m *backlog) add(did string, host uint32, now time.Time) {
	if _, there := m.moved[host]; !there {
		m.moved[host] = now
	}
	m.queued[did] = host
}

// tally counts the queued repositories of a host, and those of all hosts that the round waits for.
func (m *backlog) tally(host uint32) (own, all int) {
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

// dead reports whether a host has completed nothing for backlogDead: its other repositories then go
// to the retry queue.
func (m *backlog) dead(host uint32, now time.Time) bool {
	moved, there := m.moved[host]
	return there && now.Sub(moved) >= backlogDead
}

// mayQueue reports whether one more repository of a host may be queued. A patient pass waits for
// that, but not for a host that has completed nothing for backlogWait. This time runs for all hosts
// at once.
func (p *pass) mayQueue(ctx context.Context, host uint32) bool {
	for {
		own, all := p.backlog.tally(host)
		if own >= backlogHostMax || all >= backlogMax {
			p.refreshBacklog()
			own, all = p.backlog.tally(host)
		}
		switch {
		case own < backlogHostMax && all < backlogMax:
			return true
		case !p.patient || p.backlog.slow[host]:
			return false
		}
		loop.Sleep(ctx, backlogCheck, nil)
		if !p.r.opts.Gate.Pass(ctx) || p.r.store.Filter().Version != p.filter.Version {
			return false
		}
	}
}

// refreshBacklog removes the repositories that are done, and finds hosts that complete nothing, at
// most once in backlogCheck.
func (p *pass) refreshBacklog() {
	m := &p.backlog
	if time.Since(m.looked) < backlogCheck {
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
		case now.Sub(moved) >= backlogWait:
			m.slow[host] = true // also a host that fails fast
		}
	}
}
