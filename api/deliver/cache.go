package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cistern/api/deliver/format"
	"cistern/filter"
	"cistern/store"

	"golang.org/x/sync/semaphore"
)

// Log is the event log that streams read. Its methods may be called by any goroutine.
type Log interface {
	// ReadLog calls fn for the visible events from id cursor on (0: the oldest kept), in order,
	// until about maxEvents ids are passed or the head is reached, and returns the next cursor, at
	// most Head+1. With maxEvents 0 it only checks the cursor. If the cursor is outside the log,
	// the error is store.ErrFutureCursor or store.ErrOutdatedCursor. An error of fn ends the
	// reading and is returned. Events are valid during the call.
	ReadLog(ctx context.Context, cursor uint64, maxEvents int,
		fn func(*store.Event) error) (next uint64, err error)
	// ReadLogSparse is ReadLog without the events that f does not want by their kind or
	// collection, at a cost in proportion to the others.
	ReadLogSparse(ctx context.Context, f *filter.Events, cursor uint64, maxEvents int,
		fn func(*store.Event) error) (next uint64, err error)
	// SkipUnwanted returns the first id from cursor on whose event f may want, by its kind, or as
	// one of the firehose, at most Head+1. It does not read the log, and may know too little.
	SkipUnwanted(f *filter.Events, cursor uint64) uint64
	// Head returns the newest id that readers may see.
	Head() uint64
	// Changed returns a channel that is closed when Head moves after the call.
	Changed() <-chan struct{}
	// FirstSince returns the id of the first event kept whose time, in unix microseconds, is t or
	// later, visible or not; Head+1 if all events are older.
	FirstSince(t int64) (id uint64, err error)
}

// errPageFull ends the reading of a page.
var errPageFull = errors.New("page is full")

// pages reads the log page by page, each page once for all streams at the same id.
type pages struct {
	log       Log
	pageBytes int
	pageIDs   int
	bytesMax  int
	// readers is acquired for each page being read or encoded, and atHead for each that begins near
	// the head: it must not wait for streams that replay the log. archived is acquired for each page
	// that isArchived says is read from an archive, which is slow.
	readers, atHead, archived *semaphore.Weighted
	isArchived                func(id uint64) bool
	metrics                   *metrics

	mu     sync.Mutex
	byID   map[uint64]*sharedPage // mu guards
	recent []*sharedPage          // mu guards: finished pages of byID, oldest first
	bytes  int                    // mu guards: size of the pages in recent
	// streams is how many streams read pages. Without any, no page is kept. mu guards.
	streams int
}

// enter counts a stream.
func (p *pages) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams++
}

// leave ends the count of a stream.
func (p *pages) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams--
	p.drop(time.Now())
}

// sharedPage is a page that is being read, or was read.
type sharedPage struct {
	page
	id    uint64
	born  time.Time
	turns *semaphore.Weighted // readers, atHead or archived
	ready chan struct{}       // closed when the page or err is final
	err   error

	// pages.mu guards:
	kept  bool // in recent
	bytes int  // of the page and its encodings
}

// wanted returns a page that begins at id cursor and has at least the events that a filter wants.
// If the next events come from a backfill and the filter wants live events only, the page is empty
// and ends behind them: a live event must not wait until 100,000 imported records were read.
// Far from the head, a filter by collection has pages of its own, which cost in proportion to the
// collections. No other stream shares them: streams that replay the log are rarely at the same id.
func (p *pages) wanted(ctx context.Context, cursor uint64, f *filter.Events) (*sharedPage, error) {
	if f.LiveOnly() {
		if next := p.log.SkipUnwanted(f, cursor); next > cursor {
			return &sharedPage{page: page{next: next}}, nil
		}
	}
	if !f.Sparse() || cursor+sparseIDs > p.log.Head() {
		return p.read(ctx, cursor)
	}
	pg := &sharedPage{id: cursor, turns: p.turnsAt(cursor)}
	return pg, p.fillBy(ctx, pg, p.pageIDs,
		func(ctx context.Context, cursor uint64, ids int, fn func(*store.Event) error) (uint64, error) {
			return p.log.ReadLogSparse(ctx, f, cursor, ids, fn)
		})
}

// read returns the page that begins at id cursor. At the head it is empty, with next = cursor.
func (p *pages) read(ctx context.Context, cursor uint64) (*sharedPage, error) {
	if cursor > p.log.Head() {
		return &sharedPage{page: page{next: cursor}}, nil
	}
	for again := false; ; {
		pg, mine := p.claim(cursor)
		if mine {
			pg.err = p.fill(ctx, pg, p.pageIDs)
			p.finish(pg)
			return pg, pg.err
		}
		select {
		case <-pg.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case pg.err != nil:
		case pg.next > cursor || again:
			p.metrics.shared.Inc()
			return pg, nil
		default:
			// Readers must not pass the next entry yet. But the page may be older than this call,
			// and the change that lets them pass too: its caller would wait for another one.
			again = true
			continue
		}
		if ctx.Err() != nil || !errors.Is(pg.err, context.Canceled) {
			return nil, pg.err
		}
		// The subscriber that read the page went away: a waiting subscriber reads it.
	}
}

// claim returns the page at id, and whether the caller has to read it.
func (p *pages) claim(id uint64) (pg *sharedPage, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.drop(now)
	if pg := p.byID[id]; pg != nil && now.Sub(pg.born) < sharedAge {
		return pg, false
	}
	pg = &sharedPage{id: id, born: now, turns: p.turnsAt(id), ready: make(chan struct{})}
	p.byID[id] = pg
	return pg, true
}

// rest returns the page that begins at id if it is kept, and has ids from cursor on, which is at or
// behind id. Otherwise it returns nil.
func (p *pages) rest(id, cursor uint64) *sharedPage {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(time.Now())
	if pg := p.byID[id]; pg != nil && pg.kept && pg.next > cursor {
		return pg
	}
	return nil
}

// finish publishes a claimed page, and keeps it as long as Options.SharedBytes allows.
func (p *pages) finish(pg *sharedPage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(pg.ready)
	switch {
	case p.byID[pg.id] != pg: // reading took so long that the page was claimed again
	case pg.err != nil || pg.next == pg.id: // no event yet: the next may come at any time
		delete(p.byID, pg.id)
	default:
		pg.kept, pg.bytes = true, pg.page.bytes
		p.recent = append(p.recent, pg)
		p.bytes += pg.bytes
		p.drop(time.Now())
	}
}

// drop forgets pages that are too old or too many. mu is held.
func (p *pages) drop(now time.Time) {
	n := 0
	for _, old := range p.recent {
		if p.streams > 0 && p.bytes <= p.bytesMax && now.Sub(old.born) < sharedAge {
			break
		}
		if p.byID[old.id] == old {
			delete(p.byID, old.id)
		}
		old.kept = false
		p.bytes -= old.bytes
		n++
	}
	clear(p.recent[:n])
	p.recent = p.recent[n:]
}

// some returns a page of at most ids ids that is not shared.
func (p *pages) some(ctx context.Context, cursor, ids uint64) (*sharedPage, error) {
	pg := &sharedPage{id: cursor, turns: p.turnsAt(cursor)}
	return pg, p.fill(ctx, pg, int(min(ids, uint64(p.pageIDs))))
}

// turnsAt returns what the reader of a page that begins at an id must acquire.
func (p *pages) turnsAt(id uint64) *semaphore.Weighted {
	switch {
	case p.isArchived(id):
		return p.archived
	case id+headIDs > p.log.Head():
		return p.atHead
	}
	return p.readers
}

// fill reads the events of a page, of at most ids ids.
func (p *pages) fill(ctx context.Context, pg *sharedPage, ids int) error {
	return p.fillBy(ctx, pg, ids, p.log.ReadLog)
}

// readFunc has the contract of Log.ReadLog.
type readFunc func(ctx context.Context, cursor uint64, maxEvents int,
	fn func(*store.Event) error) (next uint64, err error)

// fillBy reads the events of a page by one of the methods of the log.
func (p *pages) fillBy(ctx context.Context, pg *sharedPage, ids int, read readFunc) error {
	if err := pg.turns.Acquire(ctx, 1); err != nil {
		return err
	}
	defer pg.turns.Release(1)
	cursor := pg.id
	most := min(p.pageBytes/eventBytes+1, ids)
	if head := p.log.Head(); head >= cursor {
		most = min(most, int(min(head-cursor, uint64(most)))+1)
	}
	// A page may end far before the head: after the events that are in memory.
	pg.events = make([]event, 0, min(most, firstEvents))
	full := uint64(0)
	next, err := read(ctx, cursor, ids, func(ev *store.Event) error {
		pg.add(ev)
		if pg.page.bytes < p.pageBytes {
			return nil
		}
		full = ev.ID + 1
		return errPageFull
	})
	if full > 0 && errors.Is(err, errPageFull) && !errors.Is(err, store.ErrCorrupt) {
		next, err = full, nil
	}
	if err != nil {
		return fmt.Errorf("read log from %d: %w", cursor, err)
	}
	pg.next = next
	p.metrics.read.Inc()
	return nil
}

// frames returns the frames of some events of a page, and how many events are in them. Large pages
// are encoded a few at a time, as their JSON can be much larger.
func (p *pages) frames(
	ctx context.Context, dst [][]byte, pg *sharedPage, f *format.Format, places []int32, most uint32,
) (_ [][]byte, events int, err error) {
	if pg.page.bytes*blowUp > 2*p.pageBytes {
		if err := pg.turns.Acquire(ctx, 1); err != nil {
			return dst, 0, err
		}
		defer pg.turns.Release(1)
	}
	dst, events, made := pg.page.frames(dst, f, places, most)
	p.metrics.refused.Add(float64(made.refused))
	if made.bytes > 0 {
		p.grew(pg, made.bytes)
	}
	return dst, events, nil
}

// grew counts the bytes of an encoding.
func (p *pages) grew(pg *sharedPage, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pg.kept {
		pg.bytes += n
		p.bytes += n
		p.drop(time.Now())
	}
}
