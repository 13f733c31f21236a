package simnet

import (
	"net/http"
	"sync"
)

// relay answers for a relay without faults: it knows every account but the quiet ones, and
// redirects clients that ask for repositories.
type relay struct {
	net  *Network
	host *Host

	// mu guards the following. It is taken after the mutex of an account.
	mu      sync.Mutex
	emptied bool              // only what is in heard and hosts is known
	heard   map[*Account]bool // that sent an event since the relay was emptied
	hosts   map[*Host]bool    // of these accounts
	limit   int               // of the accounts of one host; 0: none

	decisions map[*Account]Status // about accounts, whatever their hosts state
}

// relaySeqs keeps the numbers of the relays' streams apart, so that a cursor of one is of no use at
// another.
const relaySeqs = 1_000_000_000

func (l *relay) serve(w http.ResponseWriter, r *http.Request, c call) {
	switch c.endpoint {
	case subscribeRepos:
		l.host.stream.serve(w, r)
	case "com.atproto.sync.listRepos":
		writeRepos(w, r, l.net.Accounts(), nil, l.lists)
	case "com.atproto.sync.listReposByCollection":
		writeHolders(w, r, l.net.Accounts(), nil, l.knows)
	case "com.atproto.sync.listHosts":
		l.writeHosts(w, r)
	case "com.atproto.sync.getRepoStatus", "com.atproto.sync.getLatestCommit", getRepo:
		a := l.net.Account(c.did)
		if a == nil || !l.knows(a) {
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
