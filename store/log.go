package store

import (
	"context"
	"errors"
	"fmt"

	"cistern/filter"
	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
)

// ReadLog calls fn for the events from id cursor on, in order, until about maxEvents ids are passed
// or the durable head is reached, and returns the id to continue from. A page may also end between
// events that are in memory and events that are not. It serves replay and tail alike. Cursor 0
// means the oldest event kept. Events of hidden and of wiped accounts keep their ids and are
// skipped; of a dropped repository only deletes are passed to fn. If the state that hides an event
// is not durable yet, the page ends before the event, and Changed is closed when a reader may pass
// it. The error is ErrCorrupt if a body is missing above the tail, ErrFutureCursor for a cursor
// above head+1, and ErrOutdatedCursor for a cursor below the tail.
func (s *Store) ReadLog(
	ctx context.Context, cursor uint64, maxEvents int, fn func(*Event) error,
) (next uint64, err error) {
	return s.readEvents(ctx, cursor, maxEvents, logReader{fn: fn})
}

// ReadLogBodies is ReadLog for readers that need no CIDs: an event may lack the one of its record,
// which costs a hash of the body.
func (s *Store) ReadLogBodies(
	ctx context.Context, cursor uint64, maxEvents int, fn func(*Event) error,
) (next uint64, err error) {
	return s.readEvents(ctx, cursor, maxEvents, logReader{fn: fn, bodies: true})
}

// readEvents reads the log with a reader that has its fn.
func (s *Store) readEvents(
	ctx context.Context, cursor uint64, maxEvents int, r logReader,
) (next uint64, err error) {
	head := s.Head()
	if cursor >= s.Tail() && cursor <= head {
		if next, ok, err := s.recent.read(ctx, cursor, head, maxEvents, r.fn); ok {
			return next, err
		}
	}
	return s.readLog(ctx, cursor, head, maxEvents, r)
}

// SkipUnwanted returns the first id from cursor on whose event f may want, by its kind, or as one
// of the firehose: after an import there may be 100,000 events of it in a row. It does not read the
// log, and knows only of the newest events.
func (s *Store) SkipUnwanted(f *filter.Events, cursor uint64) uint64 {
	if cursor < s.Tail() {
		return cursor // which ReadLog refuses
	}
	return s.recent.skip(f, cursor, s.Head())
}

// readLog is readEvents from the engine.
func (s *Store) readLog(
	ctx context.Context, cursor, head uint64, maxEvents int, r logReader,
) (next uint64, err error) {
	return s.readFrom(cursor, head, func(v view, cursor, head uint64) (uint64, error) {
		r.s, r.view, r.head, r.next, r.left = s, v, head, cursor, maxEvents
		err := r.run(ctx)
		return r.next, err
	})
}

// readFrom calls read with a view of the database, if the log has the cursor and events from it on,
// and returns the id to continue from.
func (s *Store) readFrom(
	cursor, head uint64, read func(v view, cursor, head uint64) (next uint64, err error),
) (next uint64, err error) {
	// The view is taken before the tail is read: pruning first moves the tail and then deletes, so
	// the view has all events from the tail on.
	v, err := s.view()
	if err != nil {
		return cursor, err
	}
	tail := s.Tail()
	head = max(head, tail-1) // the log may have grown and been pruned since head was read
	if cursor == 0 {
		cursor = tail
	}
	switch {
	case cursor > head+1:
		err = fmt.Errorf("%w: %d, the head is %d", ErrFutureCursor, cursor, head)
	case cursor < tail:
		err = fmt.Errorf("%w: %d, the oldest is %d", ErrOutdatedCursor, cursor, tail)
	case cursor <= head:
		cursor, err = read(v, cursor, head)
	}
	return cursor, errors.Join(err, v.close())
}

// logReader expands entries of the log into events.
type logReader struct {
	s    *Store
	view reader
	head uint64
	next uint64 // next id to pass
	left int    // ids still to pass
	end  uint64 // of the entry that was read last
	// stopped means that the page ends before an entry that must not be passed yet.
	stopped bool
	// hidden has events of hidden accounts passed too. ordinal and commit are those of the entry.
	hidden  bool
	ordinal Ordinal
	commit  bool
	bodies  bool // without CIDs
	fn      func(*Event) error
	ev      Event
}

func (r *logReader) run(ctx context.Context) error {
	it, err := r.view.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceEvent},
		UpperBound: spaceEnd(spaceEvent)})
	if err != nil {
		return engineError(err)
	}
	// The entry that holds the cursor starts at or before it.
	for ok := it.SeekLT(eventKey(nil, r.next+1)); ok && !r.stopped && r.left > 0 &&
		r.next <= r.head; ok = it.Next() {
		if err = ctx.Err(); err != nil {
			break
		}
		if err = r.entry(it.Key(), it.Value()); err != nil {
			break
		}
	}
	if err == nil && it.Error() == nil && !r.stopped && r.left > 0 && r.next <= r.head {
		err = fmt.Errorf("event %d is missing, the head is %d: %w", r.next, r.head, ErrCorrupt)
	}
	return errors.Join(err, engineError(it.Close()))
}

// entry expands the part of one row that is at or after next.
func (r *logReader) entry(key, value []byte) error {
	id, err := parseEventKey(key)
	if err != nil {
		return err
	}
	var e entryV1
	if err := r.s.codec.decode(value, &e); err != nil {
		return fmt.Errorf("event %d: %w", id, err)
	}
	end := id + e.ids()
	r.end = end
	if end <= r.next {
		return nil
	}
	if id > r.next {
		return fmt.Errorf("event %d is missing before %d: %w", r.next, id, ErrCorrupt)
	}
	if r.ev.DID, err = parseDID(e.DID); err != nil {
		return err
	}
	r.ev = Event{DID: r.ev.DID, Live: e.Live, Rev: e.Rev, Status: e.Status,
		Handle: e.Handle, PDS: e.PDS}
	switch e.Kind {
	case entryRepo:
		e.repoEvent(&r.ev)
		return r.give(id, e.Time)
	case entryAccount, entryIdentity:
		r.ev.Kind = KindAccount
		if e.Kind == entryIdentity {
			r.ev.Kind = KindIdentity
		}
		return r.give(id, e.Time)
	}
	g, err := r.gate(&e)
	if err != nil {
		return err
	}
	if g != gateOpen && r.s.unsettled.holds(r.ev.DID) {
		// A crash may lose the state that hides the entry. The entry would then be shown again,
		// below the position from which the reader continues.
		r.stopped = true
		return nil
	}
	if g == gateClosed {
		r.left -= int(min(end-r.next, uint64(r.left)))
		r.next = end
		return nil
	}
	r.ev.Kind = KindRecord
	r.ordinal, r.commit = e.Ordinal, e.Kind == entryCommit
	if e.listed() {
		return r.listing(id, &e)
	}
	return r.ops(id, &e, g == gateDeletions)
}

// gate decides how much of an entry of record events is shown.
type gate uint8

const (
	gateClosed gate = iota
	gateDeletions
	gateOpen
)

// gate returns how much of an entry is shown. Its records are shown while the account is shown and
// the repository still has the ordinal of the entry. Of a dropped repository only the deletes of
// the drop are shown; if it is tracked again, it has another ordinal.
func (r *logReader) gate(e *entryV1) (gate, error) {
	row, err := r.s.loadRepo(r.view, r.ev.DID)
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return gateClosed, err
	case err == nil && row.Ordinal == e.Ordinal && (r.hidden || !row.Status.Hidden()):
		return gateOpen, nil
	case err == nil && row.Ordinal == e.Ordinal || e.Kind != entryCommit:
		return gateClosed, nil
	}
	if dropped, err := holds(r.view, ordinalKey(nil, spaceDropped, e.Ordinal)); err != nil ||
		!dropped {
		return gateClosed, err
	}
	return gateDeletions, nil
}

// give passes the event with that id to fn.
func (r *logReader) give(id uint64, entryTime int64) error {
	r.ev.ID, r.ev.Time = id, entryTime
	r.next = id + 1
	r.left--
	return r.fn(&r.ev)
}

// ops expands a commit's entry, or only its deletes.
func (r *logReader) ops(id uint64, e *entryV1, deletions bool) error {
	blocks, err := r.blocks(e.Ordinal)
	if err != nil {
		return err
	}
	for i := int(r.next - id); i < len(e.Ops) && r.left > 0 && err == nil; i++ {
		op := &e.Ops[i]
		if deletions && op.Action != Delete {
			r.next++
			r.left--
			continue
		}
		err = r.op(id+uint64(i), e.Time+int64(i), op.Action, op.Path, op.Block, blocks)
	}
	return errors.Join(err, engineError(blocks.it.Close()))
}

// listing expands an entry whose ops are in listing rows.
func (r *logReader) listing(id uint64, e *entryV1) error {
	lower, upper := e.listing()
	rows, err := r.view.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return engineError(err)
	}
	blocks, err := r.blocks(e.Ordinal)
	if err != nil {
		return errors.Join(err, rows.Close())
	}
	end := id + uint64(e.Count)
	for ok := rows.SeekLT(numberedKey(nil, spaceListing, e.Ordinal,
		e.First+uint32(r.next-id)+1)); ok && r.left > 0 && err == nil; ok = rows.Next() {
		err = r.listingRow(id, e, rows, blocks)
	}
	if err == nil && r.left > 0 && r.next != end {
		err = fmt.Errorf("listing of ordinal %d ends at event %d of %d: %w",
			e.Ordinal, r.next, end, ErrCorrupt)
	}
	return errors.Join(err, engineError(blocks.it.Close()), engineError(rows.Close()))
}

func (r *logReader) listingRow(
	id uint64, e *entryV1, rows *pebble.Iterator, blocks *blockCursor,
) error {
	_, n, err := parseNumberedKey(spaceListing, rows.Key())
	if err != nil {
		return err
	}
	l, err := newListingReader(rows.Value())
	if err != nil {
		return err
	}
	for at := id + uint64(n-e.First); r.left > 0; at++ {
		ok, err := l.next()
		if err != nil || !ok {
			return err
		}
		if at < r.next {
			continue
		}
		if at != r.next {
			return fmt.Errorf("listing of ordinal %d lacks event %d: %w", e.Ordinal, r.next, ErrCorrupt)
		}
		if err := r.op(at, e.Time+int64(at-id), Create, l.op.path, l.op.block, blocks); err != nil {
			return err
		}
	}
	return nil
}

// op passes one record event to fn.
func (r *logReader) op(
	id uint64, t int64, action Action, path []byte, block uint32, blocks *blockCursor,
) error {
	ev := &r.ev
	ev.Action, ev.CID, ev.Record = action, repo.CID{}, nil
	collection, rkey, ok := repo.SplitPath(path)
	if !ok {
		return fmt.Errorf("event %d names path %q: %w", id, path, ErrCorrupt)
	}
	ev.Collection, ev.Rkey = collection, rkey
	if action != Delete {
		body, err := blocks.get(block)
		if err != nil {
			return fmt.Errorf("event %d: %w", id, err)
		}
		if ev.Record = body; !r.bodies {
			ev.CID = repo.HashCID(body)
		}
	}
	return r.give(id, t)
}

// blockCursor reads blocks of one repository, which are mostly requested in rising or falling
// order.
type blockCursor struct {
	it      *pebble.Iterator
	ordinal Ordinal
	at      int64 // number of the block at the iterator, -1 at first
	key     []byte
}

func (r *logReader) blocks(o Ordinal) (*blockCursor, error) { return newBlockCursor(r.view, o) }

func newBlockCursor(r reader, o Ordinal) (*blockCursor, error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: ordinalKey(nil, spaceBlock, o),
		UpperBound: ordinalKey(nil, spaceBlock, o+1)})
	return &blockCursor{it: it, ordinal: o, at: -1}, engineError(err)
}

// get returns the body of a block, valid until the next call.
func (c *blockCursor) get(block uint32) ([]byte, error) {
	ok := true
	switch {
	case c.at == int64(block):
	case c.at >= 0 && c.at+1 == int64(block):
		ok = c.it.Next()
	case c.at == int64(block)+1:
		ok = c.it.Prev()
	default:
		c.key = numberedKey(c.key[:0], spaceBlock, c.ordinal, block)
		ok = c.it.SeekGE(c.key)
	}
	if ok {
		_, n, err := parseNumberedKey(spaceBlock, c.it.Key())
		if err != nil {
			return nil, err
		}
		ok = n == block
	}
	if !ok {
		c.at = -1
		if err := c.it.Error(); err != nil {
			return nil, engineError(err)
		}
		return nil, fmt.Errorf("block %d of ordinal %d is missing: %w", block, c.ordinal, ErrCorrupt)
	}
	c.at = int64(block)
	return c.it.Value(), nil
}
