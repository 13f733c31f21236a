package backfill

import (
	"sync"
	"time"
)

// partless remembers where parts of repositories are not worth asking for.
type partless struct {
	mu sync.Mutex
	// mu guards, at most hostsMax each:
	till map[uint32]time.Time // hosts that send no parts, or break them off
	cuts map[uint32]time.Time // when a host last broke off the gathering of a part, and none was gathered since
	dids map[string]struct{}  // repositories to be fetched whole
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

// cut notes that the gathering of a part, begun at a time, was broken off by its host. One that does it again to one begun
// later, with none gathered between, has no strength for parts.
func (p *partless) cut(host uint32, began, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, known := p.cuts[host]; known && began.After(last) {
		p.put(host, now)
	}
	if p.cuts == nil || len(p.cuts) >= hostsMax {
		p.cuts = make(map[uint32]time.Time)
	}
	p.cuts[host] = now
}

// wholeNext remembers a repository whose host would not be asked any more. What has come of it is lost: one question is more
// likely to pass than many.
func (p *partless) wholeNext(did string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dids == nil || len(p.dids) >= hostsMax {
		p.dids = make(map[string]struct{})
	}
	p.dids[did] = struct{}{}
}

// asksWhole says whether a repository is one that wholeNext remembers.
func (p *partless) asksWhole(did string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.dids[did]
	return known
}

// takeWhole says whether a repository is one that wholeNext remembers, and forgets it.
func (p *partless) takeWhole(did string) bool {
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
