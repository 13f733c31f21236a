package atproto

import (
	"context"
	"encoding/json"
	"strconv"

	"cistern/api/clients"
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
	q.Reflects(row.Rev)
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
	after, err := numberCursor(q, uint64(store.OrdinalMax))
	if err != nil {
		return nil, err
	}
	rows, err := r.store.ReposByOrdinal(store.Ordinal(after), limit)
	if err != nil {
		return nil, err
	}
	page := repoPage{Repos: []repoHead{}}
	for i := range rows {
		row := &rows[i]
		page.Repos = append(page.Repos, repoHead{row.DID, headOf(row), row.Rev,
			!row.Status.Hidden(), statusWord(row)})
	}
	if len(rows) > 0 {
		page.Cursor = strconv.FormatUint(uint64(rows[len(rows)-1].Ordinal), 10)
	}
	return json.Marshal(page)
}

type accountPage struct {
	Cursor string    `json:"cursor,omitempty"`
	Repos  []account `json:"repos"`
}

type account struct {
	DID string `json:"did"`
}

// ListReposByCollection answers com.atproto.sync.listReposByCollection, in the order and with the
// cursor of listRepos. Several collections mean accounts with records in any of them; without the
// parameter it lists all accounts. Inactive accounts are left out.
//
// Accounts that are hidden are passed in bounded steps, between which others compute, so that a
// page is empty at the end only.
func (r *Records) ListReposByCollection(ctx context.Context, q wire.Query) ([]byte, error) {
	collections, err := q.Collections(collectionsMax)
	if err != nil {
		return nil, err
	}
	limit, err := q.Limit(500, 2000)
	if err != nil {
		return nil, err
	}
	after, err := numberCursor(q, uint64(store.OrdinalMax))
	if err != nil {
		return nil, err
	}
	var rows []store.Repo
	for at, ended := store.Ordinal(after), false; len(rows) == 0 && !ended; {
		if rows, at, ended, err = r.store.ReposByCollection(collections, at, limit); err == nil {
			err = clients.Yield(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	page := accountPage{Repos: []account{}}
	for i := range rows {
		page.Repos = append(page.Repos, account{rows[i].DID})
	}
	if len(rows) > 0 {
		page.Cursor = strconv.FormatUint(uint64(rows[len(rows)-1].Ordinal), 10)
	}
	return json.Marshal(page)
}

// numberCursor returns the parameter cursor of a list whose items have numbers, 0 if it is missing.
func numberCursor(q wire.Query, most uint64) (uint64, error) {
	if q.Text("cursor") == "" {
		return 0, nil
	}
	after, _, err := q.Uint64("cursor")
	if err == nil && after > most {
		err = wire.Invalid("cursor %d was not given by this server", after)
	}
	return after, err
}

// headOf returns the CID of the signed commit of the copy.
func headOf(row *store.Repo) string { return repo.HashCID(row.Commit).String() }
