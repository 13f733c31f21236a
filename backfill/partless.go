package backfill

import (
	"sync"
	"time"
)

// partless remembers hosts that said lately that they send no parts of repositories.
type partless struct {
	mu   sync.Mutex
	till map[uint32]time.Time // mu guards; at most hostsMax
}

// add remembers a host.
func (p *partless) add(host uint32, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.till == nil || len(p.till) >= hostsMax {
		p.till = make(map[uint32]time.Time) // those that were in it are asked once more
	}
	p.till[host] = now.Add(partlessFor)
}

// has says whether it is not worth asking a host.
func (p *partless) has(host uint32, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	till, known := p.till[host]
	if known && !now.Before(till) {
		delete(p.till, host)
		return false
	}
	return known
}
