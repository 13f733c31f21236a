package durable

// choose returns the member that is to have an account without outstanding events: the one that a
// hash of both prefers (rendezvous hashing), so that an account stays with its member, and only the
// accounts of a member that leaves, or that a new one is to have, move. A member that is stalled,
// or holds its share of a window of most events, is passed over.
func choose(members []*member, did string, most int) *member {
	if len(members) == 1 {
		return members[0]
	}
	able := 0
	for _, m := range members {
		if !m.stalled {
			able++
		}
	}
	all := able == 0 // then there is nothing to choose by
	if all {
		able = len(members)
	}
	share := (most + able - 1) / able
	// Of the members that are able one holds less than its share, unless the window is over-full.
	var best, fallback *member
	var score, fallbackScore uint64
	hash := hashOf(did)
	for _, m := range members {
		if !all && m.stalled {
			continue
		}
		s := mix(hash ^ mix(uint64(m.number)))
		if fallback == nil || s > fallbackScore {
			fallback, fallbackScore = m, s
		}
		if m.held < share && (best == nil || s > score) {
			best, score = m, s
		}
	}
	if best == nil {
		return fallback
	}
	return best
}

// hashOf is FNV-1a.
func hashOf(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix spreads the bits of x, as SplitMix64 does.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
