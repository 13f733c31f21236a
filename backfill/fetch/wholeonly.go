package fetch

import (
	"sync"
	"time"
)

// wholeOnly is a negative cache of hosts and repositories of which parts are not worth asking for.
type wholeOnly struct {
	mu sync.Mutex
	// mu guards, at most wholeOnlyMax each:
	till map[uint32]time.Time // hosts that send no parts, or break off: until when
	cuts map[uint32]time.Time // when a host last broke off the transfer of parts, and has completed none since
	dids map[string]struct{}  // repositories to be fetched whole
}

// add records a host.
func (p *wholeOnly) add(host uint32, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(host, now)
}

func (p *wholeOnly) put(host uint32, now time.Time) {
	if p.till == nil || len(p.till) >= wholeOnlyMax {
		p.till = make(map[uint32]time.Time) // the hosts that it held are asked once more
	}
	p.till[host] = now.Add(wholeOnlyFor)
}

// has reports whether a host is not worth asking.
func (p *wholeOnly) has(host uint32, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	till, known := p.till[host]
	if known && !now.Before(till) {
		delete(p.till, host)
		return false
	}
	return known
}

// cut records that a host broke off the transfer of parts that began at a time. A host that breaks off two
// in a row, the second begun after the first broke off, is not asked for parts.
func (p *wholeOnly) cut(host uint32, began, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, known := p.cuts[host]; known && began.After(last) {
		p.put(host, now)
	}
	if p.cuts == nil || len(p.cuts) >= wholeOnlyMax {
		p.cuts = make(map[uint32]time.Time)
	}
	p.cuts[host] = now
}

// wholeNext records a repository whose host answers no more questions for now. The parts that arrived are
// lost: one request is more likely to succeed than many.
func (p *wholeOnly) wholeNext(did string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dids == nil || len(p.dids) >= wholeOnlyMax {
		p.dids = make(map[string]struct{})
	}
	p.dids[did] = struct{}{}
}

// asksWhole says whether a repository is one that wholeNext remembers.
func (p *wholeOnly) asksWhole(did string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.dids[did]
	return known
}

// takeWhole says whether a repository is one that wholeNext remembers, and forgets it.
func (p *wholeOnly) takeWhole(did string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, known := p.dids[did]
	delete(p.dids, did)
	return known
}

// gathered notes that a host sent a part to its end.
func (p *wholeOnly) gathered(host uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.cuts, host)
}
