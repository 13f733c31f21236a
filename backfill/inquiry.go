package backfill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/backfill/refilter"
	"cistern/filter"
	"cistern/ingest/repo"
)

// inquiry sends the requests of a task to the host that the document names, with the permit of the
// claim. It writes nothing.
type inquiry struct {
	copier *fetch.Copier
	claim  *claim
	doc    *document
	win    *window
}

// target returns the repository of the task and its host.
func (q *inquiry) target() fetch.Target {
	return fetch.Target{
		DID: q.claim.it.did, Ident: q.doc.ident, HostID: q.doc.hostID, Host: q.claim.permit,
	}
}

// plan returns what to ask the host in this attempt.
func (q *inquiry) plan() plan {
	return planOf(&q.win.row, q.win.filter, q.win.store.FilterAt, q.copier.FetchesWhole)
}

// copy downloads a verified copy of the records that the filter wants.
func (q *inquiry) copy(ctx context.Context) (*fetch.Copy, error) {
	row := &q.win.row
	req := &fetch.Request{
		Target:   q.target(),
		Fresh:    q.doc.fresh,
		Filter:   q.win.filter.Filter,
		OnSignal: refilter.OnSignal(q.win.filter.Filter, row),
		Failures: row.Retry.Count,
		Rev:      row.Rev,
		TornRev:  row.TornRev,
	}
	if row.Ordinal != 0 {
		req.Held = &fetch.Held{
			Records: row.Records,
			Filter:  func() (*filter.Filter, error) { return q.win.store.FilterAt(row.Filter) },
			Skip:    q.skipHeld,
		}
	}
	return q.copier.Copy(ctx, req)
}

// skipHeld excludes from a part the records that are stored with the same CID, because the diff
// does not read them. The stored records do not change while the fetch buffers live commits.
func (q *inquiry) skipHeld(part *repo.Partial) error {
	rows, err := q.win.store.Rows(q.win.row.Ordinal)
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

// query sends an XRPC query about the repository to its host.
func (q *inquiry) query(ctx context.Context, method, query string, bodyMax int64) ([]byte, error) {
	to := q.target()
	return q.copier.Query(ctx, &to, method, query, bodyMax)
}

// latest is an answer of getLatestCommit.
type latest struct {
	CID string `json:"cid"`
	Rev string `json:"rev"`
}

func (q *inquiry) latestCommit(ctx context.Context) (l latest, err error) {
	b, err := q.query(ctx, "com.atproto.sync.getLatestCommit", "", latestBodyMax)
	if err == nil && json.Unmarshal(b, &l) != nil {
		l = latest{} // not an answer: no rev
	}
	return l, err
}

// signalless reports whether the host states that the repository has no collection that a signal
// names. If the host does not answer the query, the fetch decides.
func (q *inquiry) signalless(ctx context.Context) (bool, error) {
	did := q.claim.it.did
	answer, err := q.query(ctx, "com.atproto.repo.describeRepo", "&repo="+url.QueryEscape(did),
		hosts.DescribeBodyMax)
	var a *hosts.AnswerError
	switch {
	case errors.As(err, &a) && a.Code != http.StatusTooManyRequests, hosts.QueriesSpent(err):
		return false, nil
	case err != nil:
		return false, err
	}
	holds, err := hosts.HoldsAny(answer, did, q.win.filter.Signal)
	return err == nil && !holds, nil
}

// inconclusive reports whether an error neither shows whether the repository is available nor asks
// for a pause. The host may not support the query, or its quota of queries may be spent while its
// quota of fetches is not.
func inconclusive(err error) bool {
	var answer *hosts.AnswerError
	if !errors.As(err, &answer) {
		return errors.Is(err, repo.ErrInvalid) || hosts.QueriesSpent(err)
	}
	if answer.Code == http.StatusNotImplemented {
		return true
	}
	return answer.Code < 500 && answer.Code != http.StatusTooManyRequests &&
		!strings.HasPrefix(answer.Name, "Repo")
}
