package store

import (
	"maps"
	"sync"
)

// cacheRows and cacheCounts bound one generation of the caches for accounts that write often: some
// 1.5 KiB a row and 100 bytes a count, in two generations up to 12 and 6 MiB. A miss may cost the
// decompression of a block for a single row.
const (
	cacheRows   = 4 << 10
	cacheCounts = 32 << 10
)

// cache keeps the entries that were put last: when a generation is full, the one before it is
// dropped.
type cache[K comparable, V any] struct {
	mu       sync.Mutex
	limit    int
	new, old map[K]V // mu guards
}

func (c *cache[K, V]) init(limit int) { c.limit, c.new = limit, map[K]V{} }

func (c *cache[K, V]) get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.new[k]
	if ok {
		return v, true
	}
	if v, ok = c.old[k]; ok {
		c.add(k, v)
	}
	return v, ok
}

func (c *cache[K, V]) put(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(k, v)
}

// add implements put; mu is held.
func (c *cache[K, V]) add(k K, v V) {
	if len(c.new) >= c.limit {
		c.new, c.old = make(map[K]V, c.limit), c.new
	}
	c.new[k] = v
}

func (c *cache[K, V]) remove(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.new, k)
	delete(c.old, k)
}

// copied returns a copy of all entries.
func (c *cache[K, V]) copied() map[K]V {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := maps.Clone(c.new)
	for k, v := range c.old {
		if _, newer := all[k]; !newer {
			all[k] = v
		}
	}
	return all
}

// caches holds what Repo and Apply read again and again. Both caches change when a batch is
// applied, under the locks of the repositories that it writes. Readers never fill them: a reader
// that a batch has overtaken would put back an older value.
type caches struct {
	rows   cache[string, Repo]
	counts cache[collectionOf, int64] // records of a collection, 0 for none
}

type collectionOf struct {
	ordinal    Ordinal
	collection string
}

// collectionCounted is a count that a batch has changed.
type collectionCounted struct {
	collectionOf
	n int64
}

func (c *caches) init() {
	c.rows.init(cacheRows)
	c.counts.init(cacheCounts)
}

// apply takes over what a batch has written.
func (c *caches) apply(b *Batch) {
	for i := range b.rows {
		c.rows.put(b.rows[i].DID, b.rows[i])
	}
	for _, d := range b.dropped {
		c.rows.remove(d.did)
	}
	for _, n := range b.counts {
		c.counts.put(n.collectionOf, n.n)
	}
}
