package store

import (
	"context"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"cistern/filter"
	"cistern/ingest/repo"
)

// recent keeps the newest events of the log in memory, so that readers at the head do not read them
// back from the engine. It gives the same events as reading the log: a batch that hides events
// empties it. Of an entry with listing rows, whose events are many, it keeps only the ids.
type recent struct {
	// idle counts the batches since the last read. Without readers nothing is kept.
	idle atomic.Int64

	mu     sync.Mutex
	from   uint64       // mu guards: all visible events from this id on are in groups
	groups []eventGroup // mu guards: rising ids; the groups themselves do not change
	bytes  int          // mu guards: memory that groups take
}

// eventGroup is the events of one entry of the log.
type eventGroup struct {
	id     uint64
	end    uint64 // the first id after the entry
	events []Event
	listed bool // the events are only in the engine: those of a backfill
	bytes  int
}

// keep returns the events of an entry that a batch is about to write, without ids and times, or nil
// if they need not be kept. bodies are the ops that the entry lists; their bytes are copied.
func (c *recent) keep(did string, e *entryV1, bodies []Op) []Event {
	if c.idle.Load() > recentIdleMax ||
		slices.ContainsFunc(bodies, func(op Op) bool { return op.Keep }) {
		return nil // no reader, or bodies that only the engine has
	}
	size := 0
	for i := range bodies {
		size += len(bodies[i].Path) + len(bodies[i].Record)
	}
	if size > recentBytes/2 {
		return nil
	}
	arena := make([]byte, 0, size)
	own := func(b []byte) []byte {
		at := len(arena)
		arena = append(arena, b...)
		return arena[at:len(arena):len(arena)]
	}
	events := make([]Event, len(bodies))
	for i := range bodies {
		collection, rkey, _ := repo.SplitPath(own(bodies[i].Path))
		events[i] = Event{Kind: KindRecord, DID: did, Live: e.Live, Rev: e.Rev, Action: e.Ops[i].Action,
			Collection: collection, Rkey: rkey}
		if e.Ops[i].Action != Delete {
			events[i].CID, events[i].Record = bodies[i].CID, own(bodies[i].Record)
		}
	}
	return events
}

// add adds the entries of a batch that was applied, in the order of ids.
func (c *recent) add(b *Batch, next uint64) {
	idle := c.idle.Add(1) > recentIdleMax
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range b.entries {
		e := &b.entries[i]
		end := e.id + e.ids()
		if len(e.events) == 0 && !e.listed() || idle {
			c.empty(end)
			continue
		}
		g := eventGroup{id: e.id, end: end, events: e.events, listed: e.listed()}
		if g.listed {
			g.bytes = recentEventBytes
		}
		for j := range g.events {
			ev := &g.events[j]
			ev.ID, ev.Time = e.id+uint64(j), e.Time+int64(j)
			g.bytes += recentEventBytes + len(ev.Record)
		}
		c.groups = append(c.groups, g)
		c.bytes += g.bytes
	}
	if len(b.gated) > 0 {
		c.empty(next)
	}
	c.trim()
}

func (c *recent) copied() []eventGroup {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.groups)
}

// empty drops all events: from the id next on they will be kept again. mu is held.
func (c *recent) empty(next uint64) { c.from, c.groups, c.bytes = next, nil, 0 }

// trim drops the oldest events while there are too many. The array is not cleared, since readers
// may still use it. mu is held.
func (c *recent) trim() {
	for c.bytes > recentBytes {
		c.bytes -= c.groups[0].bytes
		c.from = c.groups[0].end
		c.groups = c.groups[1:]
	}
}

// skip returns the first id from next to head + 1 whose event f may want, as far as recent knows.
func (c *recent) skip(f *filter.Events, next, head uint64) uint64 {
	c.idle.Store(0)
	c.mu.Lock()
	groups := c.groups
	known := next >= c.from && next <= head && c.from > 0
	c.mu.Unlock()
	if !known {
		return next
	}
	at := sort.Search(len(groups), func(i int) bool { return groups[i].end > next })
	for ; at < len(groups) && groups[at].end <= head+1 && !groups[at].wanted(f); at++ {
		next = groups[at].end
	}
	return next
}

// wanted reports whether f may want events of the group.
func (g *eventGroup) wanted(f *filter.Events) bool {
	if g.listed {
		return !f.LiveOnly()
	}
	return f.Kind(uint8(g.events[0].Kind))
}

// read calls fn for the events from id next to id head, as ReadLog does, or to the next entry with
// listing rows. If ok is false, the events must be read from the engine.
func (c *recent) read(
	ctx context.Context, next, head uint64, maxEvents int, fn func(*Event) error,
) (to uint64, ok bool, err error) {
	c.idle.Store(0)
	c.mu.Lock()
	groups := c.groups
	covered := next >= c.from && c.from > 0
	c.mu.Unlock()
	if !covered {
		return next, false, nil
	}
	left, from := maxEvents, next
	at := sort.Search(len(groups), func(i int) bool { return groups[i].end > next })
	for ; at < len(groups) && groups[at].end <= head+1; at++ {
		g := &groups[at]
		if g.listed {
			return next, next > from, nil
		}
		for i := next - g.id; i < uint64(len(g.events)); i++ {
			if left == 0 {
				return next, true, nil
			}
			ev := g.events[i] // a copy: fn must not change the shared event
			next, left = ev.ID+1, left-1
			if err := fn(&ev); err != nil {
				return next, true, err
			}
		}
		if err := ctx.Err(); err != nil {
			return next, true, err
		}
	}
	return next, true, nil
}
