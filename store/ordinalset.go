package store

// ordinalSet is a set of ordinals, a bit for each.
type ordinalSet map[Ordinal]*[64]uint64

func (s ordinalSet) add(o Ordinal) {
	page := s[o>>12]
	if page == nil {
		page = new([64]uint64)
		s[o>>12] = page
	}
	page[o>>6&63] |= 1 << (o & 63)
}

func (s ordinalSet) has(o Ordinal) bool {
	page := s[o>>12]
	return page != nil && page[o>>6&63]>>(o&63)&1 == 1
}
