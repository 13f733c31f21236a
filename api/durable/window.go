package durable

import (
	"slices"
	"time"

	"cistern/store"
)

// window is what one consumer has and has not acknowledged of the log: every event before next is
// settled, except the outstanding ones. It does no I/O, and time is an argument.
type window struct {
	next        uint64
	outstanding []sentEvent // in rising order of id
	most        int         // outstanding events that leave no room
	retry       time.Duration
	// early is at or before the time at which the first outstanding event is due.
	early time.Time
}

// sentEvent is an outstanding event.
type sentEvent struct {
	id    uint64
	did   string    // "" until it is sent in this process
	first time.Time // when it became outstanding in this process
	due   time.Time // zero: at once
}

// newWindow returns the window at a position. Its outstanding events are due at once.
func newWindow(p store.SubscriptionPosition, most int, retry time.Duration, now time.Time) *window {
	w := &window{next: p.Next, most: most, retry: retry}
	for _, id := range p.Outstanding {
		w.outstanding = append(w.outstanding, sentEvent{id: id, first: now})
	}
	return w
}

// position returns what is to be kept of the window.
func (w *window) position() store.SubscriptionPosition {
	p := store.SubscriptionPosition{Next: w.next}
	for i := range w.outstanding {
		p.Outstanding = append(p.Outstanding, w.outstanding[i].id)
	}
	return p
}

// restart makes all outstanding events due at once, for a new connection.
func (w *window) restart() {
	for i := range w.outstanding {
		w.outstanding[i].due = time.Time{}
	}
	w.early = time.Time{}
}

// room returns how many events may become outstanding.
func (w *window) room() int { return max(0, w.most-len(w.outstanding)) }

// pass moves next forward, past events that the consumer does not want.
func (w *window) pass(next uint64) { w.next = max(w.next, next) }

// sent makes the event with that id outstanding. The id is next or higher.
func (w *window) sent(id uint64, did string, now time.Time) {
	e := sentEvent{id: id, did: did, first: now, due: now.Add(w.retry)}
	if len(w.outstanding) == 0 || e.due.Before(w.early) {
		w.early = e.due
	}
	w.outstanding = append(w.outstanding, e)
	w.next = id + 1
}

// again restarts the time of an event that is being sent again. It reports whether the event is
// still outstanding; otherwise it must not be sent.
func (w *window) again(id uint64, did string, now time.Time) bool {
	i, ok := w.find(id)
	if ok {
		w.outstanding[i].did, w.outstanding[i].due = did, now.Add(w.retry)
	}
	return ok
}

// settle makes an event not outstanding: it was acknowledged, or is no longer to be sent. An id
// that is not outstanding is ignored.
func (w *window) settle(id uint64) (changed bool) {
	i, ok := w.find(id)
	if ok {
		w.outstanding = slices.Delete(w.outstanding, i, i+1)
	}
	return ok
}

func (w *window) find(id uint64) (at int, ok bool) {
	return slices.BinarySearchFunc(w.outstanding, id, func(e sentEvent, id uint64) int {
		switch {
		case e.id < id:
			return -1
		case e.id > id:
			return 1
		}
		return 0
	})
}

// due returns the events to send again, in rising order of id: each event that was not acknowledged
// in time, and all later events of its account, so that the order of each repository is kept.
func (w *window) due(now time.Time) (ids []uint64) {
	if len(w.outstanding) == 0 || now.Before(w.early) {
		return nil
	}
	late := map[string]bool{}
	for i := range w.outstanding {
		e := &w.outstanding[i]
		if e.due.After(now) && (e.did == "" || !late[e.did]) {
			continue
		}
		late[e.did] = true
		ids = append(ids, e.id)
	}
	if len(ids) == 0 { // early was too early
		w.early = w.outstanding[0].due
		for i := range w.outstanding {
			if e := &w.outstanding[i]; e.due.Before(w.early) {
				w.early = e.due
			}
		}
	}
	return ids
}

// alarm returns when due is to be called again; ok is false if nothing is outstanding.
func (w *window) alarm() (at time.Time, ok bool) { return w.early, len(w.outstanding) > 0 }

// lost gives up what is before tail, which the log no longer has. It returns the first id of the
// gap, which is outstanding in place of all of it. ok is false if nothing is lost.
func (w *window) lost(tail uint64, now time.Time) (from uint64, ok bool) {
	n, _ := w.find(tail)
	switch {
	case n > 0:
		from = w.outstanding[0].id
	case w.next < tail:
		from = w.next
	default:
		return 0, false
	}
	gap := sentEvent{id: from, first: now, due: now.Add(w.retry)}
	if n > 0 {
		gap.first = w.outstanding[0].first
	}
	w.outstanding = slices.Replace(w.outstanding, 0, n, gap)
	w.next = max(w.next, tail)
	return from, true
}

// oldest returns when the first outstanding event became outstanding; ok is false if none is.
func (w *window) oldest() (at time.Time, ok bool) {
	if len(w.outstanding) == 0 {
		return at, false
	}
	return w.outstanding[0].first, true
}
