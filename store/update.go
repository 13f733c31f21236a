package store

import "fmt"

// Update changes rows of repositories, and whatever belongs to the change, in one batch. It is the
// only place that locks rows, reads them, and commits their changes. The DIDs are in ascending
// order. change gets the rows in that order; a row that the store does not have is a new one
// (Repo.Known). change writes those that it alters by PutRepo. Until change returns, no other
// filter comes into force and the rows are locked, so change must neither block nor take locks.
//
// If change returns an error, nothing is written. Otherwise reads see the changes when Update
// returns, and wait returns when they are durable. The locks are released before that: the order
// of the write-ahead log has a durable change imply those before it.
func (s *Store) Update(
	dids []string, change func(b *Batch, rows []Repo) error,
) (wait func() error, err error) {
	defer s.HoldFilter()()
	return s.update(dids, change)
}

// UpdateRepo is Update for one row.
func (s *Store) UpdateRepo(
	did string, change func(b *Batch, row *Repo) error,
) (wait func() error, err error) {
	return s.Update([]string{did}, func(b *Batch, rows []Repo) error { return change(b, &rows[0]) })
}

// update is Update without a hold on the filter.
func (s *Store) update(
	dids []string, change func(b *Batch, rows []Repo) error,
) (wait func() error, err error) {
	for i, did := range dids {
		if i > 0 && did <= dids[i-1] {
			return nil, fmt.Errorf("update %s after %s: the DIDs must be in ascending order", did, dids[i-1])
		}
	}
	for _, did := range dids {
		defer s.Lock(did)()
	}
	rows := make([]Repo, len(dids))
	for i, did := range dids {
		if rows[i], err = s.RepoOrNew(did); err != nil {
			return nil, err
		}
	}
	b := s.NewBatch()
	if err := change(b, rows); err != nil {
		b.Discard()
		return nil, err
	}
	if b.Empty() {
		b.Discard()
		return func() error { return nil }, nil
	}
	return b.Commit()
}
