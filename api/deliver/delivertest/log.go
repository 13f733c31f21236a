// Package delivertest has what tests of streams share: a log in memory, and a consumer.
package delivertest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"

	"github.com/fxamacker/cbor/v2"
)

// Log is a log in memory.
type Log struct {
	mu      sync.Mutex
	events  []store.Event // id i+1
	Tail    uint64
	changed chan struct{}
	Reads   int
	// SparseReads counts the calls of ReadLogSparse.
	SparseReads int
	Fail        error
	Looked      func() // called once, after the first call of Head
}

// NewLog makes a log.
func NewLog(events ...store.Event) *Log {
	l := &Log{Tail: 1, changed: make(chan struct{})}
	l.Add(events...)
	return l
}

// Add appends events, which get the next ids, and the next microsecond if they have no time. An
// event without a kind is hidden.
func (l *Log) Add(events ...store.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ev := range events {
		ev.ID = uint64(len(l.events) + 1)
		if n := len(l.events); ev.Time == 0 {
			ev.Time = FirstTime
			if n > 0 {
				ev.Time = l.events[n-1].Time + 1
			}
		}
		l.events = append(l.events, ev)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Hide makes some events hidden.
func (l *Log) Hide(ids ...uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = slices.Clone(l.events) // readers have the former one
	for _, id := range ids {
		l.events[id-1].Kind = 0
	}
}

// Prune deletes the events before tail.
func (l *Log) Prune(tail uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Tail = tail
}

// Break makes reading the log fail.
func (l *Log) Break(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Fail = err
}

// FirstTime is the time of the first event of a log without times.
const FirstTime = 1_700_000_000_000_000

// FirstSince searches the events one by one.
func (l *Log) FirstSince(t int64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ev := range l.events {
		if ev.ID >= l.Tail && ev.Time >= t {
			return ev.ID, nil
		}
	}
	return max(uint64(len(l.events))+1, l.Tail), nil
}

// Head is the newest id.
func (l *Log) Head() uint64 {
	l.mu.Lock()
	head, looked := uint64(len(l.events)), l.Looked
	l.Looked = nil
	l.mu.Unlock()
	if looked != nil {
		looked()
	}
	return head
}

// Changed is closed by the next Add.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Readings returns Reads and SparseReads, while streams may be open.
func (l *Log) Readings() (reads, sparse int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Reads, l.SparseReads
}

// SkipUnwanted skips events as store.SkipUnwanted does.
func (l *Log) SkipUnwanted(f *filter.Events, cursor uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	for cursor >= l.Tail && cursor <= uint64(len(l.events)) {
		ev := &l.events[cursor-1]
		backfilled := ev.Kind == store.KindRecord && !ev.Live
		if backfilled && !f.LiveOnly() || !backfilled && f.Kind(uint8(ev.Kind)) {
			break
		}
		cursor++
	}
	return cursor
}

// ReadLogSparse reads the log as store.ReadLogSparse does.
func (l *Log) ReadLogSparse(ctx context.Context, f *filter.Events, cursor uint64, maxEvents int,
	fn func(*store.Event) error,
) (uint64, error) {
	l.mu.Lock()
	l.SparseReads++
	l.mu.Unlock()
	return l.read(ctx, cursor, maxEvents, func(ev *store.Event) bool {
		return f.Kind(uint8(ev.Kind)) && (ev.Kind != store.KindRecord || f.Collection(ev.Collection))
	}, fn)
}

// ReadLog reads the log as store.ReadLog does.
func (l *Log) ReadLog(
	ctx context.Context, cursor uint64, maxEvents int, fn func(*store.Event) error,
) (uint64, error) {
	return l.read(ctx, cursor, maxEvents, func(*store.Event) bool { return true }, fn)
}

// read passes events that are wanted. The others do not count.
func (l *Log) read(
	ctx context.Context, cursor uint64, maxEvents int, wanted func(*store.Event) bool,
	fn func(*store.Event) error,
) (uint64, error) {
	l.mu.Lock()
	events, tail, fail := l.events, l.Tail, l.Fail
	if maxEvents > 0 {
		l.Reads++
	}
	l.mu.Unlock()
	if cursor == 0 {
		cursor = tail
	}
	switch {
	case fail != nil && maxEvents > 0:
		return cursor, fail
	case cursor > uint64(len(events))+1:
		return cursor, store.ErrFutureCursor
	case cursor < tail:
		return cursor, store.ErrOutdatedCursor
	}
	for maxEvents > 0 && cursor <= uint64(len(events)) {
		ev := events[cursor-1]
		cursor++
		if !wanted(&ev) {
			continue
		}
		maxEvents--
		if ev.Kind == 0 { // hidden
			continue
		}
		if err := fn(&ev); err != nil {
			return cursor, err
		}
	}
	return cursor, ctx.Err()
}

// Identity makes an event.
func Identity(i int) store.Event {
	return store.Event{Kind: store.KindIdentity, DID: fmt.Sprintf("did:plc:%d", i), Handle: "a.test"}
}

// Identities makes n events.
func Identities(n int) []store.Event {
	out := make([]store.Event, n)
	for i := range out {
		out[i] = Identity(i)
	}
	return out
}

// Posts makes n record events that look like a backfill of posts, 40 to a repository.
func Posts(n int) []store.Event {
	events := make([]store.Event, n)
	for i := range events {
		text := strings.Repeat(fmt.Sprintf("post %d says hello ", i), 1+i%8)
		record, err := cbor.Marshal(map[string]any{
			"text": text[:min(len(text), 120)], "$type": "app.bsky.feed.post", "langs": []string{"en"},
			"createdAt": "2026-01-02T03:04:05.678Z",
		})
		if err != nil {
			panic(err)
		}
		events[i] = store.Event{
			Kind: store.KindRecord, DID: fmt.Sprintf("did:plc:%024d", i/40),
			Rev: "3kabcdefghijk", Action: store.Create,
			Collection: []byte("app.bsky.feed.post"), Rkey: fmt.Appendf(nil, "3k%011d", i),
			CID: repo.HashCID(record), Record: record,
		}
	}
	return events
}

// BlownUp is a record of empty byte strings, whose JSON takes fourteen times its size.
func BlownUp(size int) []byte {
	head := []byte{0xa1, 0x61, 'a', 0x9a, byte(size >> 24), byte(size >> 16),
		byte(size >> 8), byte(size)}
	return append(head, bytes.Repeat([]byte{0x40}, size)...)
}

// DID returns the account of an event, visible or not.
func (l *Log) DID(id uint64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[id-1].DID
}
