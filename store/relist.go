package store

// Relist adds one entry to the log that lists all current records of r again (live = false), for an
// account that is shown again. Not after Apply in one batch. A large repository's listing is
// written in batches of its own before; r changes, and the caller writes it by PutRepo.
func (b *Batch) Relist(r *Repo) error { panic("not written yet") }
