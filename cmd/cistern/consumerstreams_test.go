package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// follower is a consumer of some kind. It has its own goroutine.
type follower interface {
	// session consumes for a while, over one connection or more, and may crash.
	session(ctx context.Context) error
	// settle consumes until the follower has everything up to the end of a log that does not grow.
	settle(ctx context.Context) error
	// restart forgets what is held and where the consumer was, which the log has lost.
	restart()
	// at returns the id that the follower needs next; 0 if it would begin anew.
	at() uint64
	// result returns what is held, by which filter; ok is false if the filter leaves out too much.
	result() (held fold, want wish, ok bool)
}

var (
	errAway     = errors.New("the daemon is away")
	errOutdated = errors.New("the log has lost what comes next")
	errEnough   = errors.New("enough for this connection")
)

// way is a protocol of streams.
type way interface {
	// target returns the path and query of a connection that goes on where a consumer is, and the
	// id that it begins at; 0 if only the daemon knows.
	target(c *stream) (path string, from uint64)
	// read returns the events of a message.
	read(c *stream, kind int, message []byte) ([]delivered, error)
	// update returns the message that replaces the filter. answered is whether the stream says from
	// which event on it holds. A way without such a message returns nil.
	update(want wish) (message []byte, answered bool)
}

// stream is a consumer that keeps its own position.
type stream struct {
	w    *deliveries
	name string
	rng  *rand.Rand
	way  way
	streamState
	saved streamState  // what a crash leaves
	log   *[]delivered // gets every event; nil: none is needed
	path  string       // instead of what the way says; ""
}

// streamState is what a consumer of a stream keeps in one transaction.
type streamState struct {
	want  wish
	held  fold
	begun bool   // held is what the store had before next, as far as it is wanted
	next  uint64 // 0: not known
	token string // of the last frame; "" on a way without tokens
	time  int64  // of the last event, on a way that has it
	epoch string
}

func (s streamState) clone() streamState {
	s.held = s.held.clone()
	return s
}

func (c *stream) at() uint64                 { return c.next }
func (c *stream) result() (fold, wish, bool) { return c.held, c.want, c.want.folds() }
func (c *stream) restart() {
	c.streamState = streamState{want: c.want, held: fold{}}
}
func (c *stream) crash() { c.streamState = c.saved.clone() }
func (c *stream) mistake(f string, a ...any) error {
	return fmt.Errorf("%s at %d: "+f, append([]any{c.name, c.next}, a...)...)
}

// session reads some messages from a new connection, at random speed, and then leaves or crashes.
func (c *stream) session(ctx context.Context) error {
	k, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer k.leave(c.rng.IntN(2) == 0)
	for n := c.rng.IntN(300); n > 0 && err == nil && !c.w.frozen.Load(); n-- {
		switch c.rng.IntN(60) {
		case 0:
			pause(ctx, time.Duration(c.rng.IntN(60))*time.Millisecond)
		case 1, 2, 3:
			c.saved = c.streamState.clone()
		case 4:
			_, rich := c.way.(*cisternWay)
			err = k.ask(c.w.other(c.rng, c.want, rich))
		}
		if err == nil {
			err = k.receive(time.Duration(10+c.rng.IntN(300)) * time.Millisecond)
		}
	}
	if errors.Is(err, errEnough) {
		err = nil
	}
	if err = errors.Join(err, k.pass()); err != nil && !errors.Is(err, errAway) {
		return err
	}
	if c.rng.IntN(4) == 0 {
		c.w.ledger.count("crashes of consumers", 1)
		c.crash()
	}
	return err
}

// settle reads up to the end of the log.
func (c *stream) settle(ctx context.Context) error {
	_, answered := c.way.update(c.want)
	if c.next == 0 && !answered && !c.want.folds() {
		return nil // it would begin at the head
	}
	k, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer k.leave(true)
	for err == nil {
		switch {
		case !answered && k.way == c.way && c.next > c.w.last(&c.want):
			if err := c.w.keeps(k.from); err != nil {
				return err // what is left has nothing that is wanted
			}
			return k.pass()
		case answered && k.asked == nil && k.heard > c.w.head:
			return k.pass()
		case answered && k.asked == nil:
			if k.heard > 0 {
				pause(ctx, time.Millisecond)
			}
			err = k.send(c.want, true)
		}
		if err == nil {
			err = k.receive(time.Minute)
		}
	}
	if errors.Is(err, errEnough) { // a snapshot, before the stream itself
		return c.settle(ctx)
	}
	return err
}

// connection is one connection of a stream.
type connection struct {
	*stream
	ws     *websocket.Conn
	way    way
	tokens bool   // each frame has one
	asked  *wish  // an update that is not answered yet
	less   bool   // and takes nothing in that was left out before
	heard  uint64 // the id in the last answer

	from    uint64 // where the passage begins; 0: not known
	since   int64  // no event is older
	last    uint64
	got     map[uint64]bool
	loose   bool  // events are only compared: what is held does not fit the filter
	turned  *wish // the filter before an update that has no answer
	turnAt  uint64
	turning []delivered // events since
}

// connect goes on where the consumer is. A consumer without a position begins with a snapshot, if
// its filter can be folded.
func (c *stream) connect(ctx context.Context) (*connection, error) {
	k := &connection{stream: c, way: c.way, got: map[uint64]bool{}}
	if !c.begun && c.want.folds() {
		if _, own := c.way.(*cisternWay); !own {
			k.way = &cisternWay{tokens: true}
		}
	}
	path, from := k.way.target(c)
	if c.path != "" {
		path = c.path
	}
	k.from, k.since = from, c.time
	k.tokens = strings.Contains(path, "resume=") || strings.Contains(path, "snapshot=true")
	d := websocket.Dialer{HandshakeTimeout: 10 * time.Second}
	if w, ok := k.way.(*cisternWay); ok {
		d.EnableCompression = w.deflate
	}
	ws, res, err := d.DialContext(ctx, "ws://"+c.w.index.public+path, nil)
	if err != nil {
		return nil, c.refused(path, res, err)
	}
	c.w.ledger.count("connections", 1)
	c.epoch = res.Header.Get("Cistern-Epoch")
	k.ws = ws
	return k, nil
}

// refused says what a failed attempt to connect means.
func (c *stream) refused(path string, res *http.Response, err error) error {
	if res == nil {
		return errAway
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	switch {
	case strings.Contains(string(text), "OutdatedCursor"),
		strings.Contains(string(text), "CursorTooOld"):
		return errOutdated
	case res.StatusCode == http.StatusServiceUnavailable:
		return errAway
	}
	return c.mistake("%s: %w: %s %s", path, err, res.Status, text)
}

// leave ends the connection, with or without a word.
func (k *connection) leave(polite bool) {
	if polite {
		_ = sayGoodbye(k.ws)
	}
	_ = k.ws.Close()
}

// sayGoodbye sends a close frame.
func sayGoodbye(ws *websocket.Conn) error {
	const normal = 1000
	return ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(normal, ""),
		time.Now().Add(time.Second))
}

// ask changes the filter.
func (k *connection) ask(want wish, less bool) error {
	if k.asked != nil || k.turned != nil || k.loose || k.way != k.stream.way {
		return nil
	}
	return k.send(want, less)
}

func (k *connection) send(want wish, less bool) error {
	message, answered := k.way.update(want)
	if message == nil {
		return nil
	}
	if k.ws.WriteMessage(websocket.TextMessage, message) != nil {
		return errAway
	}
	if answered {
		k.asked, k.less = &want, less
		return nil
	}
	k.w.ledger.count("updates without an answer", 1)
	before := k.want
	k.turned, k.turnAt, k.loose, k.want = &before, k.last, true, want
	k.restart()
	return nil
}

// receive reads one message.
func (k *connection) receive(wait time.Duration) error {
	_ = k.ws.SetReadDeadline(time.Now().Add(wait))
	kind, message, err := k.ws.ReadMessage()
	if err != nil {
		if err = ended(err, wait); !expected(err) {
			err = k.mistake("%w, up to event %d of %d", err, k.last, k.w.head)
		}
		return err
	}
	events, err := k.way.read(k.stream, kind, message)
	if err != nil {
		return k.mistake("%w", err)
	}
	for i := range events {
		if err := k.take(&events[i]); err != nil {
			if expected(err) {
				return err
			}
			return k.mistake("%w: %.500s", err, message)
		}
	}
	return nil
}

// ended says what the end of a connection means.
func ended(err error, wait time.Duration) error {
	var timeout net.Error
	var closed *websocket.CloseError
	switch {
	case errors.As(err, &timeout) && timeout.Timeout() && wait < time.Second:
		return errEnough
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("nothing comes for %s", wait)
	case !errors.As(err, &closed), closed.Code == 1006, closed.Code == 1001, closed.Code == 1000:
		return errAway
	case strings.Contains(closed.Text, "the oldest is"): // version 1 of Jetstream
		return errOutdated
	}
	return err
}

// expected reports whether an error is a part of the life of a consumer.
func expected(err error) bool {
	return errors.Is(err, errOutdated) || errors.Is(err, errAway) || errors.Is(err, errEnough)
}

// take takes one event in.
func (k *connection) take(ev *delivered) error {
	answer := ev.what == "updated" || ev.what == "outdated" || ev.what == "error"
	if k.tokens != (ev.token != "") && !answer {
		return fmt.Errorf("with token %q", ev.token)
	}
	switch ev.what {
	case "outdated":
		return errOutdated
	case "error":
		return errors.New("the stream ends")
	case "snapshot":
		if k.begun || !k.want.wants(ev) {
			return errors.New("not wanted")
		}
		k.held.take(ev)
		k.token = ev.token
		return nil
	case "snapshot_end":
		if k.begun {
			return errors.New("a second end")
		}
		k.w.ledger.count("snapshots", 1)
		k.begun, k.next, k.token, k.from, k.last = true, ev.id+1, ev.token, ev.id+1, ev.id
		if k.way != k.stream.way {
			k.token = ""
			return errEnough
		}
		return nil
	case "updated":
		return k.updated(ev.id)
	}
	return k.event(ev)
}

// event takes in an event of the log.
func (k *connection) event(ev *delivered) error {
	if len(k.got) == 0 && k.from > 0 {
		if _, clamps := k.way.(*jetstream1Way); clamps {
			if err := k.w.keeps(k.from); err != nil {
				return err
			}
		}
	}
	if k.from == 0 {
		k.from = ev.id
	}
	fits := k.want.wants(ev) || k.turned != nil && k.turned.wants(ev)
	switch {
	case !fits:
		return errors.New("not wanted")
	case ev.id <= k.last || k.since == 0 && ev.id < k.from || ev.at < k.since:
		return fmt.Errorf("event %d after %d, from %d", ev.id, k.last, k.from)
	}
	if err := k.w.ledger.note(ev); err != nil {
		return err
	}
	k.last, k.got[ev.id] = ev.id, true
	if k.log != nil {
		*k.log = append(*k.log, *ev)
	}
	if k.turned != nil {
		k.turning = append(k.turning, *ev)
	}
	if k.loose || ev.id < k.next {
		return nil
	}
	k.held.take(ev)
	k.next, k.time, k.token = ev.id+1, ev.at, ev.token
	return nil
}

// updated ends the passage by the old filter, and begins one by the new filter.
func (k *connection) updated(id uint64) error {
	if k.asked == nil || id <= k.last || id < k.from {
		return fmt.Errorf("the update holds from %d, after event %d, from %d", id, k.last, k.from)
	}
	k.w.ledger.count("updates", 1)
	if k.from > 0 {
		k.w.ledger.pass(passage{k.name, k.from, id, []wish{k.want}, k.got})
	}
	want := *k.asked
	k.asked, k.heard = nil, id
	k.from, k.got = id, map[uint64]bool{}
	switch {
	case k.less || !want.folds() && !k.want.folds():
		k.want = want
		k.held.keep(&want)
		k.next = max(k.next, id)
	default: // it has not got what only the new filter wants
		k.want, k.loose = want, true
		k.restart()
	}
	return nil
}

// pass records what the connection has passed.
func (k *connection) pass() error {
	if k.from == 0 || k.last < k.from && k.heard == 0 {
		return nil
	}
	to := max(k.last+1, k.heard)
	if k.w.frozen.Load() && k.heard == 0 && k.turned == nil && k.next > k.w.last(&k.want) {
		to = k.w.head + 1
	}
	if k.turned == nil {
		k.w.ledger.pass(passage{k.name, k.from, to, []wish{k.want}, k.got})
		return nil
	}
	// The update holds from an event between low and high on.
	low, high := max(k.turnAt+1, k.from), to
	for i := range k.turning {
		ev := &k.turning[i]
		if !k.want.wants(ev) {
			low = ev.id + 1
		}
		if !k.turned.wants(ev) {
			high = min(high, ev.id)
		}
	}
	if low > high {
		return k.mistake("an update holds from %d on, and not before %d", high, low)
	}
	k.w.ledger.pass(passage{k.name, k.from, low, []wish{*k.turned}, k.got})
	k.w.ledger.pass(passage{k.name, low, high, []wish{*k.turned, k.want}, k.got})
	k.w.ledger.pass(passage{k.name, high, to, []wish{k.want}, k.got})
	return nil
}

// cisternWay is /stream, in any form.
type cisternWay struct {
	tokens, deflate, zstd, cbor bool
	batch                       int
}

func (w *cisternWay) target(c *stream) (path string, from uint64) {
	path = "/stream?" + map[bool]string{true: "include=cbor"}[w.cbor]
	if w.zstd {
		path += "&compress=zstd"
	}
	if w.batch > 0 {
		path += fmt.Sprint("&batch=", w.batch)
	}
	path += c.want.query()
	switch {
	case c.token != "" && w.tokens:
		return path + "&resume=" + c.token, c.next
	case !c.begun && c.want.folds():
		c.held = fold{}
		return path + "&snapshot=true", 0
	case c.next == 0:
		return path + "&cursor=0", 0
	}
	return path + fmt.Sprint("&cursor=", c.next, "&epoch=", c.epoch), c.next
}

func (w *cisternWay) read(c *stream, kind int, message []byte) (events []delivered, err error) {
	if message, err = c.w.plain(kind, message, w.zstd); err != nil {
		return nil, err
	}
	elements := []json.RawMessage{message}
	if w.batch > 0 {
		err := json.Unmarshal(message, &elements)
		if n := len(elements); err != nil || n > w.batch || n == 0 {
			return nil, fmt.Errorf("a batch of %d: %w", n, err)
		}
	}
	for _, text := range elements {
		ev, err := readCistern(text)
		if err != nil {
			return nil, err
		}
		events = append(events, ev)
	}
	return events, nil
}

func (w *cisternWay) update(want wish) (message []byte, answered bool) {
	message, err := json.Marshal(struct {
		Type string `json:"type"`
		wish
	}{"update", want})
	if err != nil {
		panic(err)
	}
	return message, true
}
