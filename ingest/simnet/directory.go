package simnet

import (
	"net/http"
	"sort"
	"strconv"
	"strings"
)

// writeHosts answers listHosts of a relay with every PDS that it knows; a PDS that is down is
// offline. The cursor is the number of the next host.
func (l *relay) writeHosts(w http.ResponseWriter, r *http.Request) {
	limit, ok := queryInt(r, "limit", 200, 1000)
	from, okCursor := queryInt(r, "cursor", 0, 1<<30)
	if !ok || !okCursor {
		writeError(w, http.StatusBadRequest, "InvalidRequest", "limit or cursor is not a number in range")
		return
	}
	hosts := []any{}
	at := from
	for ; at < len(l.net.hosts) && len(hosts) < limit; at++ {
		h := l.net.hosts[at]
		if !l.knowsHost(h) {
			continue
		}
		status := "active"
		if !h.isUp() {
			status = "offline"
		}
		hosts = append(hosts, map[string]any{"hostname": strings.TrimPrefix(h.URL(), "http://"),
			"status": status, "accountCount": len(h.listed())})
	}
	out := map[string]any{"hosts": hosts}
	if at < len(l.net.hosts) {
		out["cursor"] = strconv.Itoa(at)
	}
	writeJSON(w, http.StatusOK, out)
}

func (h *Host) isUp() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.server != nil
}

// writeHolders answers listReposByCollection of a host, or of a relay if h is nil, with the active
// accounts that it knows and that have a record in the collection. The cursor is the number of the
// next account. A page may be empty.
func writeHolders(
	w http.ResponseWriter, r *http.Request, accounts []*Account, h *Host, knows func(*Account) bool,
) {
	collection := r.URL.Query().Get("collection")
	limit, ok := queryInt(r, "limit", 500, 2000)
	from, okCursor := queryInt(r, "cursor", 0, 1<<30)
	if !ok || !okCursor || collection == "" {
		writeError(w, http.StatusBadRequest, "InvalidRequest",
			"collection is missing, or limit or cursor is not a number in range")
		return
	}
	repos := []any{}
	at := sort.Search(len(accounts), func(i int) bool { return accounts[i].index >= from })
	for looked := 0; at < len(accounts) && looked < limit; at++ {
		looked++
		a := accounts[at]
		if a.stateAt(h) == Active && knows(a) && a.snapshot().holds(collection) {
			repos = append(repos, map[string]any{"did": a.did})
		}
	}
	out := map[string]any{"repos": repos}
	if at < len(accounts) {
		out["cursor"] = strconv.Itoa(accounts[at].index)
	}
	writeJSON(w, http.StatusOK, out)
}

// holds reports whether the repository has a record of a collection.
func (s *snapshot) holds(collection string) bool {
	leaves, prefix := s.leaves, collection+"/"
	i := sort.Search(len(leaves), func(i int) bool { return leaves[i].path >= prefix })
	return i < len(leaves) && strings.HasPrefix(leaves[i].path, prefix)
}
