package store

import "context"

// Kept is an event as an archive keeps it, with what decides whether readers may see it later.
type Kept struct {
	Event

	// KindRecord:
	Ordinal Ordinal // of the copy of the repository that the event is of
	// Commit means that the event is of a commit and not of a listing: if it deletes a record, it is
	// shown after the repository was dropped.
	Commit bool
}

// ReadKept calls fn for the events from id cursor on and before to, in order, until about maxEvents
// ids are passed, and returns the id to continue from: those that readers may see, and those of
// accounts that are hidden and may be shown again. Left out are those of repositories that were
// wiped, and of dropped ones all but deletes. The page may end behind to, in the middle of an
// entry, and before an event whose visibility is decided by a batch which is not durable yet,
// perhaps without passing any. Errors are those of ReadLog.
func (s *Store) ReadKept(ctx context.Context, cursor, to uint64, maxEvents int,
	fn func(*Kept) error) (next uint64, err error) {
	head := min(s.Head(), to-1)
	return s.readFrom(cursor, head, func(v view, cursor, head uint64) (uint64, error) {
		var k Kept
		r := logReader{s: s, view: v, head: head, next: cursor, left: maxEvents, hidden: true}
		r.fn = func(ev *Event) error {
			k.Event, k.Ordinal, k.Commit = *ev, r.ordinal, r.commit
			return fn(&k)
		}
		err := r.run(ctx)
		return r.next, err
	})
}

// Shown is how much of the events of a copy of a repository readers may see.
type Shown uint8

const (
	// ShownNone: none. The account is hidden, or the copy was wiped.
	ShownNone Shown = iota
	// ShownDeletes: deletes only. The repository was dropped.
	ShownDeletes
	// ShownAll: all.
	ShownAll
	// ShownLater: not decided. The state that hides events is not durable yet: a reader must not
	// pass them before Changed is closed.
	ShownLater
)

// ShownFunc returns how much readers may see of the events of a copy of a repository, by the fields
// of Kept.
type ShownFunc func(did string, o Ordinal, commit bool) (Shown, error)

// Showing calls fn with a function that tells what is shown at one point in time. It is for the
// goroutine that runs fn, and valid during the call, which must be short.
func (s *Store) Showing(fn func(ShownFunc) error) error {
	return s.at(func(v reader) error {
		r := logReader{s: s, view: v}
		return fn(func(did string, o Ordinal, commit bool) (Shown, error) {
			e := entryV1{Kind: entryImport, Ordinal: o}
			if commit {
				e.Kind = entryCommit
			}
			r.ev.DID = did
			g, err := r.gate(&e)
			switch {
			case err != nil:
				return ShownNone, err
			case g == gateOpen:
				return ShownAll, nil
			case s.unsettled.holds(did):
				return ShownLater, nil
			case g == gateDeletions:
				return ShownDeletes, nil
			}
			return ShownNone, nil
		})
	})
}
