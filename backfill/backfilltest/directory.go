package backfilltest

import (
	"context"
	"time"

	"cistern/ingest/identity"
	"cistern/ingest/repo"
)

// Directory is a directory in memory.
type Directory map[string]identity.Identity

// Resolve returns the identity of a DID in memory.
func (d Directory) Resolve(_ context.Context, did string) (identity.Identity, error) {
	if ident, ok := d[did]; ok {
		return ident, nil
	}
	return identity.Identity{}, identity.ErrNotFound
}

// Purge does nothing.
func (d Directory) Purge(string) {}

// KeysAt returns no keys.
func (d Directory) KeysAt(context.Context, string, time.Time) ([]*repo.Key, error) {
	return nil, nil
}
