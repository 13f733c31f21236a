package identity

import (
	"container/list"
	"time"
)

// answer is the result of a lookup: an Identity, or a failure that is cached.
type answer struct {
	ident Identity
	err   error
	told  bool // by Remember: Cached returns it, Resolve does not (invariant 7)
}

// cache is a least-recently-used map with expiry. It does no locking.
type cache struct {
	size  int
	byDID map[string]*list.Element
	order list.List // front is the most recently used; values are *cacheEntry
}

type cacheEntry struct {
	did     string
	answer  answer
	expires time.Time
}

func newCache(size int) *cache {
	return &cache{size: size, byDID: make(map[string]*list.Element)}
}

func (c *cache) get(did string, now time.Time) (answer, bool) {
	el, ok := c.byDID[did]
	if !ok {
		return answer{}, false
	}
	entry := el.Value.(*cacheEntry)
	if !now.Before(entry.expires) {
		c.remove(did)
		return answer{}, false
	}
	c.order.MoveToFront(el)
	return entry.answer, true
}

func (c *cache) put(did string, a answer, expires time.Time) {
	c.remove(did)
	c.byDID[did] = c.order.PushFront(&cacheEntry{did: did, answer: a, expires: expires})
	if c.order.Len() > c.size {
		c.remove(c.order.Back().Value.(*cacheEntry).did)
	}
}

func (c *cache) remove(did string) {
	if el, ok := c.byDID[did]; ok {
		c.order.Remove(el)
		delete(c.byDID, did)
	}
}

func (c *cache) len() int { return c.order.Len() }
