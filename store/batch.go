package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
)

// Batch is the only writer of rows. It gathers everything that one change touches, and Commit
// writes it atomically. The goroutine that holds a repository's lock adds the changes of that
// repository. A batch is not for concurrent use. Commit returns the first error that adding a
// change had.
type Batch struct {
	s          *Store
	b          *pebble.Batch
	deltas     counts
	entries    []entry
	superseded []supersededBlock
	// references written by this batch; reads of the store do not see them
	refs        map[numbered]int64
	touched     map[Ordinal]bool // repositories that Apply was called for
	enqueued    []uint64         // enqueue ids to settle
	due         int64            // earliest retry added, or noDue
	cursors     []cursorMark
	buffers     map[string]buffered   // new state of the buffers of some repositories
	bufferBytes int64                 // change of the bytes buffered for all repositories
	rows        []Repo                // as PutRepo wrote them
	hosts       map[uint32]hostChange // each of them is pinned
	unsourced   bool                  // the batch drops a source
	dropped     []droppedRepo
	gated       []string            // DIDs of the repositories whose events this batch hides
	abandoned   []Ordinal           // ordinals whose bulk rows are left to the collector
	counts      []collectionCounted // as Apply left them
	err         error

	changes []collectionChange // of the current Apply
	told    []Op               // ops of the current Apply that its entry tells
	key     []byte             // scratch for keys and values
	value   []byte
	row     bytes.Buffer
	path    []byte // key of the current record
	rev     []byte // and its rev
}

type entry struct {
	entryV1
	id     uint64
	events []Event // for readers at the head, or nil: see recent
}

// supersededBlock is a block whose last reference was removed by an entry of the batch, or between
// entries.
type supersededBlock struct {
	entry   int
	ordinal Ordinal
	block   uint32
}

type numbered struct {
	ordinal Ordinal
	block   uint32
}

// Op is one record operation for Batch.Apply.
type Op struct {
	Path   []byte   // MST key
	CID    repo.CID // zero deletes the record
	Record []byte   // DAG-CBOR, hashed to CID by the caller
	// Keep leaves the record as it is, and only has it shown or shelved as the repository's filter
	// requires. CID and Record are ignored. If no record is stored under Path, nothing happens.
	Keep bool
	// New states that no record is stored under Path, as the proof of a verified commit shows,
	// which saves a read. If that is wrong, the store is damaged.
	New bool
}

// NewBatch starts an empty batch. It must be committed or discarded.
func (s *Store) NewBatch() *Batch {
	return &Batch{s: s, b: s.db.NewBatch(), key: make([]byte, 0, 64), due: noDue}
}

// Discard drops a batch that is not to be committed.
func (b *Batch) Discard() {
	b.s.queue.settle(b.enqueued)
	b.unpin()
	b.fail(b.b.Close())
}

// Bytes returns about how much memory the batch takes until its wait returns.
func (b *Batch) Bytes() int64 {
	n := int64(b.b.Len())
	for i := range b.entries {
		for j := range b.entries[i].Ops {
			n += int64(len(b.entries[i].Ops[j].Path)) + opBytes
		}
	}
	return n + int64(len(b.superseded)+len(b.refs))*opBytes
}

// opBytes is about the size of an op, a superseded block or a reference, in memory (without the
// path) and on disk.
const opBytes = 64

// Empty reports whether nothing was added to the batch.
func (b *Batch) Empty() bool {
	return b.err == nil && b.b.Empty() && len(b.entries) == 0 && len(b.cursors) == 0
}

// Commit applies the batch: reads see it when Commit returns. The caller must call wait, which
// returns when the batch is durable. Only then may the change be reported to anyone outside.
func (b *Batch) Commit() (wait func() error, err error) {
	defer b.s.queue.settle(b.enqueued)
	defer b.unpin()
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

func (b *Batch) fail(err error) {
	if b.err == nil && err != nil {
		b.err = err
	}
}

func (b *Batch) set(key, value []byte) { b.fail(b.b.Set(key, value, nil)) }
func (b *Batch) delete(key []byte)     { b.fail(b.b.Delete(key, nil)) }

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
	// Hosts choose part of this text, and the cut may fall inside a character.
	r.Retry.Error = strings.ToValidUTF8(r.Retry.Error[:min(len(r.Retry.Error), ErrorBytesMax)], "")
	b.settleBuffer(r)
	old := r.loaded
	named := old.exists && old.pending.Host == r.Pending.Host && (old.queued() || r.State != StatePending)
	if r.Pending.Host != 0 && !named {
		r.Pending.Host = b.pinHost(r.Pending.Host)
	}
	b.enqueue(r, old)
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

// move updates everything that derives from a row: indexes, gauges and counts.
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
	if old.queued() && old.pending.Host == r.Pending.Host && old.pending.Priority == r.Pending.Priority {
		r.Pending.Enqueue = old.pending.Enqueue
		return
	}
	id, err := b.s.nextEnqueue()
	b.fail(err)
	r.Pending.Enqueue = id
	b.enqueued = append(b.enqueued, id)
}

func (r rowState) queued() bool { return r.exists && r.state == StatePending }

// Apply writes the difference that one commit (or one part of a resync) makes to r's records, as
// one entry of the log. The action of each op follows from what is stored and shown: a write to a
// path that is shown is an update, and to any other path a create; a delete of an unknown path and
// a write of the same CID do nothing. The filter that r names decides what is kept: a record that
// it does not want is left out, or shelved, and gets a delete event if it was shown. Paths must be
// unique within a batch. Changes of a hidden account have no events: when the account is shown
// again, all its records are listed again. Apply changes the counts in r; the caller writes r by
// PutRepo.
func (b *Batch) Apply(r *Repo, live bool, rev string, ops []Op) error {
	if r.Ordinal == 0 {
		return fmt.Errorf("apply %s: the repository was never imported", r.DID)
	}
	if len(ops) > entryOpsMax {
		return fmt.Errorf("apply %s: %d ops are more than %d", r.DID, len(ops), entryOpsMax)
	}
	if b.touched[r.Ordinal] {
		return fmt.Errorf("apply %s twice in one batch: the second would not see the first", r.DID)
	}
	f, err := b.s.FilterAt(r.Filter)
	if err != nil {
		return fmt.Errorf("apply %s: %w", r.DID, err)
	}
	if b.touched == nil {
		b.touched = map[Ordinal]bool{}
	}
	b.touched[r.Ordinal] = true
	e := entryV1{Kind: entryCommit, DID: appendDID(nil, r.DID), Live: live, Rev: rev, Ordinal: r.Ordinal, Ops: make([]entryOp, 0, len(ops))}
	b.changes, b.told = b.changes[:0], b.told[:0]
	for i := range ops {
		if err := b.applyOp(r, f, &e, rev, &ops[i]); err != nil {
			return fmt.Errorf("apply %s of %s: %w", ops[i].Path, r.DID, err)
		}
	}
	for _, c := range b.changes {
		if err := b.addCollection(r, c.collection, c.d); err != nil {
			return err
		}
	}
	if len(e.Ops) > 0 && !r.Status.Hidden() {
		b.entries = append(b.entries, entry{entryV1: e, events: b.s.recent.keep(r.DID, &e, b.told)})
	}
	return b.err
}

// collectionChange is the number of records that an Apply adds to a collection.
type collectionChange struct {
	collection []byte
	d          int64
}

// changed adds d records to the change of a collection. The ops of a large Apply are mostly in path
// order.
func (b *Batch) changed(collection []byte, d int64) {
	for i := len(b.changes) - 1; i >= 0; i-- {
		if c := &b.changes[i]; bytes.Equal(c.collection, collection) {
			c.d += d
			return
		}
	}
	b.changes = append(b.changes, collectionChange{collection, d})
}

// unref removes one reference from a block. A block without references is superseded at the entry.
func (b *Batch) unref(r *Repo, block uint32, entry int) error {
	at := numbered{r.Ordinal, block}
	n, known := b.refs[at]
	if !known {
		var err error
		if n, err = b.s.refs(b.s.db, r.Ordinal, block); err != nil {
			return err
		}
	}
	if b.refs == nil {
		b.refs = map[numbered]int64{}
	}
	n--
	b.refs[at] = n
	key := numberedKey(b.key[:0], spaceRef, r.Ordinal, block)
	switch {
	case n > 1:
		b.set(key, binary.AppendUvarint(nil, uint64(n)))
	case n == 1:
		b.delete(key)
	case n == 0:
		b.superseded = append(b.superseded, supersededBlock{entry, r.Ordinal, block})
	default:
		return fmt.Errorf("block %d of %s has %d references: %w", block, r.DID, n, ErrCorrupt)
	}
	return nil
}

// refs returns how many record rows refer to a block. No row means one.
func (s *Store) refs(rd reader, o Ordinal, block uint32) (int64, error) {
	n := int64(1)
	err := get(rd, numberedKey(nil, spaceRef, o, block), func(v []byte) (err error) {
		n, err = parseCountValue(v)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return n, err
}

func parseCountValue(v []byte) (int64, error) {
	n, size := binary.Uvarint(v)
	if size <= 0 || size != len(v) || n == 0 || n > 1<<62 {
		return 0, fmt.Errorf("count %x: %w", v, ErrCorrupt)
	}
	return int64(n), nil
}

func (b *Batch) addCollection(r *Repo, collection []byte, d int64) error {
	if d == 0 {
		return nil
	}
	key := collectionKey(b.key[:0], collection, r.Ordinal)
	c := collectionOf{r.Ordinal, string(collection)}
	n, ok := b.s.caches.counts.get(c)
	if !ok {
		err := get(b.s.db, key, func(v []byte) (err error) {
			n, err = parseCountValue(v)
			return err
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	b.counts = append(b.counts, collectionCounted{c, n + d})
	switch was := n; {
	case was+d < 0:
		return fmt.Errorf("collection %s of ordinal %d would hold %d records: %w", collection, r.Ordinal, was+d, ErrCorrupt)
	case was+d == 0:
		b.delete(key)
		b.deltas[countCollections]--
		r.Collections--
	default:
		b.value = binary.AppendUvarint(b.value[:0], uint64(was+d))
		b.set(key, b.value)
		if was == 0 {
			b.deltas[countCollections]++
			r.Collections++
		}
	}
	return b.err
}

// Wipe removes all data of a repository. Its collections go at once. Its records, blocks, refs and
// listings are unreachable from then on, and the collector deletes them some seconds later. The row
// stays, with its identity and status; the caller sets its state and writes it by PutRepo. Events
// that named its records no longer expand. Wipe must not follow Apply in the same batch.
func (b *Batch) Wipe(r *Repo) error {
	if r.Ordinal != 0 {
		collections, err := b.s.Collections(r)
		if err != nil {
			return err
		}
		for _, c := range collections {
			b.delete(collectionKey(b.key[:0], []byte(c), r.Ordinal))
		}
		b.deltas[countCollections] -= int64(len(collections))
		b.abandon(r.Ordinal)
	}
	r.Attempt++
	r.Ordinal, r.NextBlock, r.Records, r.Blocks = 0, 0, 0, 0
	r.Listed, r.Hidden, r.Collections, r.Shelved = 0, 0, 0, 0
	r.Filter, r.Sweep, r.Lacks = 0, false, false
	r.Rev, r.Data, r.Commit, r.Torn, r.TornRev = "", repo.CID{}, nil, false, ""
	return b.err
}

// Account adds an account event with r's status to the log.
func (b *Batch) Account(r *Repo) {
	b.entries = append(b.entries, entry{
		entryV1: entryV1{Kind: entryAccount, DID: appendDID(nil, r.DID), Status: r.Status},
		events:  []Event{{Kind: KindAccount, DID: r.DID, Status: r.Status}},
	})
}

// Identity adds an identity event with r's handle and PDS to the log.
func (b *Batch) Identity(r *Repo) {
	b.entries = append(b.entries, entry{
		entryV1: entryV1{Kind: entryIdentity, DID: appendDID(nil, r.DID), Handle: r.Handle, PDS: r.PDS},
		events:  []Event{{Kind: KindIdentity, DID: r.DID, Handle: r.Handle, PDS: r.PDS}},
	})
}
