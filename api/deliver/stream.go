package deliver

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cistern/api/clients"
	"cistern/api/deliver/format"
	"cistern/api/wire"
	"cistern/filter"

	"github.com/gorilla/websocket"
)

// Stream answers GET /stream.
func (d *Delivery) Stream(w http.ResponseWriter, r *http.Request) error {
	q, err := parseParams(r)
	if err != nil {
		return err
	}
	at, err := q.position()
	if err != nil {
		return err
	}
	f, err := q.filter()
	if err != nil {
		return err
	}
	s := subscription{protocol: streamProtocol, position: at, filter: f}
	if err := q.form(r, &s); err != nil {
		return err
	}
	if s, err = d.resumption(q, s); err != nil {
		return err
	}
	s.format = d.formats.Cistern(s.elements())
	return d.open(w, r, s)
}

// streamProtocol is that of /stream.
var streamProtocol = &protocol{
	messageBytesMax: updateBytesMax,
	locate: func(_ context.Context, log Log, s *subscription) (err error) {
		switch {
		case s.timed:
			s.cursor, err = log.FirstSince(s.since)
		case !s.given:
			s.cursor = log.Head() + 1
		}
		return err
	},
	message: readUpdate,
	confirm: updated,
	failure: func(name, message string) []byte { return failed("type", name, message) },
}

// subscription is what a consumer asked for.
type subscription struct {
	position
	protocol *protocol
	filter   *filter.Events
	format   *format.Format
	most     uint32 // bytes of a message; longer ones are left out; 0: any number
	waits    bool   // for the first change, before the first event
	first    []byte // the message before all events; nil: none
	snapshot *snapshot
	variant  format.Variant // of Cistern's own format
	batch    int            // events of a message, which is an array; 0: each is a message
	deflates bool           // the handshake agrees on permessage-deflate
	// serve sends the events. Default: the log from position on.
	serve func(ctx context.Context, u *subscriber) error
	acks  *acks // of a durable subscription; nil: any other stream
}

// position is where a stream begins.
type position struct {
	cursor uint64 // inclusive; 0: the oldest event kept
	given  bool   // otherwise at the head
	clamps bool   // begins at the oldest event if the log has lost the cursor
	epoch  string // of the cursor; "": any
	timed  bool   // at the first event whose time is since or later
	since  int64  // unix microseconds
}

// open upgrades the request and serves the stream.
func (d *Delivery) open(w http.ResponseWriter, r *http.Request, s subscription) error {
	if !websocket.IsWebSocketUpgrade(r) {
		return upgradeRequired(r)
	}
	client := clients.Of(r.RemoteAddr)
	if !d.places.Take(client) {
		if !d.places.Full() {
			return wire.Refuse("RateLimitExceeded",
				"your address has as many of the %d streams as one client may have", d.max)
		}
		return wire.Refuse("Unavailable", "all %d places for subscribers are taken", d.max)
	}
	defer d.places.Give(client)
	if !d.slots.TryAcquire(1) {
		return wire.Refuse("Unavailable", "the server is about to stop")
	}
	defer d.slots.Release(1)
	d.metrics.subscribers.Inc()
	defer d.metrics.subscribers.Dec()
	d.pages.enter()
	defer d.pages.leave()
	filterHeld := int64(0)
	if s.filter != nil {
		var err error
		if filterHeld, err = d.holdFilter(client, s.filter); err != nil {
			return err
		}
	}
	u := &subscriber{Delivery: d, client: client, pongs: make(chan string, 1),
		changes: make(chan *change, 1), filterHeld: filterHeld}
	defer func() {
		u.forget()
		d.releaseFilter(client, u.filterHeld)
	}()
	if err := s.protocol.locate(r.Context(), d.log, &s); err != nil {
		return err
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: d.writeTimeout,
		Subprotocols:     s.protocol.subprotocols,
		// what is left of the offer, see offersDeflate
		EnableCompression: s.deflates,
		CheckOrigin:       func(*http.Request) bool { return true }, // public and read-only
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			wire.WriteJSON(w, status, wire.ErrorBody{Error: "InvalidRequest", Message: reason.Error()})
		},
	}
	if s.acks != nil {
		w = noting{w, func() { u.settleAll(r.Context()) }}
	}
	ws, err := upgrader.Upgrade(w, r, http.Header{"Cistern-Epoch": {d.epoch}})
	if err != nil {
		return nil // answered
	}
	if s.serve == nil {
		s.serve = func(ctx context.Context, u *subscriber) error { return u.begin(ctx) }
	}
	u.subscription, u.ws, u.conn = s, ws, ws.NetConn()
	// A stream lasts for hours, and a filter in its URL is long.
	r.URL, r.RequestURI, r.Header = &url.URL{Path: strings.Clone(r.URL.Path)}, "", nil
	u.run(r.Context())
	_ = ws.Close() // farewell may have closed it already
	return nil
}

// upgradeRequired returns the refusal of a request that does not ask for a WebSocket.
func upgradeRequired(r *http.Request) error {
	return wire.Refuse("UpgradeRequired", "%s is a WebSocket: connect with ws://", r.URL.Path)
}

// params are the parameters of a stream. Lists are given by commas or by repetition.
type params url.Values

func parseParams(r *http.Request) (params, error) {
	q := params{}
	// One by one: package url takes no more than 10,000 at a time, and a filter may have more.
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		values, err := url.ParseQuery(pair)
		if err != nil {
			return nil, wire.Invalid("the query string cannot be read: %v", err)
		}
		for name, given := range values {
			q[name] = append(q[name], given...)
		}
	}
	return q, nil
}

// single returns a parameter that may be given once, "" if it is missing.
func (q params) single(name string) (string, error) {
	if n := len(q[name]); n > 1 {
		return "", wire.Invalid("parameter %s is given %d times: want one value", name, n)
	}
	return url.Values(q).Get(name), nil
}

// list returns the items of a parameter.
func (q params) list(name string) (items []string) {
	for _, given := range q[name] {
		for item := range strings.SplitSeq(given, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, item)
			}
		}
	}
	return items
}

func (q params) position() (p position, err error) {
	cursor, cerr := q.single("cursor")
	epoch, eerr := q.single("epoch")
	if err := errors.Join(cerr, eerr); err != nil {
		return p, err
	}
	p.epoch = epoch
	if url.Values(q).Has("since") {
		return q.since(p)
	}
	if p.given = url.Values(q).Has("cursor"); !p.given {
		return p, nil
	}
	if p.cursor, err = strconv.ParseUint(cursor, 10, 64); err != nil {
		return p, wire.Invalid("cursor %s: want a whole number from 0 to %d",
			wire.Echo(cursor), uint64(math.MaxUint64))
	}
	return p, nil
}

// since adds the parameter since to a position.
func (q params) since(p position) (position, error) {
	text, err := q.single("since")
	if err != nil {
		return p, err
	}
	if url.Values(q).Has("cursor") {
		return p, wire.Invalid("both cursor and since are given: want one of them")
	}
	// What retention deletes meanwhile does not make the time wrong.
	p.timed, p.clamps = true, true
	if p.since, err = strconv.ParseInt(text, 10, 64); err == nil {
		return p, nil
	}
	// A client that does not escape the + of a zone sends a space.
	at, err := time.Parse(time.RFC3339, strings.ReplaceAll(text, " ", "+"))
	if err != nil {
		return p, wire.Invalid("since %s: want a time like 2026-01-02T15:04:05Z, or unix "+
			"microseconds", wire.Echo(text))
	}
	p.since = at.UnixMicro()
	return p, nil
}

func (q params) filter() (*filter.Events, error) {
	live, err := q.single("live")
	if err != nil {
		return nil, err
	}
	return compile(filter.EventsConfig{
		Collections: q.list("collections"), DIDs: q.list("dids"), Kinds: q.list("kinds"),
		Actions: q.list("actions"), Live: live,
	})
}

func compile(c filter.EventsConfig) (*filter.Events, error) {
	f, err := filter.CompileEvents(c)
	if err != nil {
		return nil, wire.Invalid("%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return f, nil
}
