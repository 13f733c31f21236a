package fetch

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// wholeOnly is a negative cache of hosts and repositories of which parts are not worth asking for.
type wholeOnly struct {
	mu sync.Mutex
	// mu guards:
	until *simplelru.LRU[uint32, time.Time] // hosts that send no parts, or break off: until when
	cuts  *simplelru.LRU[uint32, time.Time] // when hosts broke off parts that have sent none since
	whole *simplelru.LRU[string, struct{}]  // repositories to be fetched whole
}

func newWholeOnly() (*wholeOnly, error) {
	until, err := simplelru.NewLRU[uint32, time.Time](wholeOnlyMax, nil)
	cuts, err2 := simplelru.NewLRU[uint32, time.Time](wholeOnlyMax, nil)
	whole, err3 := simplelru.NewLRU[string, struct{}](wholeOnlyMax, nil)
	return &wholeOnly{until: until, cuts: cuts, whole: whole}, errors.Join(err, err2, err3)
}

// add records a host that sends no parts.
func (p *wholeOnly) add(host uint32, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.until.Add(host, now.Add(wholeOnlyFor))
}

// has reports whether a host is not worth asking for parts.
func (p *wholeOnly) has(host uint32, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, _ := p.until.Get(host)
	return now.Before(until)
}

// cut records that a host broke off a transfer of parts, and when the transfer began. A host that
// breaks off two in a row, the second begun after the first broke off, is not asked for parts.
func (p *wholeOnly) cut(host uint32, began, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, known := p.cuts.Get(host); known && began.After(last) {
		p.until.Add(host, now.Add(wholeOnlyFor))
	}
	p.cuts.Add(host, now)
}

// gathered records that a host sent a part to its end.
func (p *wholeOnly) gathered(host uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cuts.Remove(host)
}

// wholeNext records a repository whose host accepts no more queries for now. The parts that arrived
// are lost: one request is more likely to succeed than many.
func (p *wholeOnly) wholeNext(did string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whole.Add(did, struct{}{})
}

// asksWhole reports whether a repository is one that wholeNext recorded.
func (p *wholeOnly) asksWhole(did string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.whole.Contains(did)
}

// takeWhole reports whether a repository is one that wholeNext recorded, and removes it.
func (p *wholeOnly) takeWhole(did string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.whole.Remove(did)
}
