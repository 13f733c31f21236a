package deliver

import (
	"sync"

	"cistern/api/deliver/format"
	"cistern/filter"
	"cistern/store"
)

// page is a range of the log: its visible events, decoded once for all streams that read it.
type page struct {
	next   uint64 // id at which the next page begins
	events []event
	dids   []string // DIDs of events, once for each run of equal DIDs
	names  [][]byte // collections of events, likewise
	bytes  int      // size of the events in memory
	repos  bool     // events has repo events, which most filters do not want
	arena  []byte   // free rest of the memory for the bytes of events

	// mu guards:
	mu        sync.Mutex
	encodings []*encoding
}

// made counts what a call of frames encoded.
type made struct {
	bytes   int
	refused int // records without a JSON form
}

// event is an event whose bytes the page owns.
type event struct {
	store.Event
	did, name int32 // indexes of dids and names; name is -1 without a collection
}

// encoding is a page in one format, as frames.
type encoding struct {
	format  *format.Format
	encoder format.Encoder
	buf     []byte
	frames  []span // of the events, in buf
	left    int    // events not encoded yet
}

// span is empty if the format has no such event, or the event is not encoded yet.
type span struct {
	from, to int
	size     uint32 // size of the message before compression
	done     bool   // the event is encoded, or the format does not have it
}

// add copies an event of the log.
func (p *page) add(ev *store.Event) {
	e := event{Event: *ev, name: -1}
	if n := len(p.dids); n == 0 || p.dids[n-1] != ev.DID {
		p.dids = append(p.dids, ev.DID)
	}
	e.did = int32(len(p.dids) - 1)
	if ev.Kind == store.KindRecord {
		if n := len(p.names); n == 0 || string(p.names[n-1]) != string(ev.Collection) {
			p.names = append(p.names, p.own(ev.Collection))
		}
		e.name = int32(len(p.names) - 1)
		e.Collection = p.names[e.name]
		e.Rkey, e.Record = p.own(ev.Rkey), p.own(ev.Record)
	}
	p.repos = p.repos || ev.Kind == store.KindRepo
	p.events = append(p.events, e)
	p.bytes += eventBytes + len(ev.Record)
}

// own returns a copy of b.
func (p *page) own(b []byte) []byte {
	if len(b) > cap(p.arena)-len(p.arena) {
		// A page at the head has few events: it begins small.
		p.arena = make([]byte, 0, max(len(b), min(2*cap(p.arena), arenaBytes), arenaBytes/32))
	}
	at := len(p.arena)
	p.arena = append(p.arena, b...)
	return p.arena[at:len(p.arena):len(p.arena)]
}

// pick appends to dst the indexes of the events that a filter wants.
func (p *page) pick(dst []int32, f *filter.Events) []int32 {
	if f.All() && (!p.repos || f.Kind(uint8(store.KindRepo))) {
		for i := range p.events {
			dst = append(dst, int32(i))
		}
		return dst
	}
	did, name, didOK, nameOK := int32(-1), int32(-1), false, false
	for i := range p.events {
		ev := &p.events[i]
		if ev.did != did {
			did, didOK = ev.did, f.DID(p.dids[ev.did])
		}
		if !didOK || !f.Kind(uint8(ev.Kind)) {
			continue
		}
		if ev.Kind == store.KindRecord {
			if ev.name != name {
				name, nameOK = ev.name, f.Collection(p.names[ev.name])
			}
			if !nameOK || !f.Record(uint8(ev.Action), ev.Live) {
				continue
			}
		}
		dst = append(dst, int32(i))
	}
	return dst
}

// frames appends to dst the frames of the events at some indexes whose messages have at most most
// bytes (0: any number). The memory of the frames does not change later. events is the number of
// events in the frames, and made counts what this call encoded.
func (p *page) frames(
	dst [][]byte, f *format.Format, places []int32, most uint32,
) (_ [][]byte, events int, made made) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.encoding(f)
	if e.left > 0 {
		made = e.encode(p.events, places)
	}
	// Frames that follow each other in memory become one slice.
	begin, from, to := len(dst), 0, 0
	for _, i := range places {
		at := e.frames[i]
		switch {
		case at.from == at.to || most > 0 && at.size > most:
			continue
		case at.from == to:
			to = at.to
		default:
			if to > from {
				dst = append(dst, e.buf[from:to:to])
			}
			from, to = at.from, at.to
		}
		events++
	}
	if to > from {
		dst = append(dst, e.buf[from:to:to])
	}
	return e.part(dst, begin), events, made
}

// divide returns the ids of the events at some places, which were encoded: those that the format
// has, and those that it leaves out.
func (p *page) divide(f *format.Format, places []int32) (in, out []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.encoding(f)
	for _, i := range places {
		if id := p.events[i].ID; e.frames[i].from == e.frames[i].to {
			out = append(out, id)
		} else {
			in = append(in, id)
		}
	}
	return in, out
}

// part returns dst with a copy of its frames from index begin on if they are the smaller part of a
// large encoding: a subscriber that does not read would keep all of it in memory.
func (e *encoding) part(dst [][]byte, begin int) [][]byte {
	size := 0
	for _, f := range dst[begin:] {
		size += len(f)
	}
	if size == 0 || cap(e.buf) <= pinnedMax || 2*size >= cap(e.buf) {
		return dst
	}
	whole := make([]byte, 0, size)
	for _, f := range dst[begin:] {
		whole = append(whole, f...)
	}
	clear(dst[begin:])
	return append(dst[:begin], whole)
}

// encoding returns the page in a format, as far as it is encoded. mu is held.
func (p *page) encoding(f *format.Format) *encoding {
	for _, e := range p.encodings {
		if e.format == f {
			return e
		}
	}
	e := &encoding{format: f, encoder: f.NewEncoder(), frames: make([]span, len(p.events)),
		left: len(p.events)}
	p.encodings = append(p.encodings, e)
	return e
}

// encode encodes the events at some indexes, except events that are encoded already.
func (e *encoding) encode(events []event, places []int32) (m made) {
	if e.buf == nil {
		size := 0
		for _, i := range places {
			size += eventBytes + len(events[i].Record)*5/4
		}
		e.buf = make([]byte, 0, size)
	}
	var plain []byte
	for _, i := range places {
		if e.frames[i].done {
			continue
		}
		e.frames[i].done = true
		e.left--
		start := len(e.buf)
		buf, size, result := e.format.AppendEvent(e.buf, e.encoder, &events[i].Event, &plain)
		if result == format.Unrepresentable || result == format.LeftOut {
			m.refused++
		}
		e.buf = buf
		e.frames[i] = span{start, len(buf), uint32(size), true}
		m.bytes += len(buf) - start
	}
	return m
}
