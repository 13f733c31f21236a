package simnet

import (
	"fmt"
	"slices"

	"github.com/bluesky-social/indigo/atproto/repo/mst"

	"cistern/ingest/repo"
)

// Status is the state of an account at its host.
type Status string

// The states of an account; their names are those of the protocol.
const (
	Active      Status = "active"
	Deactivated Status = "deactivated"
	Takendown   Status = "takendown"
	Suspended   Status = "suspended"
	Deleted     Status = "deleted"

	// Throttled and Desynchronized are stated by hosts and relays for active accounts.
	Throttled      Status = "throttled"
	Desynchronized Status = "desynchronized"
)

// Account is one account of the network with its repository.
type Account struct {
	repository

	// mu of the repository guards:
	handle     string
	host       *Host
	former     []*Host // hosts that it has left
	status     Status
	keyTurns   int // how often the key was rotated
	legacy     bool
	tombstoned bool
	quiet      bool // unknown to relays
	plc        []plcOp
}

// Truth is the true state of an account, which a complete index holds.
type Truth struct {
	DID, Handle, Rev string
	// Commit and Data are the CIDs of the newest commit and its tree.
	Commit, Data repo.CID
	// Host is the base URL of its PDS, Key its signing key as a did:key.
	Host, Key string
	Status    Status
	// Records has the CID of every leaf of the tree by path, odd keys included.
	Records map[string]repo.CID
}

// Write is one change to a repository: it puts Record at Path, or deletes the record if it is nil.
type Write struct {
	Path   string
	Record []byte
	// Absent makes a delete of a path without a record succeed, and adds it to the operations.
	Absent bool
}

// Op is the effect of a Write. Prev is zero for a create, and CID is zero for a delete. Several ops
// on one path build on each other.
type Op struct {
	Action, Path string
	CID, Prev    repo.CID
	Record       []byte
}

// Commit is one commit of a repository. Since and PrevData are those of the previous commit.
type Commit struct {
	DID, Rev, Since     string
	CID, Data, PrevData repo.CID
	Ops                 []Op
}

// DID is the account's DID.
func (a *Account) DID() string { return a.did }

// Handle is the account's handle.
func (a *Account) Handle() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.handle
}

// Status is the status that its host states.
func (a *Account) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// Host returns the current host of the account.
func (a *Account) Host() *Host {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.host
}

// Truth returns the true state of the account.
func (a *Account) Truth() Truth {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.load()
	t := Truth{
		DID: a.did, Handle: a.handle, Rev: s.rev, Commit: s.root.cid, Data: s.data,
		Host: a.host.URL(), Key: "did:key:" + a.key.text, Status: a.status,
		Records: make(map[string]repo.CID, len(s.leaves)),
	}
	for _, l := range s.leaves {
		t.Records[l.path] = l.cid
	}
	return t
}

// Put creates or replaces one record, in a separate commit.
func (a *Account) Put(path string, record map[string]any) (Commit, error) {
	return a.Commit(Write{Path: path, Record: EncodeRecord(record)})
}

// Delete removes one record, in a separate commit.
func (a *Account) Delete(path string) (Commit, error) { return a.Commit(Write{Path: path}) }

// Commit applies writes in one commit with a new rev; without writes it only raises the rev. If one
// of them is impossible, nothing is written.
func (a *Account) Commit(writes ...Write) (Commit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.commit(writes)
}

func (a *Account) commit(writes []Write) (Commit, error) {
	old := a.load()
	next := &snapshot{leaves: slices.Clone(old.leaves)}
	ops := make([]Op, 0, len(writes))
	for _, w := range writes {
		op, err := next.apply(w)
		if err != nil {
			return Commit{}, fmt.Errorf("commit to %s: %w", a.did, err)
		}
		ops = append(ops, op)
	}
	a.prev, a.now, a.imported = old,
		newSnapshot(a.did, a.tick(), next.leaves, a.key, a.net.opts.Preorder), ""
	a.emitCommit(old, ops)
	return Commit{
		DID: a.did, Rev: a.now.rev, Since: old.rev,
		CID: a.now.root.cid, Data: a.now.data, PrevData: old.data, Ops: ops,
	}, nil
}

// apply makes one write to a snapshot under construction.
func (s *snapshot) apply(w Write) (Op, error) {
	if !mst.IsValidKey([]byte(w.Path)) {
		return Op{}, fmt.Errorf("path %.40q is not an MST key", w.Path)
	}
	i, found := s.find(w.Path)
	op := Op{Path: w.Path, Record: w.Record}
	if found {
		op.Prev = s.leaves[i].cid
	}
	switch {
	case w.Record == nil && !found && w.Absent:
		op.Action = "delete"
		return op, nil
	case w.Record == nil && !found:
		return Op{}, fmt.Errorf("delete %q: no such record", w.Path)
	case w.Record == nil:
		op.Action = "delete"
		s.leaves = slices.Delete(s.leaves, i, i+1)
		return op, nil
	case found:
		op.Action = "update"
		s.leaves[i] = newLeaf(w.Path, w.Record)
	default:
		op.Action = "create"
		s.leaves = slices.Insert(s.leaves, i, newLeaf(w.Path, w.Record))
	}
	op.CID = s.leaves[i].cid
	return op, nil
}

// Mutate makes a commit of n seeded writes: about half creates, a quarter each updates and deletes.
func (a *Account) Mutate(n int) (Commit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.load()
	gen := recordGen{rng: a.rng, net: a.net, did: a.did}
	touched := make(map[string]bool)
	var writes []Write
	for len(writes) < n {
		path, record := gen.next(a.advance())
		if len(s.leaves) > 0 && a.rng.IntN(2) == 0 {
			path = s.leaves[a.rng.IntN(len(s.leaves))].path
			if a.rng.IntN(2) == 0 {
				record = nil
			}
		}
		if !touched[path] {
			touched[path] = true
			writes = append(writes, Write{Path: path, Record: record})
		}
	}
	return a.commit(writes)
}

// SetStatus changes the status that the host states. For deleted accounts the host answers
// RepoNotFound; the PLC document stays until Tombstone. A new status is an event. As with the
// reference PDS, the streams also state the head when a deactivated account becomes active again.
func (a *Account) SetStatus(s Status) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.status
	if a.status = s; s == before {
		return
	}
	a.emitAccount()
	if s != Active {
		return
	}
	own := before == Deactivated || before == Deleted
	if own {
		a.emitIdentity()
	}
	if own || a.eventRev != a.load().rev {
		a.emitSync()
	}
}

// Tombstone removes the DID from the PLC directory, which answers 410 from now on.
func (a *Account) Tombstone() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tombstoned {
		return
	}
	a.tombstoned = true
	a.logPLC()
	if a.status != Deleted {
		a.emit(identityEvent(a.did, "", a.stamp()))
	}
}

// RotateKey gives the account a new signing key in its DID document, and signs an empty commit with
// it.
func (a *Account) RotateKey() Commit {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.load()
	a.turnKey()
	a.logPLC()
	a.emitIdentity()
	c, err := a.commit(nil)
	if err != nil {
		panic(fmt.Sprintf("simnet: empty commit: %v", err))
	}
	return c
}

func (a *Account) turnKey() {
	a.keyTurns++
	a.key = newSigner(a.net.derive("key", a.index, a.keyTurns), a.key.p256 != nil)
}

// Migrate moves the account to another host: the DID document names the new host, and the old host
// calls the account deactivated. Like the reference PDS, the new host imports the repository: it
// states a new rev for the commit, although the commit keeps its rev. The key stays; see
// MigrateKey.
func (a *Account) Migrate(to *Host) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.migrate(to)
}

func (a *Account) move(to *Host) {
	a.former = append(slices.DeleteFunc(a.former, func(h *Host) bool { return h == to }), a.host)
	a.host = to
	to.addResident(a)
}

// Quiet makes the account unknown to relays.
func (a *Account) Quiet() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.quiet
}

// SetLegacyDocument chooses the form of the DID document: the older form, or the form with
// Multikey.
func (a *Account) SetLegacyDocument(legacy bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.legacy = legacy
}
