package backfill

import (
	"cmp"
	"context"
	"time"

	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/store"
)

// identityMarks are compared to detect that the identity in a row was written after the task
// requested the document.
type identityMarks struct {
	event, resolved int64 // Repo.IdentityTime and Repo.Resolved
}

func marksOf(row *store.Repo) identityMarks { return identityMarks{row.IdentityTime, row.Resolved} }

// document is the DID document of an account as a task read it, with the host that it names. It
// decides which parts of the identity in a row are older than the document.
type document struct {
	directory Directory
	did       string
	now       func() time.Time

	ident   identity.Identity
	hostID  uint32        // the host that the document names, 0 before the document is read
	fresh   bool          // ident was read by this task, not from a cache
	askedAt time.Time     // when ident was requested, zero if unknown
	marks   identityMarks // of the row, before ident was requested
}

// cached reads the document from the cache of the directory. It serves a row that was moved to the
// queue of its host, with its identity.
func (d *document) cached(ctx context.Context, row *store.Repo) error {
	if d.marks = marksOf(row); row.Resolved != 0 {
		d.askedAt = time.Unix(row.Resolved, 0)
	}
	return d.lookup(ctx)
}

// refresh reads the document again, bypassing the cache of the directory.
func (d *document) refresh(ctx context.Context, row *store.Repo) error {
	d.directory.Purge(d.did)
	d.fresh, d.askedAt, d.marks = true, d.now(), marksOf(row)
	return d.lookup(ctx)
}

func (d *document) lookup(ctx context.Context) error {
	ident, err := d.directory.Resolve(ctx, d.did)
	if err != nil {
		return &hosts.ResolveError{Err: err}
	}
	if ident.DID != d.did || ident.PDS == "" {
		return &hosts.ResolveError{Err: identity.ErrInvalid}
	}
	d.ident = ident
	return nil
}

// recall takes over the document of an item that was resolved before it waited.
func (d *document) recall(it *item) {
	d.ident, d.askedAt, d.marks = *it.ident, it.askedAt, it.marks
}

// remember returns the item with the document, if it was read, for the task that continues.
func (d *document) remember(it item) item {
	if d.ident.DID != "" {
		ident := d.ident
		it.ident, it.askedAt, it.marks = &ident, d.now(), d.marks
	}
	return it
}

// hostOr returns the host that the document names. It returns the host of the row if no document
// was read, or if an identity event has changed the host since.
func (d *document) hostOr(row *store.Repo) uint32 {
	if marksOf(row) != d.marks && row.PDS != d.ident.PDS {
		return row.Pending.Host
	}
	return cmp.Or(d.hostID, row.Pending.Host)
}

// learn writes the identity that the document states to the row of a repository without stored
// records. For a repository with records, the batch that completes the copy writes it, with an
// event.
func (d *document) learn(b *store.Batch, row *store.Repo) {
	if row.Ordinal == 0 {
		d.putIdentity(b, row, false)
	}
}

// putIdentity writes the identity that the document states to the row. If the row had another
// identity, it also writes an identity event, even for a repository without a complete copy:
// readers may have received the former identity. An identity from an event that arrived after the
// document was requested is newer, and is kept.
func (d *document) putIdentity(b *store.Batch, row *store.Repo, held bool) {
	overtaken := marksOf(row) != d.marks
	if d.ident.DID == "" || overtaken && row.Key != "" {
		return
	}
	known := held || row.Key != ""
	moved := row.Handle != d.ident.Handle || row.PDS != d.ident.PDS || row.Key != d.ident.Key
	row.PDS, row.Handle, row.Key = d.ident.PDS, d.ident.Handle, d.ident.Key
	row.Resolved = unixSeconds(d.askedAt)
	if overtaken {
		row.Resolved = 0
	}
	if known && moved {
		b.Identity(row)
	}
}

// unixSeconds returns at in Unix seconds, 0 for the zero time.
func unixSeconds(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.Unix()
}
