package backfill

import (
	"sync"
	"time"
)

// partless remembers where parts of repositories are not worth asking for.
type partless struct {
	mu sync.Mutex
	// mu guards, at most hostsMax each:
	till map[uint32]time.Time // hosts that send no parts, or too few at a time
	cuts map[uint32]time.Time // when a host last broke off the gathering of a part, and none was gathered since
	dids map[string]struct{}  // whose part was broken off
}

// add remembers a host.
func (p *partless) add(host uint32, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(host, now)
}

func (p *partless) put(host uint32, now time.Time) {
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

// cut notes that a host would not be asked any more while a part was gathered, since began. What has come is lost, so that
// the whole is next: one question is more likely to pass than many. A host that does it again to one begun later, with
// none gathered between, has no room for parts.
func (p *partless) cut(host uint32, did string, began, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, known := p.cuts[host]; known && began.After(last) {
		p.put(host, now)
	}
	if p.cuts == nil || len(p.cuts) >= hostsMax {
		p.cuts = make(map[uint32]time.Time)
	}
	p.cuts[host] = now
	if p.dids == nil || len(p.dids) >= hostsMax {
		p.dids = make(map[string]struct{})
	}
	p.dids[did] = struct{}{}
}

// wasCut says whether the last part of a repository was broken off, and forgets it.
func (p *partless) wasCut(did string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.dids[did]
	delete(p.dids, did)
	return known
}

// gathered notes that a host sent a part to its end.
func (p *partless) gathered(host uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.cuts, host)
}
