package deliver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"cistern/api/clients"
	"cistern/api/deliver/format"
	"cistern/api/deliver/wsframe"
	"cistern/api/wire"
	"cistern/filter"
	"cistern/store"

	"github.com/gorilla/websocket"
)

// refusalOf has the words of package api.
func refusalOf(err error) (name, message string) {
	var r *wire.Refusal
	switch {
	case errors.As(err, &r):
		return r.Name, r.Message
	case errors.Is(err, store.ErrFutureCursor):
		return "FutureCursor", err.Error()
	case errors.Is(err, store.ErrOutdatedCursor):
		return "OutdatedCursor", err.Error()
	}
	return "InternalError", "internal error"
}

// cistern is the format of a stream without parameters.
var cistern = func() *format.Format {
	set, err := format.NewSet("epoch1", nil)
	if err != nil {
		panic(err)
	}
	return set.Cistern(format.Variant{})
}()

func newTest(log Log, o Options) *Delivery {
	o.Log, o.Epoch, o.Refusal = log, cmp.Or(o.Epoch, "epoch1"), refusalOf
	if r, ok := log.(Records); ok && o.Records == nil {
		o.Records = r
	}
	d, err := New(o)
	if err != nil {
		panic(err)
	}
	return d
}

// StreamHandler serves streams from a log.
func StreamHandler(log Log, o Options) http.Handler { return handler(newTest(log, o)) }

// StreamHandlerHolding is StreamHandler with a limit of the bytes of long pages that subscribers
// hold. uses is how many of them hold or wait for one.
func StreamHandlerHolding(log Log, o Options, bytes int64) (h http.Handler, uses func() int) {
	d := newTest(log, o)
	d.held = clients.NewTurns(bytes)
	return handler(d), d.held.Uses
}

// StreamHandlerFilters is StreamHandler with a budget for filters. uses is how many filters hold a
// part of it.
func StreamHandlerFilters(log Log, o Options, bytes int64) (h http.Handler, uses func() int) {
	d := newTest(log, o)
	d.filters = clients.NewTurns(bytes)
	return handler(d), d.filters.Uses
}

// StreamHandlerBusy is StreamHandler while a message of a client is being understood, until release
// is called. uses is how many messages are being understood or wait.
func StreamHandlerBusy(log Log, o Options, client string) (h http.Handler, release func(), uses func() int) {
	d := newTest(log, o)
	c := clients.Of(client)
	if !d.messages.TryAcquire(c, 1) {
		panic("a message is being understood")
	}
	return handler(d), func() { d.messages.Release(c, 1) }, d.messages.Uses
}

func handler(d *Delivery) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serve := d.Stream
		switch r.URL.Path {
		case Events:
			r.SetPathValue("name", "a")
			serve = d.Durable
		case "/channel":
			serve = d.Tap
		case "/subscribe":
			serve = d.Jetstream1
		case Subscribe2:
			serve = d.Jetstream2
		case GetDictionary, "/stream/dictionary":
			serve = d.ZstdDictionary
		}
		if err := serve(w, r); err != nil {
			name, message := refusalOf(err)
			status := http.StatusBadRequest
			switch name {
			case "UpgradeRequired":
				status = http.StatusUpgradeRequired
			case "RateLimitExceeded":
				status = http.StatusTooManyRequests
			case "DictionaryNotFound":
				status = http.StatusNotFound
			case "Unavailable":
				status = http.StatusServiceUnavailable
			}
			wire.WriteJSON(w, status, wire.ErrorBody{Error: name, Message: message})
		}
	})
}

// Pager reads pages of a log as a stream without a filter does.
type Pager struct{ pages *pages }

// NewPager makes one.
func NewPager(log Log, o Options) *Pager {
	p := newTest(log, o).pages
	p.enter()
	return &Pager{p}
}

// Read gives the page from cursor on.
func (p *Pager) Read(ctx context.Context, cursor uint64) (frames []byte, next uint64, err error) {
	pg, err := p.pages.read(ctx, cursor)
	if err != nil {
		return nil, 0, err
	}
	all, _, err := p.pages.frames(ctx, nil, pg, cistern, pg.pick(nil, &filter.Events{}), 0)
	if len(all) == 0 {
		return nil, pg.next, err
	}
	return all[0], pg.next, err
}

// AppendEvent encodes one event.
func AppendEvent(ev *store.Event) (frame []byte, refused int) {
	var p page
	p.add(ev)
	frames, _, m := p.frames(nil, cistern, []int32{0}, 0)
	return frames[0], m.refused
}

// NewWith returns a Delivery with durable subscriptions, and its handler.
func NewWith(log Log, o Options) (*Delivery, http.Handler) {
	d := newTest(log, o)
	return d, handler(d)
}

// Events is the path of the events of subscription a.
const Events = "/subscriptions/a/events"

// Subscribe2 is the path of version 2 of Jetstream.
const Subscribe2 = "/xrpc/network.bsky.jetstream.subscribeEvents"

// GetDictionary is the path of its dictionary.
const GetDictionary = "/xrpc/network.bsky.jetstream.getZstdDictionary"

// Encode1 and Encode2 return the message of an event in a version of Jetstream, "" for none.
func Encode1(ev *store.Event) string { return message(format.Jetstream1, ev) }

func Encode2(ev *store.Event) string { return message(format.Jetstream2, ev) }

func message(f *format.Format, ev *store.Event) string {
	out, result := f.NewEncoder().Encode([]byte("x"), ev)
	if result >= format.LeftOut && string(out) != "x" {
		panic("something was appended")
	}
	return string(out[1:])
}

// Subscribers read the parameters of both versions of Jetstream, and find where the stream begins.
func Subscribers(log Log) (both [2]func(r *http.Request) (cursor uint64, err error)) {
	d := newTest(log, Options{})
	for i, read := range []func(*http.Request) (subscription, error){d.subscribe1, d.subscribe2} {
		both[i] = func(r *http.Request) (uint64, error) {
			s, err := read(r)
			if err == nil {
				err = s.protocol.locate(r.Context(), log, &s)
			}
			return s.cursor, err
		}
	}
	return both
}

// ReadOptions reads a message of a consumer of version 1 of Jetstream.
func ReadOptions(r io.Reader) (f *filter.Events, most uint32, err error) {
	body, err := io.ReadAll(r)
	if err != nil {
		return nil, 0, err
	}
	c, err := readOptions(websocket.TextMessage, body)
	if c == nil {
		return nil, 0, err
	}
	return c.filter, c.most, err
}

// FrameEnd is wsframe.End.
var FrameEnd = wsframe.End

// ParseAck reads an acknowledgement in one of the forms that clients write.
var ParseAck = parseAck

// ReadAck and ReadTapAck read any message of a consumer that acknowledges.
var (
	ReadAck    = readAck
	ReadTapAck = readTap
)

// ParseUpdate is parseUpdate.
func ParseUpdate(r io.Reader) (*filter.Events, error) {
	body, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return parseUpdate(body)
}

// Encode encodes the events at some places of a page, one call of each list, and returns how many
// bytes each call encoded.
func Encode(events []store.Event, lists ...[]int32) (bytes []int) {
	var p page
	for i := range events {
		p.add(&events[i])
	}
	for _, places := range lists {
		_, _, m := p.frames(nil, cistern, places, 0)
		bytes = append(bytes, m.bytes)
	}
	return bytes
}

// Pinned encodes all events of a page, and returns the frames of one of them, and whether they are
// in the memory of the whole page.
func Pinned(events []store.Event, place int32) (frame []byte, inPage bool) {
	var p page
	var all []int32
	for i := range events {
		p.add(&events[i])
		all = append(all, int32(i))
	}
	whole, _, _ := p.frames(nil, cistern, all, 0)
	part, _, _ := p.frames([][]byte{nil}, cistern, []int32{place}, 0)
	frame = bytes.Clone(part[1])
	clear(whole[0])
	return frame, !bytes.Equal(frame, part[1])
}

// StreamHandlerUntil is StreamHandler, and waits until no stream is open.
func StreamHandlerUntil(log Log, o Options) (h http.Handler, wait func(context.Context) error) {
	d := newTest(log, o)
	return handler(d), d.Wait
}

// RecordToken is the token of a record of a pass.
func RecordToken(epoch string, p *store.Pass, at store.RecordPosition) string {
	w := format.PassTokens(epoch, p)
	return string(w.AppendRecord(nil, p.Order, at))
}

// ReencodeToken reads a token and writes it again.
func ReencodeToken(text string) (string, error) {
	t, err := format.ParseToken(text)
	if err != nil || t.Order == format.InLog {
		w := format.LogTokens(t.Epoch)
		return string(w.AppendEvent(nil, t.Head)), err
	}
	return RecordToken(t.Epoch, &store.Pass{Head: t.Head, End: t.End, Order: t.Order, Sum: t.Sum}, t.At), nil
}

// Kept returns the number of pages that are kept to be shared.
func (p *Pager) Kept() int {
	p.pages.mu.Lock()
	defer p.pages.mu.Unlock()
	return len(p.pages.recent)
}

// Leave ends the stream that a Pager is.
func (p *Pager) Leave() { p.pages.leave() }

// TapPace decides how many events a client of tap is sent before it acknowledges.
type TapPace struct{ p *tapPace }

// NewTapPace makes one.
func NewTapPace() TapPace { return TapPace{newTapPace()} }

func (p TapPace) Room(now time.Time) int               { return p.p.room(now) }
func (p TapPace) Send(now time.Time, ids ...uint64)    { p.p.send(ids, now) }
func (p TapPace) Acknowledged(id uint64) (counts bool) { return p.p.acknowledged(id) }
