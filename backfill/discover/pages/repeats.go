package pages

import (
	"hash/maphash"
	"slices"
)

// repeats detects a listing that names the same accounts again, whatever its cursors are. It keeps
// a sample of one page and replaces the sample at pages 1, 2, 4, 8 and so on, so that it detects a
// cycle within a few rounds. A correct listing names an account once, or twice if the account moved
// while the listing was read.
type repeats struct {
	seed    maphash.Seed
	cursor  string // cursor of the last page
	verdict bool   // result for the last page
	pages   int
	sampled int      // the page that was sampled
	sample  []uint64 // hashes of accounts of that page, the lowest sampleMax of them, in order
	seen    uint32   // bits: which hashes of the sample were named again since
	met     int      // number of bits in seen
}

// page takes the accounts of a page, and reports whether the listing repeats itself. A page that is
// requested again by the same cursor counts once.
func (p *repeats) page(cursor string, names []string) bool {
	if p.pages > 0 && cursor == p.cursor || len(names) == 0 {
		return p.verdict
	}
	if p.pages == 0 {
		p.seed = maphash.MakeSeed()
	}
	hashes := make([]uint64, len(names))
	for i, name := range names {
		hashes[i] = maphash.String(p.seed, name)
		at, found := slices.BinarySearch(p.sample, hashes[i])
		if found && (p.seen&(1<<at) == 0 || len(p.sample) == 1) {
			p.seen |= 1 << at
			p.met++
		}
	}
	p.cursor, p.verdict = cursor, len(p.sample) > 0 && p.met >= max(2, len(p.sample)/2+1)
	if p.pages++; !p.verdict && p.pages >= 2*p.sampled {
		slices.Sort(hashes)
		p.sample = append(p.sample[:0], hashes[:min(len(hashes), sampleMax)]...)
		p.sampled, p.seen, p.met = p.pages, 0, 0
	}
	return p.verdict
}
