package simnet

// MutateRedundantly makes a seeded commit with redundant operations, in the forms that real hosts
// emit: an update to what is there already, a delete of what is not there, or several operations on
// one path. Half of these commits create a record as well; the others may change nothing.
func (a *Account) MutateRedundantly() (Commit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.load()
	gen := recordGen{rng: a.rng, net: a.net, did: a.did}
	fresh, first := gen.next(a.advance())
	second := gen.note(a.advance())
	var writes []Write
	if a.rng.IntN(2) == 0 {
		path, record := gen.next(a.advance())
		writes = append(writes, Write{Path: path, Record: record})
	}
	form := a.rng.IntN(6)
	if len(s.leaves) == 0 {
		form %= 2
	}
	if form < 2 {
		return a.commit(append(writes, onAbsent(form, fresh, first)...))
	}
	return a.commit(append(writes,
		onHeld(form, s.leaves[a.rng.IntN(len(s.leaves))], first, second)...))
}

// onAbsent are writes to a path where nothing is, that leave nothing there.
func onAbsent(form int, path string, record []byte) []Write {
	if form == 0 {
		return []Write{{Path: path, Absent: true}}
	}
	return []Write{{Path: path, Record: record}, {Path: path}}
}

// onHeld are writes to the path of a record; the first two forms leave it as it was.
func onHeld(form int, l leaf, first, second []byte) []Write {
	put := func(record []byte) Write { return Write{Path: l.path, Record: record} }
	switch form {
	case 2:
		return []Write{put(l.data)}
	case 3:
		return []Write{put(first), put(l.data)}
	case 4:
		return []Write{put(nil), put(second)}
	}
	return []Write{put(first), put(second)}
}
