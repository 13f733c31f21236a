package store

import "errors"

var (
	// ErrNotFound means that there is no row under the given key.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt means that bytes on our disk are not what was written. The process must stop, as
	// it would otherwise act on wrong data. `cistern check` lists the differences.
	ErrCorrupt = errors.New("store is corrupt")
	// ErrFormat means that the store has another format than this version reads.
	ErrFormat = errors.New("unknown store format")
	// ErrMode means that the store is ephemeral and must not be, or the other way round.
	ErrMode = errors.New("the mode of a store cannot change")
	// ErrHalfRestored means that the restoring of a backup into the directory has not ended.
	ErrHalfRestored = errors.New("half restored")
	// ErrCheckpoints means that no further checkpoint may be made before another is closed.
	ErrCheckpoints = errors.New("too many checkpoints are in use")
	// ErrLocked means that another process has the store open.
	ErrLocked = errors.New("store is in use")
	// ErrStale means that a repository changed (wiped, untracked, requeued) while it was being
	// fetched, so that the outcome of the fetch is dropped.
	ErrStale = errors.New("repository changed meanwhile")
	// ErrFutureCursor means that a cursor is above the head of the log plus one.
	ErrFutureCursor = errors.New("cursor is in the future")
	// ErrFilters means that the filter was changed faster than the pass over all repositories could
	// apply it: the next change has to wait until the pass has ended.
	ErrFilters = errors.New("wait until every repository has been brought to the filter in force " +
		"(GET /filter shows it as change)")
	// ErrStoresAll means that an ephemeral store cannot store what the filter does not want.
	ErrStoresAll = errors.New("a store that keeps events only cannot keep records that make no " +
		"event: store must be wanted")
	// ErrOutdatedCursor means that a cursor is below the tail of the log.
	ErrOutdatedCursor = errors.New("cursor is below the oldest event kept")
)
