package simnet

import (
	"net/http"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
)

// query answers the com.atproto.repo reads about one account.
func (p *pds) query(w http.ResponseWriter, r *http.Request, c call, a *Account, state Status) {
	if state != Active {
		writeUnavailable(w, state, c.did)
		return
	}
	switch c.endpoint {
	case "com.atproto.repo.getRecord":
		a.getRecord(w, r)
	case "com.atproto.repo.listRecords":
		a.listRecords(w, r)
	default:
		a.describeRepo(w)
	}
}

func (a *Account) getRecord(w http.ResponseWriter, r *http.Request) {
	s := a.snapshot()
	path := r.URL.Query().Get("collection") + "/" + r.URL.Query().Get("rkey")
	i, ok := s.find(path)
	if !ok {
		writeError(w, http.StatusBadRequest, "RecordNotFound", "Could not locate record: at://"+a.did+"/"+path)
		return
	}
	writeJSON(w, http.StatusOK, a.recordView(s.leaves[i]))
}

// listRecords lists a collection by falling record key, or rising with reverse, as the reference PDS.
func (a *Account) listRecords(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, ok := queryInt(r, "limit", 50, 100)
	if !ok || limit == 0 {
		writeError(w, http.StatusBadRequest, "InvalidRequest", "limit is not in 1..100")
		return
	}
	rising, prefix, cursor := q.Get("reverse") == "true", q.Get("collection")+"/", q.Get("cursor")
	var page []leaf
	for _, l := range a.snapshot().leaves {
		rkey, in := strings.CutPrefix(l.path, prefix)
		if in && (cursor == "" || (rising && rkey > cursor) || (!rising && rkey < cursor)) {
			page = append(page, l)
		}
	}
	if !rising {
		slices.Reverse(page)
	}
	page = page[:min(limit, len(page))]
	records := make([]any, len(page))
	for i, l := range page {
		records[i] = a.recordView(l)
	}
	out := map[string]any{"records": records}
	if len(page) > 0 {
		out["cursor"] = strings.TrimPrefix(page[len(page)-1].path, prefix)
	}
	writeJSON(w, http.StatusOK, out)
}

func (a *Account) describeRepo(w http.ResponseWriter) {
	collections := []string{}
	for _, l := range a.snapshot().leaves {
		name, _, ok := strings.Cut(l.path, "/")
		if ok && !slices.Contains(collections, name) {
			collections = append(collections, name)
		}
	}
	doc, _ := a.document()
	writeJSON(w, http.StatusOK, map[string]any{
		"handle": a.Handle(), "did": a.did, "didDoc": doc, "collections": collections, "handleIsCorrect": true,
	})
}

// recordView is a record as JSON by indigo's own decoder; null for bytes that are no record.
func (a *Account) recordView(l leaf) map[string]any {
	value, _ := atdata.UnmarshalCBOR(l.data)
	return map[string]any{"uri": "at://" + a.did + "/" + l.path, "cid": l.cid.String(), "value": value}
}
