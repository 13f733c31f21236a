package repo

import "sync"

// ChunkBytes is the size of the pieces in which a CAR's body is kept in memory. A block never
// straddles two: with records of 300 bytes, 150 of 262,144 are wasted at each end.
const ChunkBytes = 256 << 10

// ChunkPool keeps chunks of closed CARs for later ones. It is safe for concurrent use;
// a nil pool allocates and forgets.
type ChunkPool struct {
	max int

	// mu guards:
	mu   sync.Mutex
	free [][]byte
}

// NewChunkPool makes a pool that keeps at most bytesMax bytes of unused chunks.
func NewChunkPool(bytesMax int64) *ChunkPool {
	return &ChunkPool{max: int(bytesMax / ChunkBytes)}
}

// chunkBytesMin is the size of the first chunk where there is no pool, so that a small CAR, such as
// the firehose carries, takes little; each further one is four times as large, up to ChunkBytes.
const chunkBytesMin = ChunkBytes >> (2 * chunkGrowths)

const chunkGrowths = 2

// get returns the nth chunk for a CAR.
func (p *ChunkPool) get(nth int) []byte {
	if p == nil {
		return make([]byte, chunkSize(p, nth))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	if last < 0 {
		return make([]byte, ChunkBytes)
	}
	c := p.free[last]
	p.free[last] = nil
	p.free = p.free[:last]
	return c
}

// chunkSize is the size of what get returns.
func chunkSize(p *ChunkPool, nth int) int {
	if p != nil || nth >= chunkGrowths {
		return ChunkBytes
	}
	return chunkBytesMin << (2 * nth)
}

// put takes a chunk back; one of another size is left to the garbage collector.
func (p *ChunkPool) put(c []byte) {
	if p == nil || len(c) != ChunkBytes {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) < p.max {
		p.free = append(p.free, c)
	}
}
