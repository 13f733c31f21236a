package durable

import (
	"slices"
	"time"

	"cistern/store"
)

// Window is a window.
type Window struct{ w *window }

// WindowMember is a member of a window.
type WindowMember struct{ m *member }

func NewWindow(p store.SubscriptionPosition, most int, retry time.Duration, now time.Time) Window {
	return Window{newWindow(p, most, retry, now)}
}

func (w Window) Join(now time.Time) WindowMember     { return WindowMember{w.w.join(now)} }
func (w Window) Leave(m WindowMember, now time.Time) { w.w.leave(m.m, now) }
func (w Window) Add(id uint64, did string, now time.Time) {
	w.w.add(Event{ID: id, DID: did, Page: id}, now)
}
func (w Window) Unknown() []uint64                         { return w.w.unknown() }
func (w Window) Identify(id uint64, d string, n time.Time) { w.w.identify(id, d, n) }
func (w Window) Settle(id uint64) bool                     { return w.w.settle(id) }
func (w Window) Expire(now time.Time) bool                 { return w.w.expire(now) }
func (w Window) Pass(next uint64)                          { w.w.pass(next) }
func (w Window) Room() int                                 { return w.w.room() }
func (w Window) Position() store.SubscriptionPosition      { return w.w.position() }
func (w Window) Back(m WindowMember, id uint64)            { w.w.back(m.m, id) }

func (w Window) AddRecord(r store.RecordName, now time.Time) { w.w.addRecord(r, now) }
func (w Window) Finish(now time.Time) bool                   { return w.w.finish(now) }

// Read has the snapshot go on at a place, or end.
func (w Window) Read(at store.RecordPosition, ended bool) {
	w.w.snapshot.at, w.w.snapshot.read = at, ended
}

// Ahead is numbersAhead.
const Ahead = numbersAhead

func (w Window) Take(m WindowMember, most int, now time.Time) []Item {
	return w.w.take(m.m, most, now)
}

func (w Window) Again(m WindowMember, id uint64, now time.Time) bool {
	return w.w.again(m.m, id, now)
}

func (w Window) Acknowledge(m WindowMember, id, gap, tail uint64, now time.Time) bool {
	return w.w.acknowledge(m.m, id, gap, tail, now)
}

func (w Window) Release(m WindowMember, ids []uint64, at time.Time) { w.w.release(m.m, ids, at) }

func (w Window) Lost(m WindowMember, tail uint64, now time.Time) bool {
	return w.w.lost(m.m, tail, now)
}

// Holders returns the number of the member that holds each outstanding event whose account is
// known, 0 for none.
func (w Window) Holders() map[uint64]int {
	all := map[uint64]int{}
	for _, e := range w.w.outstanding {
		switch {
		case e.account == nil:
		case e.account.member == nil:
			all[e.id] = 0
		default:
			all[e.id] = e.account.member.number
		}
	}
	return all
}

// Accounts returns how many accounts the window keeps.
func (w Window) Accounts() int { return len(w.w.accounts) }

func (m WindowMember) Number() int     { return m.m.number }
func (m WindowMember) Held() int       { return m.m.held }
func (m WindowMember) Queue() []uint64 { return slices.Clone(m.m.queue) }
func (m WindowMember) Stalled() bool   { return m.m.stalled }
