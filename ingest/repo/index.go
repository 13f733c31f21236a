package repo

import "hash/maphash"

// index finds the position of a block's entry by its digest: open addressing with linear probing
// in one array of integers. A slot holds 29 bits of hash and 35 bits of position plus one, 0 being
// a free slot; the hash suffices to grow the table without looking at the body. Positions are
// confirmed by the digest that stands in the body. The hash is keyed with a seed of this CAR,
// because a digest's first bytes can be chosen by trying blocks.
type index struct {
	seed  maphash.Seed
	slots []uint64
	shift uint // indexHashBits minus the logarithm of len(slots)
	count int
}

const (
	indexHashBits = 29
	indexPosBits  = 64 - indexHashBits
	indexPosMask  = 1<<indexPosBits - 1
	indexLogMin   = 8 // 2 KiB
	indexAskedMin = 128 << 10 / 8
)

func newIndex() index {
	return index{
		seed:  maphash.MakeSeed(),
		slots: make([]uint64, 1<<indexLogMin),
		shift: indexHashBits - indexLogMin,
	}
}

func (x *index) hash(c *CID) uint64 {
	return maphash.Bytes(x.seed, c[:]) >> (64 - indexHashBits)
}

// noPos is the position of what is not there.
const noPos = 1<<indexPosBits - 1

// first returns the position of the first entry whose hash is h, noPos if there is none, and the
// slot to go on from with next.
func (x *index) first(h uint64) (pos, slot uint64) { return x.next(h, x.home(h)) }

func (x *index) next(h, slot uint64) (pos, after uint64) {
	mask := uint64(len(x.slots) - 1)
	for {
		s := x.slots[slot&mask]
		if s == 0 {
			return noPos, 0
		}
		slot++
		if s>>indexPosBits == h {
			return s&indexPosMask - 1, slot
		}
	}
}

// home is where searching for h begins, within slots.
func (x *index) home(h uint64) uint64 { return h >> x.shift }

// full says that the next add grows the table.
func (x *index) full() bool { return x.count >= len(x.slots)/4*3 }

func (x *index) add(h, pos uint64) {
	if x.full() {
		x.grow()
	}
	x.place(h<<indexPosBits | (pos + 1))
	x.count++
}

func (x *index) place(s uint64) {
	mask := uint64(len(x.slots) - 1)
	at := x.home(s >> indexPosBits)
	for x.slots[at&mask] != 0 {
		at++
	}
	x.slots[at&mask] = s
}

func (x *index) grow() {
	old := x.slots
	x.slots = make([]uint64, 2*len(old))
	x.shift--
	for _, s := range old {
		if s != 0 {
			x.place(s)
		}
	}
}
