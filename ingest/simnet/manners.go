package simnet

// Manners is how much a relay announces.
type Manners int

const (
	// Polite relays announce a gap: a cursor older than the window is answered with #info
	// OutdatedCursor, one above the newest message with the error FutureCursor. They list accounts of
	// every status.
	Polite Manners = iota + 1
	// Indigo relays do what indigo's relay does. A cursor older than the window begins with the oldest
	// message, one above the newest message begins with the next one, unannounced. They list active
	// accounts.
	Indigo
)

// knows reports whether the relay lists an account and answers for it.
func (l *relay) knows(a *Account) bool {
	if a.Quiet() || l.throttled(a, a.Host()) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.emptied || l.heard[a]
}

// lists reports whether listRepos of the relay names an account that has this status.
func (l *relay) lists(a *Account, status Status) bool {
	return l.knows(a) && l.decided(a) == "" && (status == Active || l.net.opts.Manners == Polite)
}

// knowsHost reports whether listHosts of the relay names a PDS.
func (l *relay) knowsHost(h *Host) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.emptied || l.hosts[h]
}

// hears notes that an account sent an event, and reports whether the relay passes it on. Called
// with the account's mu held.
func (l *relay) hears(a *Account, e *event) bool {
	if l.throttled(a, a.host) || l.withholds(a, e) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.emptied && !e.hidden {
		l.heard[a], l.hosts[a.host] = true, true
	}
	return true
}

// throttled reports whether an account of a PDS is beyond the relay's limit.
func (l *relay) throttled(a *Account, host *Host) bool {
	l.mu.Lock()
	limit := l.limit
	l.mu.Unlock()
	return limit > 0 && host.rank(a) >= limit
}

// SetAccountLimit makes a relay throttle all accounts of a PDS but the first n that lived there: it
// passes none of their events on and does not list them. 0 ends the limit.
func (h *Host) SetAccountLimit(n int) {
	h.relay.mu.Lock()
	defer h.relay.mu.Unlock()
	h.relay.limit = n
}

// Recount has the host's stream lose all messages and give the number first to the next one, which
// may be below or above the earlier numbers. Its connections break.
func (h *Host) Recount(first int64) { h.stream.empty(first) }

// Empty has a relay lose all its data: it counts anew as after Recount, and lists and knows only
// accounts, and hosts, that sent an event since.
func (h *Host) Empty(first int64) {
	h.relay.mu.Lock()
	h.relay.emptied, h.relay.heard, h.relay.hosts = true, map[*Account]bool{}, map[*Host]bool{}
	h.relay.mu.Unlock()
	h.Recount(first)
}
