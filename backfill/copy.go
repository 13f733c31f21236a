package backfill

import (
	"bytes"
	"context"

	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/backfill/refilter"
	"cistern/filter"
	"cistern/ingest/repo"
)

// target returns the repository of the task and its host. Requests to the host use the permit of
// the task.
func (t *task) target() fetch.Target {
	return fetch.Target{DID: t.it.did, Ident: t.doc.ident, HostID: t.doc.hostID, Host: t.permit}
}

// fetch downloads a verified copy of the records that the filter wants.
func (t *task) fetch(ctx context.Context) (*fetch.Copy, error) {
	req := &fetch.Request{
		Target:   t.target(),
		Fresh:    t.doc.fresh,
		Filter:   t.win.filter.Filter,
		OnSignal: refilter.OnSignal(t.win.filter.Filter, &t.win.row),
		Failures: t.win.row.Retry.Count,
		Rev:      t.win.row.Rev,
		TornRev:  t.win.row.TornRev,
	}
	if t.win.row.Ordinal != 0 {
		req.Held = &fetch.Held{
			Records: t.win.row.Records,
			Filter:  func() (*filter.Filter, error) { return t.r.store.FilterAt(t.win.row.Filter) },
			Skip:    t.skipHeld,
		}
	}
	c, err := t.r.copier.Copy(ctx, req)
	if err != nil {
		return nil, err
	}
	t.land.take(c)
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
	rows, err := t.r.store.Rows(t.win.row.Ordinal)
	if err != nil {
		return hosts.OfStore(err)
	}
	more := rows.Next()
	part.Skip(func(key []byte, id repo.CID) bool {
		for more && bytes.Compare(rows.Row().Path, key) < 0 {
			more = rows.Next()
		}
		return more && bytes.Equal(rows.Row().Path, key) && rows.Row().CID == id
	})
	return hosts.OfStore(rows.Close())
}
