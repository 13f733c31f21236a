package durable

import (
	"context"
	"strings"
	"time"

	"cistern/filter"
	"cistern/store"
)

// snapshot is the part of a window before the log: all current records that the filter wants, and
// then its end. Each of them is an event of the window whose id is a number above
// store.NumbersFrom, which no event of the log has. So an acknowledgement that is late never
// settles anything else, and needs no order:
//
//  1. Records become outstanding as the pass reads them. Once it has ended and none is outstanding,
//     the end becomes outstanding, and once that is settled, the log goes on at next.
//  2. A record is read by its name whenever it is sent: it is the current one. If it is gone it is
//     settled, as the log from next on tells what became of it.
//  3. No number is given twice by a subscription, also after a crash: see numbersAhead.
type snapshot struct {
	end     store.Ordinal        // repositories from it on are left to the log
	at      store.RecordPosition // the pass goes on there
	read    bool                 // the pass has ended
	last    uint64               // the number of the end, which is outstanding; 0: not yet
	records uint64               // that became outstanding
}

// numbersAhead is how many numbers may be given beyond the last one on disk. After a restart that
// many are skipped: they may have been given before.
const numbersAhead = 1 << 20

// restore takes over the numbers and the snapshot of a position. now is when its records became
// outstanding.
func (w *window) restore(p store.SubscriptionPosition, now time.Time) {
	if p.Numbered == 0 {
		return
	}
	w.number = p.Numbered + numbersAhead
	if p.Snapshot == nil {
		return
	}
	w.snapshot = &snapshot{p.Snapshot.End, p.Snapshot.At, p.Snapshot.Read, p.Snapshot.Last,
		p.Snapshot.Records}
	for _, r := range p.Snapshot.Outstanding {
		w.outstanding = append(w.outstanding,
			sentEvent{id: r.Number, path: r.Path, again: true, first: now})
		w.identify(r.Number, r.DID, now)
	}
	if w.snapshot.last != 0 {
		w.outstanding = append(w.outstanding, sentEvent{id: w.snapshot.last, again: true, first: now,
			state: loose, account: &account{outstanding: 1}})
	}
}

// progress returns what is to be kept of the snapshot.
func (w *window) progress() *store.SubscriptionSnapshot {
	if w.snapshot == nil {
		return nil
	}
	p := &store.SubscriptionSnapshot{End: w.snapshot.end, At: w.snapshot.at, Read: w.snapshot.read,
		Records: w.snapshot.records, Last: w.snapshot.last}
	for i := range w.outstanding {
		if e := &w.outstanding[i]; e.path != "" {
			p.Outstanding = append(p.Outstanding, store.NumberedRecord{Number: e.id,
				RecordName: store.RecordName{DID: e.account.did, Path: e.path}})
		}
	}
	return p
}

// ends returns the id at which the log goes on if id is the number of the end of the snapshot, and
// otherwise 0.
func (w *window) ends(id uint64) (next uint64) {
	if w.snapshot == nil || w.snapshot.last != id {
		return 0
	}
	return w.next
}

// addRecord makes a record of the snapshot outstanding, and queues it as add does.
func (w *window) addRecord(name store.RecordName, now time.Time) {
	w.number++
	w.snapshot.records++
	w.outstanding = append(w.outstanding, sentEvent{id: w.number, path: name.Path, first: now})
	w.identify(w.number, name.DID, now)
}

// finish makes the end of the snapshot outstanding, and queues it at a member, once all records are
// read and settled. It reports whether it did, not if it was before, or is settled. There is a
// member.
func (w *window) finish(now time.Time) bool {
	n := len(w.outstanding)
	if w.snapshot == nil || !w.snapshot.read || w.snapshot.last != 0 ||
		n > 0 && w.outstanding[n-1].id > store.NumbersFrom {
		return false
	}
	w.number++
	w.snapshot.last = w.number
	w.outstanding = append(w.outstanding,
		sentEvent{id: w.number, first: now, account: &account{outstanding: 1}})
	e := &w.outstanding[n]
	w.hold(e, now)
	w.enqueue(e)
	return true
}

// Reading is where a snapshot is to be read on.
type Reading struct {
	Pass  *store.Pass
	At    store.RecordPosition
	Room  int  // how many records may become outstanding
	Ended bool // all were read, and the end is outstanding or waits for acknowledgements
}

// Reading returns where the snapshot is to be read on. ok is false without a snapshot: the log goes
// on at Next. The caller has a turn.
func (m *Member) Reading() (r Reading, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.window.snapshot
	if at == nil {
		return r, false
	}
	// The log has lost what was before next, and a gap tells it: the pass needs the rest only.
	if head := m.window.next - 1; m.pass == nil || m.pass.Head != head {
		m.pass = store.NewPass(head, at.end, m.begun)
	}
	return Reading{m.pass, at.at, m.window.room(), at.read}, true
}

// Reserve makes sure that numbers of records can be given: a crash must not make a subscription
// give one again. It waits while the store is frozen. The caller has a turn. The error is one of
// the store, or of ctx.
func (m *Member) Reserve(ctx context.Context) error {
	for ctx.Err() == nil {
		m.mu.Lock()
		short := m.window.number+uint64(m.window.most)+1 > m.numbered+numbersAhead
		m.unsaved = m.unsaved || short
		m.mu.Unlock()
		if !short {
			return nil
		}
		if saved, err := m.save(); saved || err != nil {
			return err
		}
		if thawed := m.store.Frozen(); thawed != nil {
			select {
			case <-thawed:
			case <-ctx.Done():
			}
		}
	}
	return ctx.Err()
}

// AddRecords makes records outstanding that the filter wants, in the order of the pass, each for
// one of the connections. They are no more than there was room for. The pass goes on at a position,
// unless it has ended. What is added is sent until it is settled. The caller has a turn, has called
// Reserve, and no event is unknown.
func (m *Member) AddRecords(
	now time.Time, records []store.RecordName, at store.RecordPosition, ended bool,
) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range records {
		if wantsRecord(m.filter, name) {
			m.window.addRecord(name, now)
		}
	}
	m.window.snapshot.at, m.window.snapshot.read = at, ended
	m.window.finish(now)
	m.unsaved = true
	m.signalOthers()
}

// EndSnapshot makes the end of the snapshot outstanding once everything before it is settled. It
// reports whether it did. The caller has a turn.
func (m *Member) EndSnapshot(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.window.finish(now) {
		return false
	}
	m.unsaved = true
	m.signalOthers()
	return true
}

// signalOthers wakes all other connections. mu is held.
func (m *Member) signalOthers() {
	for _, o := range m.members {
		if o != m {
			o.Signal()
		}
	}
}

// WantsSnapshot reports whether a filter wants records of a snapshot: they are creates, and not
// live.
func WantsSnapshot(f *filter.Events) bool {
	return f.Kind(uint8(store.KindRecord)) && f.Record(uint8(store.Create), false)
}

// wantsRecord reports whether a filter wants a record of a snapshot.
func wantsRecord(f *filter.Events, name store.RecordName) bool {
	collection, _, _ := strings.Cut(name.Path, "/")
	return WantsSnapshot(f) && f.DID(name.DID) && f.Collection([]byte(collection))
}
