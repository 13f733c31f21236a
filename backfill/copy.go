package backfill

import (
	"bytes"
	"context"

	"cistern/backfill/fetch"
	"cistern/backfill/refilter"
	"cistern/filter"
	"cistern/ingest/repo"
)

// target returns the repository of the task and its host. Requests to the host use the permit of
// the task.
func (t *task) target() fetch.Target {
	return fetch.Target{DID: t.it.did, Ident: t.ident, HostID: t.hostID, Host: t.permit}
}

// fetch downloads a verified copy of the records that the filter wants.
func (t *task) fetch(ctx context.Context) (*fetch.Copy, error) {
	req := &fetch.Request{
		Target:   t.target(),
		Fresh:    t.fresh,
		Filter:   t.filter.Filter,
		OnSignal: refilter.OnSignal(t.filter.Filter, &t.row),
		Failures: t.row.Retry.Count,
		Rev:      t.row.Rev,
		TornRev:  t.row.TornRev,
	}
	if t.row.Ordinal != 0 {
		req.Held = &fetch.Held{
			Records: t.row.Records,
			Filter:  func() (*filter.Filter, error) { return t.r.store.FilterAt(t.row.Filter) },
			Skip:    t.skipHeld,
		}
	}
	c, err := t.r.copier.Copy(ctx, req)
	if err != nil {
		return nil, err
	}
	t.commit, t.block, t.former, t.signal = c.Commit, c.Block, c.Former, c.Signal
	return c, nil
}

// query sends an XRPC query about the repository to its host.
func (t *task) query(ctx context.Context, method, query string, bodyMax int64) ([]byte, error) {
	to := t.target()
	return t.r.copier.Query(ctx, &to, method, query, bodyMax)
}

// skipHeld excludes records from a part that are stored with the same CID, because the diff does
// not read them. The stored records do not change while the fetch buffers live commits.
func (t *task) skipHeld(part *repo.Partial) error {
	rows, err := t.r.store.Rows(t.row.Ordinal)
	if err != nil {
		return ours(err)
	}
	more := rows.Next()
	part.Skip(func(key []byte, id repo.CID) bool {
		for more && bytes.Compare(rows.Row().Path, key) < 0 {
			more = rows.Next()
		}
		return more && bytes.Equal(rows.Row().Path, key) && rows.Row().CID == id
	})
	return ours(rows.Close())
}
