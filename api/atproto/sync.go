package atproto

import (
	"encoding/json"
	"strconv"

	"cistern/api/wire"
	"cistern/ingest/repo"
	"cistern/store"
)

type latestCommit struct {
	CID string `json:"cid"`
	Rev string `json:"rev"`
}

// GetLatestCommit answers com.atproto.sync.getLatestCommit.
func (r *Records) GetLatestCommit(q wire.Query) ([]byte, error) {
	did, err := q.DID("did")
	if err != nil {
		return nil, err
	}
	row, err := r.Visible(did)
	if err != nil {
		return nil, err
	}
	return json.Marshal(latestCommit{headOf(&row), row.Rev})
}

type repoStatus struct {
	DID    string `json:"did"`
	Active bool   `json:"active"`
	Status string `json:"status,omitempty"`
	Rev    string `json:"rev,omitempty"`
}

// GetRepoStatus answers com.atproto.sync.getRepoStatus. It answers for hidden accounts too. For a
// repository without a copy it answers RepoNotFound: nothing is known about it yet, and its DID may
// not exist.
func (r *Records) GetRepoStatus(q wire.Query) ([]byte, error) {
	did, err := q.DID("did")
	if err != nil {
		return nil, err
	}
	row, err := r.Held(did)
	if err != nil {
		return nil, err
	}
	if row.Status == store.StatusNotFound {
		return nil, wire.Refuse("RepoNotFound", "could not find repo for DID: %s", did)
	}
	st := repoStatus{DID: did, Active: !row.Status.Hidden(), Status: statusWord(&row)}
	if st.Active {
		st.Rev = row.Rev
	}
	return json.Marshal(st)
}

// statusWord returns the reason why an account is not active, "" if it is active, or if the
// protocol has no word for the reason. An account that is active again, but still hidden until its
// records are listed again, is desynchronized.
func statusWord(row *store.Repo) string {
	if row.Mark == store.MarkReturning && row.Status.Hidden() {
		return store.MarkDesynchronized.String()
	}
	return row.Status.Word()
}

type repoPage struct {
	Cursor string     `json:"cursor,omitempty"`
	Repos  []repoHead `json:"repos"`
}

type repoHead struct {
	DID    string `json:"did"`
	Head   string `json:"head"`
	Rev    string `json:"rev"`
	Active bool   `json:"active"`
	Status string `json:"status,omitempty"`
}

// ListRepos answers com.atproto.sync.listRepos: repositories with a copy, in the order of first
// imports. The cursor is the ordinal of the last row, so that a client can continue there once
// there are more rows. Accounts that were inactive when they were found are left out: they have no
// copy, and the lexicon requires a head and a rev.
func (r *Records) ListRepos(q wire.Query) ([]byte, error) {
	limit, err := q.Limit(500, 1000)
	if err != nil {
		return nil, err
	}
	var after uint64
	if q.Text("cursor") != "" {
		if after, _, err = q.Uint64("cursor"); err != nil {
			return nil, err
		}
	}
	if after > uint64(store.OrdinalMax) {
		return nil, wire.Invalid("cursor %d was not given by this server", after)
	}
	page := repoPage{Repos: []repoHead{}}
	if after == uint64(store.OrdinalMax) {
		return json.Marshal(page)
	}
	rows, err := r.store.ReposByOrdinal(store.Ordinal(after), limit)
	if err != nil {
		return nil, err
	}
	for i := range rows {
		row := &rows[i]
		page.Repos = append(page.Repos, repoHead{row.DID, headOf(row), row.Rev, !row.Status.Hidden(), statusWord(row)})
	}
	if len(rows) > 0 {
		page.Cursor = strconv.FormatUint(uint64(rows[len(rows)-1].Ordinal), 10)
	}
	return json.Marshal(page)
}

// headOf returns the CID of the signed commit of the copy.
func headOf(row *store.Repo) string { return repo.HashCID(row.Commit).String() }
