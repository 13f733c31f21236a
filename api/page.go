package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cistern/store"

	"golang.org/x/sync/semaphore"
)

// Log is what streams read. Its methods may be called by any goroutine.
type Log interface {
	// ReadLog calls fn for the visible events from id cursor on (0: the oldest kept), in order,
	// until about maxEvents ids are passed or the head is reached, and returns the id to go on
	// from, at most Head+1. With maxEvents 0 it only checks the cursor. Outside the log, the error
	// is store.ErrFutureCursor or store.ErrOutdatedCursor. An error of fn ends the reading and is
	// returned. Events are valid during the call.
	ReadLog(ctx context.Context, cursor uint64, maxEvents int, fn func(*store.Event) error) (next uint64, err error)
	// Head returns the newest id that readers may see.
	Head() uint64
	// Changed returns a channel that is closed when Head moves after the call.
	Changed() <-chan struct{}
}

// errPageFull ends the reading of a page.
var errPageFull = errors.New("page is full")

// page is an encoded range of the log.
type page struct {
	next   uint64 // id to continue from
	frames []byte // whole text frames, not to be changed
	events int

	born  time.Time
	ready chan struct{} // closed when the fields above are final
	err   error         // why the fields are not final
}

// pages encodes ranges of the log, each once for all subscribers at the same id.
type pages struct {
	log       Log
	pageBytes int
	pageIDs   int
	bytesMax  int
	encoders  *semaphore.Weighted // one for each page being encoded
	metrics   *metrics
	spares    sync.Pool // *encoder

	mu     sync.Mutex
	byID   map[uint64]*page // mu guards
	recent []shared         // mu guards: finished pages of byID, oldest first
	bytes  int              // mu guards: what recent holds
}

type shared struct {
	id   uint64
	page *page
}

// read returns the page that begins at id cursor. At the head it is empty, with next = cursor.
func (p *pages) read(ctx context.Context, cursor uint64) (*page, error) {
	if cursor > p.log.Head() {
		return &page{next: cursor}, nil
	}
	for {
		pg, mine := p.claim(cursor)
		if mine {
			pg.err = p.encode(ctx, cursor, pg)
			p.finish(cursor, pg)
			return pg, pg.err
		}
		select {
		case <-pg.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if pg.err == nil {
			p.metrics.shared.Inc()
			return pg, nil
		}
		if ctx.Err() != nil || !errors.Is(pg.err, context.Canceled) {
			return nil, pg.err
		}
		// The subscriber that encoded it went away: another does.
	}
}

// claim returns the page at id, and whether the caller has to encode it.
func (p *pages) claim(id uint64) (pg *page, mine bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.drop(now)
	if pg := p.byID[id]; pg != nil && now.Sub(pg.born) < sharedAge {
		return pg, false
	}
	pg = &page{born: now, ready: make(chan struct{})}
	p.byID[id] = pg
	return pg, true
}

// finish publishes a claimed page, and keeps it while there is room.
func (p *pages) finish(id uint64, pg *page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(pg.ready)
	switch {
	case p.byID[id] != pg: // it took so long that the page was claimed again
	case pg.err != nil || pg.next == id: // no event yet: the next may come at any time
		delete(p.byID, id)
	default:
		p.recent = append(p.recent, shared{id, pg})
		p.bytes += cap(pg.frames)
		p.drop(time.Now())
	}
}

// drop forgets pages that are too old or too many. mu is held.
func (p *pages) drop(now time.Time) {
	n := 0
	for _, old := range p.recent {
		if p.bytes <= p.bytesMax && now.Sub(old.page.born) < sharedAge {
			break
		}
		if p.byID[old.id] == old.page {
			delete(p.byID, old.id)
		}
		p.bytes -= cap(old.page.frames)
		n++
	}
	clear(p.recent[:n])
	p.recent = p.recent[n:]
}

// encode fills pg with the events from id cursor on.
func (p *pages) encode(ctx context.Context, cursor uint64, pg *page) error {
	if err := p.encoders.Acquire(ctx, 1); err != nil {
		return err
	}
	defer p.encoders.Release(1)
	e := p.spare()
	full := uint64(0)
	next, err := p.log.ReadLog(ctx, cursor, p.pageIDs, func(ev *store.Event) error {
		e.event(ev)
		if len(e.out) < p.pageBytes {
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
	pg.next, pg.events = next, e.events
	p.metrics.encoded.Inc()
	p.metrics.refused.Add(float64(e.refused))
	pg.frames = p.frames(e)
	return nil
}

// spare returns an encoder with memory for a page.
func (p *pages) spare() *encoder {
	if e, ok := p.spares.Get().(*encoder); ok {
		return e
	}
	return &encoder{out: make([]byte, 0, p.pageBytes+p.pageBytes/8)}
}

// frames returns the frames that e encoded. Near the head, pages have a few events: those are
// copied to slices of their size, and the memory of e is used again.
func (p *pages) frames(e *encoder) []byte {
	if len(e.out) >= p.pageBytes/2 {
		return e.out
	}
	frames := slices.Clone(e.out)
	e.out, e.events, e.refused = e.out[:0], 0, 0
	p.spares.Put(e)
	return frames
}
