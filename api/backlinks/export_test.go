package backlinks

// SetBounds sets limits of the work of one request: linking records of a round, rounds of a window,
// bytes of bodies, bytes of counts.
func (b *Backlinks) SetBounds(records, rounds, bytes, memory int) {
	b.bounds = bounds{records, rounds, bytes, memory}
}
