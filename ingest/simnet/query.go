package simnet

import (
	"net/http"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
)

// read is a request for content of an account that is active at the host.
type read struct {
	w http.ResponseWriter
	r *http.Request
	c call
	a *Account
}

func (q read) answer() {
	switch q.c.endpoint {
	case getRepo:
		q.getRepo()
	case getProof:
		q.getProof()
	case getBlocks:
		q.getBlocks()
	case "com.atproto.repo.getRecord":
		q.getRecord()
	case "com.atproto.repo.listRecords":
		q.listRecords()
	case "com.atproto.repo.describeRepo":
		q.describeRepo()
	}
}

func (q read) getRecord() {
	s := q.a.snapshot()
	path := q.r.URL.Query().Get("collection") + "/" + q.r.URL.Query().Get("rkey")
	i, ok := s.find(path)
	if !ok {
		writeError(q.w, http.StatusBadRequest, "RecordNotFound",
			"Could not locate record: at://"+q.a.did+"/"+path)
		return
	}
	writeJSON(q.w, http.StatusOK, recordView(q.a.did, s.leaves[i]))
}

// listRecords lists a collection in descending order of record keys, or ascending with reverse,
// like the reference PDS.
func (q read) listRecords() {
	values := q.r.URL.Query()
	limit, ok := queryInt(q.r, "limit", 50, 100)
	if !ok || limit == 0 {
		writeError(q.w, http.StatusBadRequest, "InvalidRequest", "limit is not in 1..100")
		return
	}
	rising, prefix, cursor := values.Get("reverse") == "true",
		values.Get("collection")+"/", values.Get("cursor")
	var page []leaf
	for _, l := range q.a.snapshot().leaves {
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
		records[i] = recordView(q.a.did, l)
	}
	out := map[string]any{"records": records}
	if len(page) > 0 {
		out["cursor"] = strings.TrimPrefix(page[len(page)-1].path, prefix)
	}
	writeJSON(q.w, http.StatusOK, out)
}

func (q read) describeRepo() {
	collections := []string{}
	for _, l := range q.a.snapshot().leaves {
		name, _, ok := strings.Cut(l.path, "/")
		if ok && !slices.Contains(collections, name) {
			collections = append(collections, name)
		}
	}
	doc, _ := q.a.document()
	writeJSON(q.w, http.StatusOK, map[string]any{
		"handle": q.a.Handle(), "did": q.a.did, "didDoc": doc, "collections": collections,
		"handleIsCorrect": true,
	})
}

// recordView returns a record as JSON by indigo's own decoder, null for bytes that are not a
// record.
func recordView(did string, l leaf) map[string]any {
	value, _ := atdata.UnmarshalCBOR(l.data)
	return map[string]any{"uri": "at://" + did + "/" + l.path, "cid": l.cid.String(), "value": value}
}
