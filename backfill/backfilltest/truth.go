package backfilltest

import (
	"fmt"
	"maps"
	"slices"

	"cistern/ingest/repo"
	"cistern/store"
)

// Equal checks that the stored state of an account is the true one.
func (w *World) Equal(did string) {
	w.T.Helper()
	r, truth := w.Row(did), w.Net.Account(did).Truth()
	if r.State != store.StateSynced || r.Status != store.StatusActive {
		w.T.Errorf("%s is %v, %v (%+v), not synced", did, r.State, r.Status, r.Retry)
	}
	if r.Rev != truth.Rev || r.Data != truth.Data || repo.HashCID(r.Commit) != truth.Commit ||
		r.PDS != truth.Host || r.Key != truth.Key {
		w.T.Errorf("%s: row %+v, truth %+v", did, r, truth)
	}
	if r.Retry != (store.Retry{}) || r.Missing != 0 {
		w.T.Errorf("%s is synced and remembers %+v, missing %d", did, r.Retry, r.Missing)
	}
	if got := w.Records(did); !maps.Equal(got, truth.Records) {
		w.T.Errorf("%s holds %d records, truth %d", did, len(got), len(truth.Records))
	}
	if r.Records != int64(len(truth.Records)) {
		w.T.Errorf("%s counts %d records, truth %d", did, r.Records, len(truth.Records))
	}
}

// Records returns the CIDs of the stored records of a repository, by path.
func (w *World) Records(did string) map[string]repo.CID {
	w.T.Helper()
	m := map[string]repo.CID{}
	r := w.Row(did)
	if r.Ordinal == 0 {
		return m
	}
	rows, err := w.Store.Rows(r.Ordinal)
	if err != nil {
		w.T.Fatal(err)
	}
	for rows.Next() {
		m[string(rows.Row().Path)] = rows.Row().CID
	}
	if err := rows.Close(); err != nil {
		w.T.Fatal(err)
	}
	return m
}

// Events returns the log of a DID from an id on, as short texts.
func (w *World) Events(did string, from uint64) []string {
	w.T.Helper()
	var out []string
	for cursor := from; cursor <= w.Store.Head(); {
		next, err := w.Store.ReadLog(w.T.Context(), cursor, 10_000, func(e *store.Event) error {
			if e.DID != did {
				return nil
			}
			switch e.Kind {
			case store.KindRecord:
				out = append(out, fmt.Sprintf("%d %s/%s", e.Action, e.Collection, e.Rkey))
			case store.KindAccount:
				out = append(out, "account "+e.Status.String())
			case store.KindIdentity:
				out = append(out, "identity "+e.PDS)
			}
			return nil
		})
		if err != nil {
			w.T.Fatal(err)
		}
		if next == cursor {
			break
		}
		cursor = next
	}
	return out
}

// Accounts returns the account events of a DID.
func (w *World) Accounts(did string, from uint64) []string {
	return slices.DeleteFunc(w.Events(did, from), func(e string) bool { return e[0] != 'a' })
}
