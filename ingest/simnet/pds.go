package simnet

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const carType = "application/vnd.ipld.car"

// pds answers for one PDS host without faults.
type pds struct {
	net  *Network
	host *Host
}

func (p *pds) serve(w http.ResponseWriter, r *http.Request, c call) {
	switch c.endpoint {
	case subscribeRepos:
		p.host.stream.serve(w, r)
		return
	case "com.atproto.sync.listRepos":
		writeRepos(w, r, p.host.listed(), p.host,
			func(_ *Account, status Status) bool { return status != Deleted })
		return
	case "com.atproto.sync.listReposByCollection":
		writeHolders(w, r, p.host.listed(), p.host, func(*Account) bool { return true })
		return
	case "com.atproto.server.describeServer":
		writeJSON(w, http.StatusOK, map[string]any{
			"did": "did:web:localhost", "availableUserDomains": []string{".sim.test"},
			"inviteCodeRequired": false,
		})
		return
	}
	a := p.net.Account(c.did)
	state := Deleted
	if a != nil {
		state = a.stateAt(p.host)
	}
	switch c.endpoint {
	case getRepo, getProof, getBlocks,
		"com.atproto.repo.getRecord", "com.atproto.repo.listRecords", "com.atproto.repo.describeRepo":
		if state != Active {
			writeUnavailable(w, state, c.did)
			return
		}
		read{w, r, c, a}.answer()
	case "com.atproto.sync.getLatestCommit":
		writeLatest(w, a, c.did, state)
	case "com.atproto.sync.getRepoStatus":
		writeStatus(w, a, c.did, state)
	default:
		writeError(w, http.StatusNotImplemented, "MethodNotImplemented", "Method Not Implemented")
	}
}

func (q read) getRepo() {
	w, opts := q.w, &q.a.net.opts
	if f := q.c.fault; f != nil {
		f.sendCAR(w, q.r, q.faultyCAR(f.fault.Kind))
		return
	}
	s := q.a.snapshot()
	w.Header().Set("Content-Type", carType)
	var out io.Writer = w
	if opts.Gzip && strings.Contains(q.r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		out = z
	}
	_ = writeCAR(out, s.root.cid, s.blocks(), opts.Clutter) // a client that left is not an error
}

// stateAt returns the status that a host states: deactivated if the account has left the host,
// deleted if it was never there. If h is nil (a relay), it is the account's status.
func (a *Account) stateAt(h *Host) Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case h == nil || a.host == h:
		return a.status
	case slices.Contains(a.former, h) && a.status != Deleted:
		return Deactivated
	}
	return Deleted
}

// writeUnavailable answers as the reference PDS does for an account that is not active.
func writeUnavailable(w http.ResponseWriter, state Status, did string) {
	code, message := "RepoNotFound", "Could not find repo for DID: "+did
	switch state {
	case Takendown:
		code, message = "RepoTakendown", "Repo has been takendown: "+did
	case Suspended:
		code, message = "RepoSuspended", "Repo has been suspended: "+did
	case Deactivated:
		code, message = "RepoDeactivated", "Repo has been deactivated: "+did
	}
	writeError(w, http.StatusBadRequest, code, message)
}

func writeStatus(w http.ResponseWriter, a *Account, did string, state Status) {
	if state == Deleted {
		writeUnavailable(w, state, did)
		return
	}
	out := map[string]any{"did": a.did, "active": state == Active}
	if state == Active {
		_, out["rev"] = a.head()
	} else {
		out["status"] = state
	}
	writeJSON(w, http.StatusOK, out)
}

func writeLatest(w http.ResponseWriter, a *Account, did string, state Status) {
	if state != Active {
		writeUnavailable(w, state, did)
		return
	}
	s, rev := a.head()
	writeJSON(w, http.StatusOK, map[string]any{"cid": s.root.cid.String(), "rev": rev})
}

// writeRepos answers listRepos of a host, or of a relay if h is nil, with the accounts that lists
// selects. The cursor is the number of the next account.
func writeRepos(
	w http.ResponseWriter, r *http.Request, accounts []*Account, h *Host,
	lists func(*Account, Status) bool,
) {
	limit, ok := queryInt(r, "limit", 500, 1000)
	from, okCursor := queryInt(r, "cursor", 0, 1<<30)
	if !ok || !okCursor {
		writeError(w, http.StatusBadRequest, "InvalidRequest", "limit or cursor is not a number in range")
		return
	}
	at := sort.Search(len(accounts), func(i int) bool { return accounts[i].index >= from })
	repos := make([]any, 0, min(limit, len(accounts)-at))
	for ; at < len(accounts) && len(repos) < limit; at++ {
		a := accounts[at]
		state := a.stateAt(h)
		if !lists(a, state) {
			continue
		}
		s, rev := a.head()
		row := map[string]any{"did": a.did, "head": s.root.cid.String(), "rev": rev,
			"active": state == Active}
		if state != Active {
			row["status"] = state
		}
		repos = append(repos, row)
	}
	out := map[string]any{"repos": repos}
	if at < len(accounts) {
		out["cursor"] = strconv.Itoa(accounts[at].index)
	}
	writeJSON(w, http.StatusOK, out)
}

// queryInt reads a number from the query, def if it is absent. It returns false if the number is
// not from 0 to limit.
func queryInt(r *http.Request, name string, def, limit int) (int, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return def, true
	}
	v, err := strconv.Atoi(text)
	return v, err == nil && v >= 0 && v <= limit
}

func writeError(w http.ResponseWriter, status int, code, message string) {
	writeJSON(w, status, map[string]any{"error": code, "message": message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	writeBody(w, v)
}

func writeBody(w io.Writer, v any) {
	_ = json.NewEncoder(w).Encode(v) // a client that left is not an error
}

// shiftRev returns a rev at another time, with the same clock id.
func shiftRev(rev string, by time.Duration) string {
	t := syntax.TID(rev)
	return tid(t.Time().Add(by), int(t.ClockID()))
}
