package simnet

import "time"

// emit gives an event to the account's host and to the relays, in this order. Called with mu held,
// so that every stream has the events of an account in the order in which they happened.
func (a *Account) emit(events ...*event) {
	for _, e := range events {
		a.quiet = a.quiet && e.hidden
		for _, h := range a.net.hosts {
			h.stream.receive(e, h == a.host)
		}
		for _, h := range a.net.relays {
			h.stream.receive(e, h.relay.hears(a, e))
		}
	}
}

// emitIdentity emits an #identity event. A deleted account emits none.
func (a *Account) emitIdentity() {
	if a.status != Deleted {
		a.emit(identityEvent(a.did, a.handle, a.stamp()))
	}
}

func (a *Account) emitAccount() {
	a.emit(accountEvent(a.did, a.status == Active, a.status, a.stamp()))
}

// emitSync emits a #sync of the head if the account is active.
func (a *Account) emitSync() {
	s := a.load()
	e := syncEvent(s, a.statedRev(), a.stamp())
	e.hidden = a.status != Active
	a.announce(e, s)
}

// emitCommit emits the commit from old to the head.
func (a *Account) emitCommit(old *snapshot, ops []Op) {
	e := commitEvent(&commitParts{account: a, old: old, now: a.now, ops: ops, key: a.key}, a.clock)
	e.hidden = a.status != Active
	a.announce(e, a.now)
}

func (a *Account) announce(e *event, s *snapshot) {
	if !e.hidden {
		a.eventRev = s.rev
	}
	a.emit(e)
}

// create generates the repository of an account that joins a running network, and emits its
// commits: the first has as many records as one message may, later commits have the rest. Called
// with mu held.
func (a *Account) create() {
	all := a.generate()
	at := a.clock.Add(time.Millisecond)
	a.clock = at.Add(time.Millisecond)
	a.emit(identityEvent(a.did, a.handle, at), accountEvent(a.did, true, Active, a.clock))
	for end := 0; a.now == nil || end < len(all); {
		from := end
		end = min(end+commitOpsMax, len(all))
		var ops []Op
		for _, l := range all[from:end] {
			ops = append(ops, Op{Action: "create", Path: l.path, CID: l.cid, Record: l.data})
		}
		a.prev, a.now = a.now, newSnapshot(a.did, a.tick(), all[:end:end], a.key, a.net.opts.Preorder)
		a.emitCommit(a.prev, ops)
	}
}

// Sync makes the host emit a #sync of the head, without a mutation.
func (a *Account) Sync() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.emitSync()
}

// SetHandle changes the account's handle in its DID document.
func (a *Account) SetHandle(handle string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.load()
	a.handle = handle
	a.logPLC()
	a.emitIdentity()
}

// Announce makes the host emit an #account event with the given status. The account does not
// change.
func (a *Account) Announce(active bool, status Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.emit(accountEvent(a.did, active, status, a.stamp()))
}

// AnnounceIdentity emits an #identity event for an unchanged DID document.
func (a *Account) AnnounceIdentity() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.emitIdentity()
}

// MigrateKey moves the account as Migrate does, and gives it a new signing key without a commit:
// the newest commit keeps the signature of the old key.
func (a *Account) MigrateKey(to *Host) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.load()
	a.turnKey()
	a.migrate(to)
}

// migrate emits the events of a move as the reference PDS does: the new host activates the account
// and states its head, and the old host deactivates the account. Relays ignore the latter, since
// the old host is no longer the account's host.
func (a *Account) migrate(to *Host) {
	from := a.host
	a.move(to)
	a.logPLC()
	if a.status != Active {
		a.emitIdentity()
		return
	}
	if from != to {
		a.imported = a.tick()
	}
	a.emitAccount()
	a.emitIdentity()
	a.emitSync()
	if from != to {
		from.stream.receive(accountEvent(a.did, false, Deactivated, a.stamp()), true)
	}
}
