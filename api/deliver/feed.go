package deliver

import (
	"context"
	"errors"
	"sort"
	"strconv"
	"time"

	"cistern/api/deliver/format"
	"cistern/api/durable"
	"cistern/filter"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// Why a feed ends although its log goes on.
var (
	// ErrDropped means that a subscription was deleted.
	ErrDropped = errors.New("the subscription was deleted")
	// ErrReplayed means that a subscription goes on at another position, with new members.
	ErrReplayed = errors.New("the subscription was replayed")
)

// Feed is what a member of a durable subscription has to send, for any transport. Run must run
// meanwhile. The other methods are for one goroutine; the consumer's answers go to the member:
// Acknowledge for what it has, Release for what is to be sent again at a later time.
type Feed struct {
	log      Log
	pages    *pages
	delivery *Delivery // for snapshots
	member   *durable.Member
	format   *format.Format
	items    []durable.Item // taken from the member, and not sent yet
	// blocked means that the items cannot be read before the log grows.
	blocked bool
}

// Feed returns the feed of a member, with messages in a format. The caller ends the member
// (Detach) after Run has returned.
func (d *Delivery) Feed(m *durable.Member, form *format.Format) *Feed {
	return &Feed{log: d.log, pages: d.pages, delivery: d, member: m, format: form}
}

// JSON returns the format of GET /stream, for a feed.
func (d *Delivery) JSON() *format.Format { return d.formats.Cistern(format.Variant{}) }

// Message is an event that a member is to send, a record of a snapshot, the end of one, or a gap.
type Message struct {
	ID    uint64 // what is to be acknowledged
	DID   string // "" of a gap or an end
	Time  int64  // unix microseconds; 0 of anything but an event
	GapTo uint64 // not 0: events from ID to this id were lost before they were acknowledged
	Again bool   // it was sent before, or may have been before a restart
	// Body is in the format of the feed. Of a gap it is
	// {"id":ID,"type":"gap","from":ID,"to":GapTo,"snapshot":PATH}, with a path to catch up with; of
	// an end it is {"id":ID,"type":"snapshot_end","next":NEXT}, with the id at which the log begins.
	Body []byte
}

// Run writes the position and has late events sent again, every saveEvery, and wakes Next when the
// log grows, until ctx ends or the subscription is deleted (ErrDropped) or replayed (ErrReplayed).
// When it returns, the position is durable as far as it was acknowledged before, unless it was
// replayed.
func (f *Feed) Run(ctx context.Context) error {
	f.pages.enter()
	defer f.pages.leave()
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return f.keep(inner) })
	g.Go(func() error { return f.heed(inner) })
	err := g.Wait()
	if serr := f.member.Save(); serr != nil {
		return serr
	}
	return err
}

// keep writes the position every saveEvery if it has changed, and has late events sent again.
func (f *Feed) keep(ctx context.Context) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			if err := f.member.Save(); err != nil {
				return err
			}
			f.member.Expire(now)
		}
	}
}

// ended says why the member is gone.
func (f *Feed) ended() error {
	if f.member.Replayed() {
		return ErrReplayed
	}
	return ErrDropped
}

// heed wakes the member when the log grows, and ends it when the subscription is deleted.
func (f *Feed) heed(ctx context.Context) error {
	for {
		changed := f.log.Changed() // before the signal, so that no change is missed
		f.member.Signal()
		select {
		case <-changed:
		case <-f.member.Gone():
			return f.ended()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Next waits for something to send, and returns from 1 to events messages, in rising order of id.
// It stops behind the one with which they have bytes bytes. Of an account they are in order over
// all calls. A gap, or an end, comes alone. What is neither acknowledged nor released comes again
// after the retry timeout, or with another member. The error is that of ctx, ErrDropped,
// ErrReplayed or that of the log.
func (f *Feed) Next(ctx context.Context, events, bytes int) ([]Message, error) {
	for {
		if err := f.Wait(ctx, events); err != nil {
			return nil, err
		}
		if out, err := f.Read(ctx, events, bytes); len(out) > 0 || err != nil {
			return out, err
		}
	}
}

// Wait waits until Read has something to look at, up to most events. The error is that of Next.
func (f *Feed) Wait(ctx context.Context, most int) error {
	for {
		if !f.blocked {
			moved, err := f.fill(ctx, most)
			if errors.Is(err, store.ErrOutdatedCursor) {
				moved, err = true, f.lose(ctx)
			}
			if err != nil || len(f.items) > 0 {
				return err
			}
			if moved {
				continue
			}
		}
		f.blocked = false
		select {
		case <-f.member.Wake():
		case <-f.member.Gone():
			return f.ended()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Read is Next without waiting. It returns nothing if what Wait has found is not to be sent after
// all, or cannot be read yet: then Wait waits.
func (f *Feed) Read(ctx context.Context, events, bytes int) ([]Message, error) {
	out, err := f.messages(ctx, events, bytes)
	switch {
	case len(out) > 0:
		return out, nil // what went wrong goes wrong again
	case errors.Is(err, store.ErrOutdatedCursor):
		return nil, f.lose(ctx)
	}
	f.blocked = err == nil && len(f.items) > 0
	return nil, err
}

// Back gives back messages, with everything that Read has not returned yet, so that they are sent
// again at once: the next call of Wait finds the first of them first.
func (f *Feed) Back(messages []Message) {
	items := make([]durable.Item, 0, len(messages))
	for _, m := range messages {
		items = append(items, durable.Item{ID: m.ID})
	}
	f.member.Back(items)
	f.member.Back(f.items)
	f.items = nil
}

// messages returns what Next returns of the items.
func (f *Feed) messages(ctx context.Context, events, bytes int) (out []Message, err error) {
	for len(f.items) > 0 && len(out) < events && bytes > 0 {
		was := len(f.items)
		switch kindOf(f.items[0]) {
		case mark:
			if len(out) == 0 {
				out = f.takeMark()
			}
			return out, nil
		case currentRecord:
			out, bytes, err = f.encodeRecords(ctx, out, events, bytes)
		case logEvent:
			var pg *sharedPage
			if pg, err = f.page(ctx); err == nil {
				out, bytes = f.encode(out, pg, events, bytes)
			}
		}
		if err != nil || len(f.items) == was {
			return out, err
		}
	}
	return out, nil
}

// kind is what an item is.
type kind uint8

const (
	logEvent      kind = iota
	currentRecord      // of a snapshot
	mark               // a gap, or the end of a snapshot
)

func kindOf(it durable.Item) kind {
	switch {
	case it.Gap != 0 || it.End != 0:
		return mark
	case it.Record.Path != "":
		return currentRecord
	}
	return logEvent
}

// encode appends to out the messages of the items on a page, as long as there are less than events
// and there are bytes left.
func (f *Feed) encode(out []Message, pg *sharedPage, events, bytes int) ([]Message, int) {
	encoder, i, again := f.format.NewEncoder(), int32(0), 0
	for len(f.items) > 0 && len(out) < events && bytes > 0 {
		it, ok := f.items[0], false
		if it.Gap != 0 || it.ID >= pg.next {
			break
		}
		f.items = f.items[1:]
		if i, ok = f.place(pg, it.ID, i); !ok {
			continue
		}
		ev := &pg.events[i].Event
		body, result := encoder.Encode(nil, ev)
		if result >= format.LeftOut {
			f.member.Settle(it.ID) // the format has no such event
			continue
		}
		if it.Again {
			again++
		}
		bytes -= len(body)
		out = append(out, Message{ID: it.ID, DID: ev.DID, Time: ev.Time, Again: it.Again, Body: body})
	}
	f.member.Resent(again)
	return out, bytes
}

// fill takes from the member what is to be sent next, up to most events. If there is nothing, it
// adds the next events of the log. moved is false if nothing has changed.
func (f *Feed) fill(ctx context.Context, most int) (moved bool, err error) {
	if len(f.items) > 0 {
		return false, nil
	}
	if f.items = f.member.Take(most, time.Now()); len(f.items) > 0 {
		return true, nil
	}
	if moved, err = f.pick(ctx); err != nil {
		return moved, err
	}
	f.items = f.member.Take(most, time.Now())
	return moved || len(f.items) > 0, nil
}

// pick makes the events of the next page outstanding that the filter wants and the window has room
// for, each for one of the members. They are outstanding before they are sent: whatever happens to
// a member, they are sent again. After a restart, the accounts of outstanding events come first. A
// snapshot comes before the log.
func (f *Feed) pick(ctx context.Context) (moved bool, err error) {
	if err := f.member.Turn(ctx); err != nil {
		return false, err
	}
	defer f.member.EndTurn()
	if ids := f.member.Unknown(); len(ids) > 0 {
		return f.identify(ctx, ids)
	}
	if r, ok := f.member.Reading(); ok {
		return f.pickRecords(ctx, r)
	}
	cursor, last, room := f.member.Next()
	if room == 0 {
		return false, nil
	}
	pg := f.pages.rest(last, cursor) // the turn keeps the position where it is
	if pg == nil {
		if pg, err = f.pages.read(ctx, cursor); err != nil || pg.next == cursor {
			return false, err
		}
	}
	f.member.Add(time.Now(), func(wants *filter.Events, room int) ([]durable.Event, uint64) {
		places, next := pg.pick(nil, wants), pg.next
		passed := sort.Search(len(places), func(i int) bool { return pg.events[places[i]].ID >= cursor })
		places = places[passed:]
		if len(places) > room {
			places = places[:room]
			next = pg.events[places[room-1]].ID + 1
		}
		events := make([]durable.Event, 0, len(places))
		for _, i := range places {
			events = append(events, durable.Event{ID: pg.events[i].ID, DID: pg.events[i].DID,
				Page: pg.id})
		}
		return events, next
	})
	return true, nil
}

// identify reads the accounts of the first of some outstanding events. The turn is the member's.
func (f *Feed) identify(ctx context.Context, ids []uint64) (moved bool, err error) {
	pg, err := f.pages.some(ctx, ids[0], dense(ids))
	if err != nil {
		return false, err
	}
	var events []durable.Event
	i := 0
	for _, id := range ids {
		if id >= pg.next {
			break
		}
		for i < len(pg.events) && pg.events[i].ID < id {
			i++
		}
		if i == len(pg.events) || pg.events[i].ID != id {
			f.member.Settle(id) // its account was hidden
			continue
		}
		events = append(events, durable.Event{ID: id, DID: pg.events[i].DID})
	}
	f.member.Identify(events, time.Now())
	return ids[0] < pg.next, nil
}

// page returns a page with the first item, which is no gap. The page may end before it if a later
// change of the log is not durable yet.
func (f *Feed) page(ctx context.Context) (*sharedPage, error) {
	first := f.items[0]
	if first.Page != 0 && !first.Again {
		pg, err := f.pages.read(ctx, first.Page)
		if err != nil || pg.next > first.ID {
			return pg, err
		}
	}
	ids := make([]uint64, 0, len(f.items))
	for _, it := range f.items {
		ids = append(ids, it.ID)
	}
	return f.pages.some(ctx, first.ID, dense(ids))
}

// dense returns how many ids of the log have the first of some ids and those that are near enough
// to it to be read at once.
func dense(ids []uint64) uint64 {
	last := ids[0]
	for _, id := range ids {
		if id-last > denseIDs {
			break
		}
		last = id
	}
	return last - ids[0] + 1
}

// places appends to dst the places in a page of the first items that the member is still to send.
// n is the number of items up to the end of the page, and again how many of the places were sent
// before.
func (f *Feed) places(dst []int32, pg *sharedPage) (_ []int32, n, again int) {
	i := int32(0)
	for _, it := range f.items {
		if it.Gap != 0 || it.ID >= pg.next {
			break
		}
		n++
		at, ok := f.place(pg, it.ID, i)
		if !ok {
			continue
		}
		i = at
		if dst = append(dst, i); it.Again {
			again++
		}
	}
	return dst, n, again
}

// place returns the place of an event in a page, from place i on. ok is false if the member is not
// to send it.
func (f *Feed) place(pg *sharedPage, id uint64, i int32) (_ int32, ok bool) {
	for int(i) < len(pg.events) && pg.events[i].ID < id {
		i++
	}
	if int(i) == len(pg.events) || pg.events[i].ID != id {
		f.member.Settle(id) // hidden since it was added
		return i, false
	}
	return i, f.member.Again(id, time.Now())
}

// takeMark takes the gap or the end that is the first item, and returns it if the member is to send
// it.
func (f *Feed) takeMark() []Message {
	it := f.items[0]
	f.items = f.items[1:]
	if !f.member.Again(it.ID, time.Now()) {
		return nil
	}
	body := f.gap
	if it.End != 0 {
		body = endOf
	}
	return []Message{{ID: it.ID, GapTo: it.Gap, Again: it.Again, Body: body(it)}}
}

// lose gives up the events that the log has lost, and has a gap sent in their place.
func (f *Feed) lose(ctx context.Context) error {
	tail, err := oldest(ctx, f.log, 0)
	if err != nil {
		return err
	}
	f.member.Back(f.items)
	f.items = nil
	f.member.Lost(tail, time.Now())
	return nil
}

// gap returns the message that says which events were lost before they were acknowledged.
func (f *Feed) gap(it durable.Item) []byte {
	out := strconv.AppendUint([]byte(`{"id":`), it.ID, 10)
	out = strconv.AppendUint(append(out, `,"type":"gap","from":`...), it.ID, 10)
	out = strconv.AppendUint(append(out, `,"to":`...), it.Gap, 10)
	if path := f.member.Snapshot(); path != "" {
		// The escapes of a URL leave nothing that JSON has to escape.
		out = append(append(append(out, `,"snapshot":"`...), path...), '"')
	}
	return append(out, '}')
}
