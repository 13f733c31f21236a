package store

// examinedMax bounds the rows that one page of Repos examines, so that a filter that matches little
// does not keep an iterator open for minutes.
const examinedMax = 100_000

// Repos lists the repository rows that match (nil: all), in key order after the DID cursor ("" from
// the start). next is the cursor of the next page, "" at the end; a short page may have one too.
func (s *Store) Repos(
	cursor string, limit int, match func(*Repo) bool,
) (rows []Repo, next string, err error) {
	lower := []byte{spaceRepo}
	if cursor != "" {
		lower = append(repoKey(nil, cursor), 0)
	}
	examined := 0
	err = scan(s.db, lower, spaceEnd(spaceRepo), func(key, value []byte) (bool, error) {
		if len(rows) == limit || examined == examinedMax {
			next = cursor
			return false, nil
		}
		did, err := parseRepoKey(key)
		if err != nil {
			return false, err
		}
		row := Repo{DID: did}
		if err := s.codec.decode(value, &row); err != nil {
			return false, err
		}
		row.loaded = row.rowState()
		examined, cursor = examined+1, did
		if match == nil || match(&row) {
			rows = append(rows, row)
		}
		return true, nil
	})
	return rows, next, err
}

// ReposByOrdinal lists the repositories that hold data in the order of their first import, after an
// ordinal. It stops at the lowest ordinal that an open import may still fill, so that a client that
// continues after the last one it saw misses no repository.
func (s *Store) ReposByOrdinal(after Ordinal, limit int) ([]Repo, error) {
	end := s.ords.lowestOpen()
	if after >= OrdinalMax || after+1 >= end {
		return nil, nil
	}
	var out []Repo
	err := s.at(func(rd reader) error {
		return scan(rd, ordinalKey(nil, spaceOwner, after+1), ordinalKey(nil, spaceOwner, end),
			func(_, value []byte) (bool, error) {
				if len(out) == limit {
					return false, nil
				}
				did, err := parseDID(value)
				if err != nil {
					return false, err
				}
				row, err := s.loadRepo(rd, did)
				out = append(out, row)
				return true, err
			})
	})
	return out, err
}
