package simnet

import "time"

// Decide has a relay treat an account in its own way, whatever the account's host says, and tell of
// that on its stream. Takendown and Suspended: it passes on nothing of the account and does not
// list it. Throttled and Desynchronized: it holds back commits. Active ends its decision, and it
// tells of the account as its host does. The truth, and what other relays say, stay as they are.
func (h *Host) Decide(a *Account, s Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := h.relay
	l.mu.Lock()
	before := l.decisions[a]
	if l.decisions == nil {
		l.decisions = map[*Account]Status{}
	}
	if s == Active {
		delete(l.decisions, a)
	} else {
		l.decisions[a] = s
	}
	l.mu.Unlock()
	switch {
	case s != Active:
		h.stream.receive(accountEvent(a.did, false, s, a.stamp()), true)
	case before != "":
		h.stream.receive(accountEvent(a.did, a.status == Active, a.status, a.stamp()), true)
	}
}

// Decided lists the accounts that a relay has decided about.
func (h *Host) Decided() []*Account {
	h.relay.mu.Lock()
	defer h.relay.mu.Unlock()
	var accounts []*Account
	for _, a := range h.relay.net.Accounts() {
		if _, ok := h.relay.decisions[a]; ok {
			accounts = append(accounts, a)
		}
	}
	return accounts
}

// decided is the relay's own status of an account, "" if it has none.
func (l *relay) decided(a *Account) Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.decisions[a]
}

// withholds reports whether the relay keeps an event to itself because of its decision.
func (l *relay) withholds(a *Account, e *event) bool {
	switch l.decided(a) {
	case "":
		return false
	case Throttled, Desynchronized:
		return e.kind == "#commit" || e.kind == "#sync"
	}
	return true
}

// FormerHost is the host that the account moved away from last; nil if it never moved.
func (a *Account) FormerHost() *Host {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.former) == 0 {
		return nil
	}
	return a.former[len(a.former)-1]
}

// FormerSays has a former host tell of the account, on its own stream and, as relays that look at a
// stale document do, on those of the relays. Its clock is ahead. The account stays as it is.
func (a *Account) FormerSays(s Status, ahead time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.former) == 0 {
		return
	}
	e := accountEvent(a.did, s == Active, s, a.stamp().Add(ahead))
	a.former[len(a.former)-1].stream.receive(e, true)
	for _, h := range a.net.relays {
		h.stream.receive(e, h.relay.hears(a, e))
	}
}
