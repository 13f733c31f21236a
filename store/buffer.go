package store

// Buffer keeps a live commit that arrived while r is being fetched (Fetching), as the message it came in.
// Over the limits of a repository or of the store (limits.go) nothing is kept: everything buffered
// of r is dropped, r.SeenRev raised to rev, and kept is false. The caller holds r's lock and writes r.
func (b *Batch) Buffer(r *Repo, rev string, message []byte) (kept bool) { panic("not written yet") }

// Unbuffer removes one buffered commit: it has been drained.
func (b *Batch) Unbuffer(r *Repo, rev string) { panic("not written yet") }

// DropBuffer removes everything buffered of r, and raises r.SeenRev to the highest rev of it.
func (b *Batch) DropBuffer(r *Repo) { panic("not written yet") }

// Buffered is the number of commits buffered for did, without a look at the disk.
func (s *Store) Buffered(did string) int { panic("not written yet") }

// BufferedCommits calls fn for the commits buffered for did in the order of their revs. message is
// valid during the call.
func (s *Store) BufferedCommits(did string, fn func(rev string, message []byte) error) error {
	panic("not written yet")
}

// Draining are the DIDs of the repositories in StateDraining.
func (s *Store) Draining() ([]string, error) { panic("not written yet") }

// BeginFetch says that a copy of did is about to be asked for: from now on its live commits are
// buffered. The caller holds did's lock. It is kept in memory only: after a crash no fetch is in flight.
func (s *Store) BeginFetch(did string) { panic("not written yet") }

// EndFetch takes BeginFetch back, under the same lock.
func (s *Store) EndFetch(did string) { panic("not written yet") }

// Fetching says whether a copy of did is being fetched. The answer holds as long as did's lock is held.
func (s *Store) Fetching(did string) bool { panic("not written yet") }
