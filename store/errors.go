package store

import "errors"

var (
	// ErrNotFound says that no row stands under the key asked for.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt says that our own bytes are not what we wrote. The process must stop:
	// going on would build on a lie. `cistern check` names the differences.
	ErrCorrupt = errors.New("store is corrupt")
	// ErrFormat says that the directory was written in another format than this version reads.
	ErrFormat = errors.New("unknown store format")
	// ErrLocked means that another process has the store open.
	ErrLocked = errors.New("store is in use")
	// ErrStale says that a repository changed hands (wiped, untracked, requeued) while a
	// fetch of it was under way, so that the outcome of the fetch no longer counts.
	ErrStale = errors.New("repository changed meanwhile")
	// ErrFutureCursor says that a cursor is above the head of the log plus one.
	ErrFutureCursor = errors.New("cursor is in the future")
	// ErrFilters says that the filter was changed too often for the pass that brings repositories
	// to it to follow: another change has to wait until the pass has ended.
	ErrFilters = errors.New("wait until every repository has been brought to the filter in force (GET /filter shows it as change)")
	// ErrOutdatedCursor says that a cursor is below the tail of the log.
	ErrOutdatedCursor = errors.New("cursor is below the oldest event kept")
)
