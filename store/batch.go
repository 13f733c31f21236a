package store

import (
	"bytes"
	"errors"
	"strings"

	"cistern/ingest/repo"
)

// Batch writes everything about repositories, events and control rows. It gathers what one change
// touches, and Commit writes it atomically. Other code writes only rows that no row names yet
// (sink.go, import.go, relist.go) or any more (collect.go), ids and statistics of hosts (host.go,
// hostrow.go), the reserve of enqueue ids (pending.go), ages (retention.go) and the format;
// TestEngineBatches lists it.
//
// The goroutine that holds a repository's lock adds the changes of that repository. A batch is not
// for concurrent use. Commit returns the first error of adding a change.
type Batch struct {
	control
	deltas     counts
	entries    []entry
	superseded []supersededBlock
	// references written by this batch; reads of the store do not see them
	refs        map[numbered]int64
	touched     map[Ordinal]bool      // repositories that Apply was called for
	enqueued    []uint64              // enqueue ids to settle
	due         int64                 // earliest retry added, or noDue
	buffers     map[string]buffered   // new state of the buffers of some repositories
	bufferBytes int64                 // change of the bytes buffered for all repositories
	rows        []Repo                // as PutRepo wrote them
	hosts       map[uint32]hostChange // each of them is pinned
	dropped     []droppedRepo
	gated       []string            // DIDs of the repositories whose events this batch hides
	abandoned   []Ordinal           // ordinals whose bulk rows the collector deletes
	counts      []collectionCounted // as Apply left them
	census      census
	inside      bool // the caller has passed enterWrites
	impatient   bool // does not wait until the store is thawed

	changes []collectionChange // of the current Apply
	logged  []Op               // ops of the current Apply that its entry lists
	value   []byte             // scratch
	row     bytes.Buffer
	path    []byte // key of the current record
	rev     []byte // rev of the current record
}

type entry struct {
	entryV1
	id          uint64
	events      []Event           // for readers at the head, or nil: see recent
	collections []collectionCount // of a listing, in its order
	arrivals    []arrival
}

// NewBatch starts an empty batch. It must be committed or discarded.
func (s *Store) NewBatch() *Batch {
	w := writer{s: s, b: s.db.NewBatch(), key: make([]byte, 0, 64)}
	b := &Batch{control: control{writer: w}, due: noDue}
	b.census.b = b
	return b
}

// Discard drops a batch that is not to be committed.
func (b *Batch) Discard() {
	b.s.queue.settle(b.enqueued)
	b.unpin()
	b.census.release()
	b.fail(b.b.Close())
}

// Bytes returns the approximate memory that the batch takes until its wait returns.
func (b *Batch) Bytes() int64 {
	n := int64(b.b.Len())
	for i := range b.entries {
		for j := range b.entries[i].Ops {
			n += int64(len(b.entries[i].Ops[j].Path)) + opBytes
		}
	}
	return n + int64(len(b.superseded)+len(b.refs))*opBytes
}

// opBytes is the approximate size of an op, a superseded block or a reference, in memory (without
// the path) and on disk.
const opBytes = 64

// Empty reports whether nothing was added to the batch.
func (b *Batch) Empty() bool {
	return b.err == nil && b.b.Empty() && len(b.entries) == 0 && len(b.cursors) == 0
}

// Commit applies the batch: reads see it when Commit returns. The caller must call wait, which
// returns when the batch is durable. Only then may the change be reported to the outside.
func (b *Batch) Commit() (wait func() error, err error) {
	defer b.s.queue.settle(b.enqueued)
	defer b.unpin()
	defer b.census.release()
	if b.err != nil {
		return nil, errors.Join(b.err, b.b.Close())
	}
	return b.s.commit(b)
}

// CommitSync commits the batch and waits until it is durable.
func (b *Batch) CommitSync() error {
	wait, err := b.Commit()
	if err != nil {
		return err
	}
	return wait()
}

// CommitUnlessFrozen is like CommitSync, but does not wait for a frozen store: then nothing is
// written, and the error is ErrFrozen.
func (b *Batch) CommitUnlessFrozen() error {
	b.impatient = true
	return b.CommitSync()
}

// PutRepo writes r's row, moves the gauges by the difference to the row as it was loaded, and
// updates the owner, pending and retry rows. A repository that becomes pending, or changes host or
// priority in the queue, goes to the end of its queue. The batch fails if no transition
// (transition.go) leaves a row like r. If the host of r has lost its id, PutRepo sets
// r.Pending.Host to 0: the host is unknown and is resolved again.
func (b *Batch) PutRepo(r *Repo) {
	if b.checkTransition(r); b.err == nil {
		b.putRepo(r)
	}
}

func (b *Batch) putRepo(r *Repo) {
	// Hosts choose part of this text, and the cut may split a character.
	r.Retry.Error = strings.ToValidUTF8(r.Retry.Error[:min(len(r.Retry.Error), ErrorBytesMax)], "")
	b.settleBuffer(r)
	old := r.loaded
	named := old.exists && old.pending.Host == r.Pending.Host &&
		(old.queued() || r.State != StatePending)
	if r.Pending.Host != 0 && !named {
		r.Pending.Host = b.pinHost(r.Pending.Host)
	}
	b.enqueue(r, old)
	b.tell(r, r.condition())
	r.Updated = b.s.now().Unix()
	now := r.rowState()
	b.move(r.DID, old, now)
	b.fail(b.s.codec.encodeTo(&b.row, r))
	b.set(repoKey(b.key[:0], r.DID), b.row.Bytes())
	r.loaded, r.reached = now, stateUnknown
	row := *r
	row.Commit = bytes.Clone(r.Commit) // r.Commit may be part of a buffer of the caller
	b.rows = append(b.rows, row)
}

// move updates the rows and counters that derive from a row: indexes, gauges and counts.
func (b *Batch) move(did string, old, now rowState) {
	if old.queued() && (!now.queued() || old.pending != now.pending) {
		b.delete(pendingKey(b.key[:0], old.pending))
	}
	if now.queued() && (!old.queued() || old.pending != now.pending) {
		b.set(pendingKey(b.key[:0], now.pending), appendDID(nil, did))
	}
	if old.due != 0 && old.due != now.due {
		b.delete(retryKey(b.key[:0], old.due, did))
	}
	if now.due != 0 && old.due != now.due {
		b.set(retryKey(b.key[:0], now.due, did), nil)
		b.due = min(b.due, now.due)
	}
	if old.ordinal != 0 && old.ordinal != now.ordinal {
		b.delete(ordinalKey(b.key[:0], spaceOwner, old.ordinal))
	}
	if now.ordinal != 0 && old.ordinal != now.ordinal {
		b.set(ordinalKey(b.key[:0], spaceOwner, now.ordinal), appendDID(nil, did))
	}
	b.deltas.move(old, now)
	b.census.move(old, now)
	b.moveHost(old, now)
	if gates(old, now) {
		b.gated = append(b.gated, did)
	}
}

// enqueue assigns a place to a row that enters a queue. Enqueue ids are always fresh: the
// remembered front of a queue relies on that.
func (b *Batch) enqueue(r *Repo, old rowState) {
	if r.State != StatePending {
		r.Pending.Enqueue = 0
		return
	}
	if old.queued() && old.pending.Host == r.Pending.Host &&
		old.pending.Priority == r.Pending.Priority {
		r.Pending.Enqueue = old.pending.Enqueue
		return
	}
	id, err := b.s.nextEnqueue()
	b.fail(err)
	r.Pending.Enqueue = id
	b.enqueued = append(b.enqueued, id)
}

func (r rowState) queued() bool { return r.exists && r.state == StatePending }

// Wipe removes all data of a repository. Its collections are deleted at once. Its records, blocks,
// refs and listings become unreachable at once, and the collector deletes them some seconds later.
// The row stays, with its identity and status; the caller sets its state and writes it by PutRepo.
// Events of its records are no longer shown. Wipe must not follow Apply in the same batch.
func (b *Batch) Wipe(r *Repo) error {
	if r.Ordinal != 0 {
		if _, err := b.census.drop(r.Ordinal); err != nil {
			return err
		}
		b.abandon(r.Ordinal)
	}
	r.Attempt++
	r.Ordinal, r.NextBlock, r.Records, r.Blocks = 0, 0, 0, 0
	r.Listed, r.Hidden, r.Collections, r.Shelved, r.Lapsed = 0, 0, 0, 0, 0
	r.Filter, r.Sweep, r.Lacks = 0, false, false
	r.Rev, r.Data, r.Commit, r.Torn, r.TornRev = "", repo.CID{}, nil, false, ""
	return b.err
}

// Account adds an account event with r's status and handle to the log.
func (b *Batch) Account(r *Repo) {
	b.entries = append(b.entries, entry{
		entryV1: entryV1{Kind: entryAccount, DID: appendDID(nil, r.DID), Status: r.Status,
			Handle: r.Handle},
		events: []Event{{Kind: KindAccount, DID: r.DID, Status: r.Status, Handle: r.Handle}},
	})
}

// Identity adds an identity event with r's status, handle and PDS to the log.
func (b *Batch) Identity(r *Repo) {
	b.entries = append(b.entries, entry{
		entryV1: entryV1{Kind: entryIdentity, DID: appendDID(nil, r.DID), Status: r.Status,
			Handle: r.Handle, PDS: r.PDS},
		events: []Event{{Kind: KindIdentity, DID: r.DID, Status: r.Status, Handle: r.Handle,
			PDS: r.PDS}},
	})
}
