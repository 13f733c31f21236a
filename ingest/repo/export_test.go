package repo

// Indexed returns how many blocks the index of a slice has.
func Indexed(s *Slice) int { return int(s.index.count) }
