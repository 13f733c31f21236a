package durable_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cistern/api/durable"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// retryTicks is the retry timeout of the model, and a tick a second.
const retryTicks = 5

func at(tick int) time.Time { return time.Unix(int64(1000+tick), 0) }

// naive is what a window is to do, by one entry for each id.
type naive struct {
	t    *testing.T
	rng  *rand.Rand
	w    durable.Window
	most int
	now  int

	next, tail uint64
	events     map[uint64]*naiveEvent // outstanding
	did        map[uint64]string      // of every event that was ever added
	waits      map[string]int         // accounts with released events
	members    []*naiveMember
	finished   map[uint64]bool // acknowledged, or lost

	snapshot *store.SubscriptionSnapshot // without the outstanding records; nil: none
	number   uint64                      // the last that was given
}

type naiveEvent struct {
	did     string // "" of a gap; of an end, one that nothing else has
	gap     uint64 // the last id of a gap; 0: an event
	path    string // of a record of the snapshot
	end     bool   // of the snapshot
	unknown bool
	queued  bool
	due     int
	holder  int // number of a member as last seen
}

type naiveMember struct {
	durable.WindowMember
	seen    map[uint64]bool // what was delivered to it
	active  int             // when it last acknowledged, or began to hold events
	held    int             // as last seen
	stalled bool
}

// TestWindowModel compares a window with the naive one over random calls: connections come and go,
// acknowledge in any order, or not at all, release, and restart. Every second one begins with a
// snapshot.
func TestWindowModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range storetest.Seeds(300) {
		n := &naive{t: t, rng: rng, most: 1 + rng.IntN(12), next: 1 + uint64(rng.IntN(3)),
			events: map[uint64]*naiveEvent{}, did: map[uint64]string{}, waits: map[string]int{},
			finished: map[uint64]bool{}}
		if rng.IntN(2) == 0 {
			n.snapshot, n.number = &store.SubscriptionSnapshot{End: store.Ordinal(rng.IntN(9))}, store.NumbersFrom
		}
		n.restart()
		for range 300 {
			n.step()
			n.compare()
			if t.Failed() {
				return
			}
		}
		n.drain()
	}
}

func (n *naive) ids() []uint64 { return slices.Sorted(maps.Keys(n.events)) }

func (n *naive) restart() {
	n.w = durable.NewWindow(n.position(), n.most, retryTicks*time.Second, at(n.now))
	n.members, n.waits = nil, map[string]int{}
	for id, e := range n.events {
		*e = naiveEvent{did: e.did, gap: e.gap, path: e.path, end: e.end, unknown: id < store.NumbersFrom}
	}
	if n.number > 0 {
		n.number += durable.Ahead
	}
}

// position is what the position is to be.
func (n *naive) position() store.SubscriptionPosition {
	p := store.SubscriptionPosition{Next: n.next, Numbered: n.number}
	if n.snapshot != nil {
		p.Snapshot = new(store.SubscriptionSnapshot)
		*p.Snapshot = *n.snapshot
	}
	for _, id := range n.ids() {
		switch e := n.events[id]; {
		case e.path != "":
			p.Snapshot.Outstanding = append(p.Snapshot.Outstanding,
				store.NumberedRecord{Number: id, RecordName: store.RecordName{DID: e.did, Path: e.path}})
		case !e.end:
			p.Outstanding = append(p.Outstanding, id)
		}
	}
	return p
}

func (n *naive) step() {
	switch n.rng.IntN(16) {
	case 0, 1, 2, 3:
		n.add()
	case 4, 5, 6:
		n.acknowledge()
	case 7:
		n.now += n.rng.IntN(retryTicks)
	case 8, 9:
		n.expire()
	case 10:
		n.comeOrGo()
	case 11, 12, 13:
		if m := n.any(); m != nil {
			n.take(m, n.rng.IntN(4))
		}
	case 14:
		n.release()
	case 15:
		switch n.rng.IntN(6) {
		case 0:
			n.restart()
		case 1, 2:
			n.lose()
		case 3:
			if n.snapshot != nil {
				return // the log waits
			}
			id := n.next + uint64(n.rng.IntN(3))
			n.w.Pass(id - 1) // never backwards
			n.w.Pass(id)
			n.next = id
		default:
			n.back()
		}
	}
}

// any returns a random member, nil without members.
func (n *naive) any() *naiveMember {
	if len(n.members) == 0 {
		return nil
	}
	return n.members[n.rng.IntN(len(n.members))]
}

// queue is what add and identify do with an event.
func (n *naive) queue(id uint64) {
	e := n.events[id]
	e.unknown, e.queued = false, len(n.members) > 0
	if due, ok := n.waits[e.did]; ok && e.queued {
		e.queued, e.due = false, due
	}
}

// add adds an event, or states the account of one.
func (n *naive) add() {
	if unknown := n.w.Unknown(); len(unknown) > 0 {
		id := unknown[0]
		e := n.events[id]
		switch {
		case e == nil || !e.unknown:
			n.t.Fatalf("%d is unknown: %+v", id, e)
		case e.gap != 0: // it is below the tail, so that it cannot be read
			if m := n.any(); m != nil {
				n.loseAt(m, n.tail)
			}
		default:
			n.w.Identify(id, e.did, at(n.now))
			n.queue(id)
		}
		return
	}
	if m := n.any(); m == nil || n.w.Room() == 0 {
		return // only members add events
	}
	if n.snapshot != nil {
		n.read(n.rng.IntN(30) == 0)
		return
	}
	id, did := n.next+uint64(n.rng.IntN(3)), fmt.Sprint("did", n.rng.IntN(5))
	n.w.Add(id, did, at(n.now))
	n.events[id], n.next, n.did[id] = &naiveEvent{did: did}, id+1, did
	n.queue(id)
}

// read adds a record of the snapshot, or the end once nothing is left before it.
func (n *naive) read(ends bool) {
	if !n.snapshot.Read {
		did, path := fmt.Sprint("did", n.rng.IntN(5)), fmt.Sprint("a.b.c/", n.number)
		n.number++
		n.snapshot.Records++
		n.snapshot.At, n.snapshot.Read = store.RecordPosition{DID: did, Path: []byte(path)}, ends
		n.w.AddRecord(store.RecordName{DID: did, Path: path}, at(n.now))
		n.w.Read(n.snapshot.At, ends)
		n.events[n.number], n.did[n.number] = &naiveEvent{did: did, path: path}, did
		n.queue(n.number)
		return
	}
	due := n.snapshot.Last == 0 && !slices.ContainsFunc(n.ids(), func(id uint64) bool { return n.events[id].path != "" })
	if finished := n.w.Finish(at(n.now)); finished != due {
		n.t.Fatalf("the snapshot ends: %t, want %t", finished, due)
	}
	if due {
		n.number++
		n.snapshot.Last = n.number
		n.events[n.number], n.did[n.number] = &naiveEvent{did: fmt.Sprint("end ", n.number), end: true, queued: true}, ""
	}
}

// settled takes in that an event is not outstanding any more.
func (n *naive) settled(id uint64) {
	if n.events[id].end {
		n.snapshot = nil
	}
	delete(n.events, id)
	n.finished[id] = true
}

// acknowledge settles an event in any order, again, or one that was never sent.
func (n *naive) acknowledge() {
	id := uint64(n.rng.IntN(int(n.next) + 2))
	if ids := n.ids(); len(ids) > 0 && n.rng.IntN(4) > 0 {
		id = ids[n.rng.IntN(len(ids))]
	}
	known, settled := n.events[id] != nil, false
	if m := n.any(); m != nil {
		to := uint64(0)
		if known {
			if e := n.events[id]; !e.unknown {
				to = e.gap
			}
			if n.rng.IntN(4) == 0 { // an event with the id of a gap, or a gap with that of an event
				to, known = to^uint64(1+n.rng.IntN(8)), false
			} else if to != 0 && n.rng.IntN(4) == 0 {
				to, known = 0, false
			}
		}
		if known && n.events[id].unknown && id < n.tail {
			known = false // it may stand for a gap
		}
		settled = n.w.Acknowledge(m.WindowMember, id, to, n.tail, at(n.now))
		m.active, m.stalled = n.now, false
	} else {
		settled = n.w.Settle(id)
	}
	if settled != known {
		n.t.Fatalf("settling %d: outstanding is %t", id, known)
	}
	if !known {
		return
	}
	n.settled(id)
	n.forget()
}

// forget ends the waits of accounts without outstanding events.
func (n *naive) forget() {
	for did := range n.waits {
		if !slices.ContainsFunc(n.ids(), func(id uint64) bool { return n.events[id].did == did && !n.events[id].unknown }) {
			delete(n.waits, did)
		}
	}
}

// expire queues every event that is late, or behind a late one of its account. What stalled members
// hold moves to others.
func (n *naive) expire() {
	able, relieved := false, false
	for _, m := range n.members {
		able = able || !m.idle(n.now)
	}
	for _, m := range n.members {
		if !able || !m.idle(n.now) || m.Held() == 0 {
			continue
		}
		relieved = true
		for _, e := range n.events {
			if e.holder == m.Number() && !e.unknown {
				e.queued, e.holder = true, -1 // another member that is not idle
				delete(n.waits, e.did)
			}
		}
	}
	late := map[string]bool{}
	for _, id := range n.ids() {
		e := n.events[id]
		if !e.unknown && !e.queued && e.holder > 0 && (e.due <= n.now || late[n.account(id)]) {
			late[n.account(id)], e.queued = true, true
			delete(n.waits, e.did)
		}
	}
	changed := n.w.Expire(at(n.now))
	if changed != (relieved || len(late) > 0) {
		n.t.Fatalf("expire: %t, relieved %t, %v are late", changed, relieved, late)
	}
	for _, m := range n.members {
		if m.Stalled() != m.idle(n.now) || m.Stalled() && able && m.Held() > 0 {
			n.t.Fatalf("member %d is stalled: %t, and holds %d", m.Number(), m.Stalled(), m.Held())
		}
	}
}

// idle reports whether a member has acknowledged nothing for long while it held events. It is called
// before the window changes what the member holds.
func (m *naiveMember) idle(now int) bool {
	m.stalled = m.stalled || m.held > 0 && now-m.active >= retryTicks
	return m.stalled
}

// account names the account of an event; each gap has its own.
func (n *naive) account(id uint64) string {
	if e := n.events[id]; e.gap == 0 {
		return e.did
	}
	return fmt.Sprint("gap ", id)
}

func (n *naive) comeOrGo() {
	if n.rng.IntN(2) == 0 && len(n.members) < 4 {
		m := &naiveMember{WindowMember: n.w.Join(at(n.now)), seen: map[uint64]bool{}, active: n.now}
		if slices.ContainsFunc(n.members, func(o *naiveMember) bool { return o.Number() == m.Number() }) {
			n.t.Fatalf("two members have number %d", m.Number())
		}
		n.members = append(n.members, m)
		for _, e := range n.events {
			if !e.unknown && e.holder == 0 {
				e.queued = true
			}
		}
		return
	}
	m := n.any()
	if m == nil {
		return
	}
	n.members = slices.DeleteFunc(n.members, func(o *naiveMember) bool { return o == m })
	n.w.Leave(m.WindowMember, at(n.now))
	for _, e := range n.events {
		if e.holder == m.Number() && !e.unknown {
			e.queued, e.holder = len(n.members) > 0, 0 // whichever other member
			delete(n.waits, e.did)
		}
	}
}

// take delivers events to a member.
func (n *naive) take(m *naiveMember, most int) {
	var want []uint64
	for _, id := range n.ids() {
		if e := n.events[id]; e.queued && e.holder == m.Number() && len(want) < most {
			want = append(want, id)
		}
	}
	got := []uint64(nil)
	for _, it := range n.w.Take(m.WindowMember, most, at(n.now)) {
		got = append(got, it.ID)
		e := n.events[it.ID]
		if e == nil || it.Gap != e.gap || it.Record.Path != e.path || e.path != "" && it.Record.DID != e.did ||
			e.end != (it.End != 0) || e.end && it.End != n.next {
			n.t.Fatalf("member %d gets %+v: %+v", m.Number(), it, e)
		}
		n.inOrder(m, it.ID)
		e.queued, e.due = false, n.now+retryTicks
		if !n.w.Again(m.WindowMember, it.ID, at(n.now)) {
			n.t.Fatalf("%d is not to be sent", it.ID)
		}
		m.seen[it.ID] = true
	}
	if !slices.Equal(got, want) {
		n.t.Fatalf("member %d takes %d, want %d", m.Number(), got, want)
	}
	for _, id := range []uint64{n.next, n.next + 1} {
		if n.w.Again(m.WindowMember, id, at(n.now)) {
			n.t.Fatal("an event that was not taken is sent")
		}
	}
}

// inOrder checks that every earlier outstanding event of the account was delivered to the same
// member, and does not wait.
func (n *naive) inOrder(m *naiveMember, id uint64) {
	for _, before := range n.ids() {
		e := n.events[before]
		if before >= id || e.gap != 0 || n.events[id].gap != 0 || e.did != n.events[id].did {
			continue
		}
		if _, waits := n.waits[e.did]; !m.seen[before] || waits || e.holder != m.Number() {
			n.t.Fatalf("member %d gets %d, and has not had %d of the same account", m.Number(), id, before)
		}
	}
}

// release has some events that a member took sent again later.
func (n *naive) release() {
	m := n.any()
	if m == nil {
		return
	}
	var ids []uint64
	until, from := n.now+1+n.rng.IntN(2*retryTicks), map[string]uint64{}
	for _, id := range n.ids() {
		if e := n.events[id]; e.gap == 0 && !e.queued && !e.unknown && e.holder == m.Number() && n.rng.IntN(2) == 0 {
			ids = append(ids, id)
			n.waits[e.did] = max(n.waits[e.did], until)
			if _, ok := from[e.did]; !ok {
				from[e.did] = id
			}
		}
	}
	for id, e := range n.events {
		if first, ok := from[e.did]; ok && e.gap == 0 && id >= first {
			e.queued, e.due = false, n.waits[e.did]
		}
	}
	n.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	n.w.Release(m.WindowMember, ids, at(until))
}

// back gives back the last event that a member has taken.
func (n *naive) back() {
	m := n.any()
	if m == nil {
		return
	}
	ids := n.ids()
	slices.Reverse(ids)
	blocked := map[string]bool{} // a later event has been sent, or waits
	for _, id := range ids {
		e := n.events[id]
		if _, waits := n.waits[e.did]; e.unknown || e.queued || waits || e.holder != m.Number() || blocked[e.did] {
			blocked[e.did] = blocked[e.did] || !e.queued
			continue
		}
		n.w.Back(m.WindowMember, id)
		e.queued = true
		return
	}
}

func (n *naive) lose() {
	if m := n.any(); m != nil {
		n.loseAt(m, max(n.tail, uint64(n.rng.IntN(int(n.next)+3))))
	}
}

func (n *naive) loseAt(m *naiveMember, tail uint64) {
	from, keeps := n.next, false
	for _, id := range n.ids() {
		e := n.events[id]
		gone := id < tail && (e.gap == 0 || e.unknown)
		keeps = keeps || !gone && e.holder == m.Number()
		if gone {
			from = min(from, id)
			n.finished[id] = true
			delete(n.events, id)
		}
	}
	lost := from < tail
	if got := n.w.Lost(m.WindowMember, tail, at(n.now)); got != lost {
		n.t.Fatalf("lost before %d: %t, want %t (next %d, %v)", tail, got, lost, n.next, n.ids())
	}
	n.tail = max(n.tail, tail)
	if !lost {
		return
	}
	n.forget()
	for id := range n.did {
		n.finished[id] = n.finished[id] || id < tail
	}
	if !keeps {
		m.active = n.now // it holds nothing before it gets the gap
	}
	n.next = max(n.next, tail)
	n.events[from] = &naiveEvent{gap: tail - 1, queued: true, holder: m.Number()}
}

// compare compares both, and checks that an account is at one member, and stays there.
func (n *naive) compare() {
	t := n.t
	t.Helper()
	if d := cmp.Diff(n.position(), n.w.Position(), cmp.AllowUnexported(store.RecordPosition{})); d != "" {
		t.Fatal(d)
	}
	if n.snapshot == nil && n.w.Finish(at(n.now)) {
		t.Fatal("a snapshot ends that is not in progress")
	}
	if got, want := n.w.Room(), max(0, n.most-len(n.events)); got != want {
		t.Fatalf("room %d, want %d", got, want)
	}
	holders, numbers, byDID := n.w.Holders(), map[int]int{}, map[string]int{}
	for _, id := range n.ids() {
		e, at := n.events[id], holders[id]
		if _, known := holders[id]; known == e.unknown {
			t.Fatalf("%d: %+v", id, e)
		}
		if !e.unknown && e.holder > 0 && e.holder != at {
			t.Fatalf("%d moves from member %d to %d", id, e.holder, at)
		}
		if e.holder = at; e.unknown {
			continue
		}
		numbers[at]++
		if (at == 0) != (len(n.members) == 0) {
			t.Fatalf("%d is at member %d of %d", id, at, len(n.members))
		}
		if e.gap == 0 && !e.end {
			if other, ok := byDID[e.did]; ok && other != at {
				t.Fatalf("%s is at members %d and %d", e.did, at, other)
			}
			byDID[e.did] = at
		}
	}
	if len(byDID) != n.w.Accounts() {
		t.Fatalf("%d accounts are kept, of %v", n.w.Accounts(), byDID)
	}
	for _, m := range n.members {
		if m.held == 0 && m.Held() > 0 {
			m.active = n.now
		}
		if m.held = m.Held(); m.held != numbers[m.Number()] {
			t.Fatalf("member %d holds %d, want %d", m.Number(), m.Held(), numbers[m.Number()])
		}
		var queue []uint64
		for _, id := range n.ids() {
			if e := n.events[id]; e.queued && e.holder == m.Number() {
				queue = append(queue, id)
			}
		}
		if !slices.Equal(queue, m.Queue()) {
			t.Fatalf("queue of member %d is %d, want %d", m.Number(), m.Queue(), queue)
		}
	}
}

// drain acknowledges until nothing is left, and checks that nothing was forgotten.
func (n *naive) drain() {
	for len(n.members) == 0 {
		n.comeOrGo()
		n.compare()
	}
	for tries := 0; len(n.events) > 0 || n.snapshot != nil; tries++ {
		if tries > 1000 {
			n.t.Fatalf("%d are never sent", n.ids())
		}
		switch {
		case len(n.w.Unknown()) > 0:
			n.add()
			n.compare()
		case n.snapshot != nil && (n.snapshot.Read || n.w.Room() > 0):
			n.read(true)
			n.compare()
		}
		n.now++
		n.expire()
		n.compare()
		m := n.any()
		n.take(m, n.most)
		for id := range m.seen {
			m.active, m.stalled = n.now, false
			to := uint64(0)
			if e := n.events[id]; e != nil {
				to = e.gap
			}
			if n.w.Acknowledge(m.WindowMember, id, to, n.tail, at(n.now)) {
				n.settled(id)
			}
		}
		n.forget()
		n.compare()
	}
	for id := range n.did {
		if !n.finished[id] {
			n.t.Fatalf("%d was neither acknowledged nor lost", id)
		}
	}
}
