package store

import (
	"maps"
	"sync"
)

// cacheRows and cacheCounts bound one generation of what is kept in memory for accounts that write
// often: some 1.5 KiB a row and 100 bytes a count, in two generations up to 12 and 6 MiB. A miss
// may cost the decompression of a block of which nothing else is of use.
const (
	cacheRows   = 4 << 10
	cacheCounts = 32 << 10
)

// cache keeps what was put last: when a generation is full, the one before it is forgotten.
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

// add is put with mu held.
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

// copied is all that is remembered.
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

// caches are what Repo and Apply need of disk and memory again and again. Both change when a batch
// is applied, under the locks of the repositories that it writes, and are never filled by readers:
// one that was overtaken by a batch would bring back what stood before it.
type caches struct {
	rows   cache[string, Repo]
	counts cache[collectionOf, int64] // records of a collection, 0 for none
}

type collectionOf struct {
	ordinal    Ordinal
	collection string
}

// collectionCounted is a count as a batch leaves it.
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
