package simnet

import "net/http"

// serveRelay answers as a relay does: it knows every account and sends clients on for repositories.
func (n *Network) serveRelay(w http.ResponseWriter, r *http.Request, c call) {
	switch c.endpoint {
	case "com.atproto.sync.listRepos":
		writeRepos(w, r, n.Accounts(), nil)
	case "com.atproto.sync.getRepoStatus", "com.atproto.sync.getLatestCommit", getRepo:
		a := n.Account(c.did)
		if a == nil {
			writeUnavailable(w, Deleted, c.did)
			return
		}
		switch c.endpoint {
		case "com.atproto.sync.getRepoStatus":
			writeStatus(w, a, c.did, a.stateAt(nil))
		case "com.atproto.sync.getLatestCommit":
			writeLatest(w, a, c.did, a.stateAt(nil))
		default:
			http.Redirect(w, r, a.Host().URL()+r.URL.RequestURI(), http.StatusFound)
		}
	default:
		writeError(w, http.StatusNotImplemented, "MethodNotImplemented", "Method Not Implemented")
	}
}
