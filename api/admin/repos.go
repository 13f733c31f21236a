package admin

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"cistern/api/wire"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/store"
)

// repoItem is a row as the operator sees it.
type repoItem struct {
	DID    string `json:"did"`
	Status string `json:"status"`
	// source of a status that hides the account: host, relay or directory
	StatedBy   string `json:"stated_by,omitempty"`
	Mark       string `json:"mark,omitempty"` // throttled, desynchronized or returning
	State      string `json:"state"`
	Tracked    bool   `json:"tracked"`
	Why        string `json:"why"`
	Rev        string `json:"rev,omitempty"`
	Data       string `json:"data,omitempty"`
	Head       string `json:"head,omitempty"`
	Handle     string `json:"handle,omitempty"`
	PDS        string `json:"pds,omitempty"`
	SigningKey string `json:"signing_key,omitempty"`
	Records    int64  `json:"records"`
	// number of collections with records that the filter wants
	Collections uint32 `json:"collections"`
	// records of each collection, of the first collectionsShown; for one repository only
	ByCollection map[string]int64 `json:"by_collection,omitempty"`
	// records that are stored although the filter does not want them
	Shelved  int64  `json:"shelved,omitempty"`
	Lacking  bool   `json:"lacking,omitempty"`   // records that the filter wants are missing
	Reason   string `json:"reason,omitempty"`    // why it is not synced
	NextLook string `json:"next_look,omitempty"` // when its host is asked again
	// why the host of a pending repository is not asked
	Waits      string     `json:"waits,omitempty"`
	Error      *repoError `json:"error,omitempty"`
	Verified   string     `json:"verified,omitempty"`
	SeenRev    string     `json:"seen_rev,omitempty"`
	Buffered   int        `json:"buffered,omitempty"`
	ResolvedAt string     `json:"resolved_at,omitempty"`
	UpdatedAt  string     `json:"updated_at,omitempty"`
}

// repoError is the failure after which a repository waits for a retry.
type repoError struct {
	Kind      string `json:"kind"`
	Count     uint32 `json:"count"`
	NextRetry string `json:"next_retry,omitempty"`
	Since     string `json:"since,omitempty"`
	Message   string `json:"message"`
}

// repos shows the rows of repositories to the operator.
type repos struct {
	store *store.Store
	hosts Hosts
}

// list handles GET /repos.
func (rs *repos) list(w http.ResponseWriter, r *http.Request) error {
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	limit, err := q.Limit(100, 1000)
	if err != nil {
		return err
	}
	cursor := q.Text("cursor")
	if reason := wire.BadDID(cursor); cursor != "" && reason != "" {
		return wire.Invalid("cursor %s is not a DID: %s", wire.Echo(cursor), reason)
	}
	match, err := rowFilter(q)
	if err != nil {
		return err
	}
	rows, next, err := rs.store.Repos(cursor, limit, match)
	if err != nil {
		return err
	}
	items := make([]repoItem, len(rows))
	for i := range rows {
		items[i] = rs.item(&rows[i])
	}
	q.LinkNext(w, r.URL.Path, next)
	return wire.WriteList(w, r, items)
}

// rowFilter returns a function that combines the parameters state, host, error and verified; nil
// means all rows.
func rowFilter(q wire.Query) (func(*store.Repo) bool, error) {
	var state store.State
	var err error
	if v := q.Text("state"); v != "" {
		if state, err = store.ParseState(v); err != nil {
			return nil, wire.Invalid("state %s: want pending, draining, synced, resync, gone or idle",
				wire.Echo(v))
		}
	}
	kind := q.Text("error")
	if kind != "" && kind != store.RateLimited.String() && kind != store.Transport.String() &&
		kind != store.Generic.String() {
		return nil, wire.Invalid("error %s: want ratelimited, transport or generic", wire.Echo(kind))
	}
	verified := q.Text("verified")
	if verified != "" && !slices.ContainsFunc(verifiedLevels[:],
		func(v store.Verified) bool { return v.String() == verified }) {
		return nil, wire.Invalid("verified %s: want full, hashes, ops or formerkey", wire.Echo(verified))
	}
	host, err := hostParameter(q)
	if err != nil {
		return nil, err
	}
	if state == 0 && host == "" && kind == "" && verified == "" {
		return nil, nil
	}
	return func(row *store.Repo) bool {
		return (state == 0 || row.State == state) && (kind == "" || row.Retry.Kind.String() == kind) &&
			(host == "" || identity.HostOf(row.PDS) == host) &&
			(verified == "" || row.Rev != "" && row.Verified.String() == verified)
	}, nil
}

// verifiedLevels are the levels of verification of rows.
var verifiedLevels = [...]store.Verified{store.VerifiedFull, store.VerifiedHashes,
	store.VerifiedOps, store.VerifiedFormerKey}

// show handles GET /repos/{did}.
func (rs *repos) show(w http.ResponseWriter, r *http.Request) error {
	did := r.PathValue("did")
	if reason := wire.BadDID(did); reason != "" {
		return wire.Invalid("%s is not a DID: %s", wire.Echo(did), reason)
	}
	row, err := rs.store.Repo(did)
	if errors.Is(err, store.ErrNotFound) {
		return wire.Refuse("NotFound", "no repository of %s is known", did)
	}
	if err != nil {
		return err
	}
	item := rs.item(&row)
	if item.ByCollection, err = rs.store.CollectionCounts(&row, collectionsShown); err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusOK, item)
	return nil
}

func (rs *repos) item(row *store.Repo) repoItem {
	it := repoItem{
		DID: row.DID, Status: shownStatus(row), Mark: row.Mark.String(), Reason: rs.reason(row),
		State: row.State.String(), Tracked: row.Tracked != store.Untracked, Why: row.Tracked.String(),
		Rev: row.Rev, Handle: row.Handle, PDS: row.PDS, SigningKey: wire.Multibase(row.Key),
		Records: row.Records, Collections: row.Collections, Shelved: row.Shelved,
		Lacking: row.Lacks || row.Sweep, UpdatedAt: rfc3339(row.Updated), SeenRev: row.SeenRev,
		Buffered: rs.store.Buffered(row.DID), ResolvedAt: rfc3339(row.Resolved),
	}
	if row.Rev != "" {
		it.Data, it.Head, it.Verified = row.Data.String(), repo.HashCID(row.Commit).String(),
			row.Verified.String()
	}
	if row.State == store.StatePending {
		it.Waits = rs.waits(row.Pending.Host)
	}
	if row.Status.Hidden() {
		it.StatedBy = row.Origin.String()
	}
	if row.State == store.StateResync || row.State == store.StateGone {
		it.NextLook = rfc3339(row.Retry.Next)
	}
	if row.Retry.Kind != store.NoError || row.Retry.Count > 0 {
		it.Error = &repoError{Kind: row.Retry.Kind.String(), Count: row.Retry.Count,
			Message: row.Retry.Error, Since: rfc3339(row.Retry.Since)}
		if row.State == store.StateResync || row.State == store.StateGone {
			it.Error.NextRetry = rfc3339(row.Retry.Next)
		}
	} else if row.State == store.StateSynced && row.FutureDue != 0 {
		it.Error = &repoError{Kind: "future",
			Message:   "a commit was dropped: its rev is in the future by the clock of this machine",
			NextRetry: rfc3339(row.FutureDue)}
	}
	return it
}

// waits returns why a host is not asked now, "" if it may be asked.
func (rs *repos) waits(id uint32) string {
	h, _ := rs.store.HostByID(id)
	switch now := rs.hosts.standing(&h); {
	case id == 0:
		return ""
	case now.Banned:
		return "host " + h.Name + " is banned"
	case !now.ParkedUntil.IsZero():
		return "host " + h.Name + " is left alone until " + moment(now.ParkedUntil)
	}
	return ""
}

// shownStatus returns the status of an account: unknown until its document was read.
func shownStatus(row *store.Repo) string {
	if !row.Status.Hidden() && row.Rev == "" && row.Resolved == 0 {
		return "unknown"
	}
	return row.Status.String()
}

// reason returns why a repository is not synced, "" if it is synced.
func (rs *repos) reason(row *store.Repo) string {
	switch row.State {
	case store.StateSynced:
		return ""
	case store.StateIdle:
		return "it is not followed"
	case store.StateDraining:
		return "commits that arrived during its copy are being applied"
	case store.StatePending:
		if why := rs.waits(row.Pending.Host); why != "" {
			return why
		}
		if row.Retry.Error != "" {
			return "queued to be tried again: " + row.Retry.Error
		}
		if h, ok := rs.store.HostByID(row.Pending.Host); ok && row.Pending.Host != 0 {
			return "queued for " + h.Name
		}
		return "queued until its host is known"
	}
	if row.Retry.Error == "" {
		return "it is " + row.Status.String()
	}
	return row.Retry.Error
}

func rfc3339(seconds int64) string {
	if seconds == 0 {
		return ""
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}
