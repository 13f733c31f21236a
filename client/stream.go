package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cistern/loop"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// Limits on a stream.
const (
	// messageMax bounds an event. The JSON of a record is at most 14 times its 1 MiB of CBOR.
	messageMax = 16 << 20
	// peerTimeout ends a stream on which nothing arrived; the daemon pings every 30 s.
	peerTimeout = 90 * time.Second
	// farewellTimeout bounds the write of the close frame.
	farewellTimeout = time.Second
	// epochHeader names the epoch of the ids of a stream.
	epochHeader = "Cistern-Epoch"
)

// lostError is why a connection was lost, or could not be made: another attempt may succeed.
type lostError struct{ error }

func (e *lostError) Unwrap() error { return e.error }

// stream opens a stream at the cursor and takes its messages until it ends. The error is never nil.
func (f *follower) stream(ctx context.Context) error {
	query := f.place()
	header := http.Header{}
	f.authorize(header)
	dialer := websocket.Dialer{HandshakeTimeout: answerTimeout}
	ws, res, err := dialer.DialContext(ctx,
		"ws"+strings.TrimPrefix(f.base, "http")+"/stream?"+query.Encode(), header)
	switch {
	case errors.Is(err, websocket.ErrBadHandshake):
		return f.undone(res)
	case err != nil:
		if !f.connected {
			err = f.unreachable(err)
		}
		return &lostError{err}
	}
	defer ws.Close()
	f.connected, f.epoch = true, res.Header.Get(epochHeader)
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() {
		_ = ws.WriteControl(websocket.CloseMessage,
			websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""),
			time.Now().Add(farewellTimeout))
		_ = ws.Close() // ends read
	})()
	asks := make(chan struct{}, 1)
	g.Go(func() error { return f.read(ws, asks) })
	g.Go(func() error { return f.ask(ctx, ws, asks) })
	return g.Wait()
}

// place returns the parameters of a stream from the place that was reached.
func (f *follower) place() url.Values {
	query := f.Filter.query()
	if f.cursor == 0 && f.Cursor == nil && !f.Since.IsZero() {
		query.Set("since", strconv.FormatInt(f.Since.UnixMicro(), 10))
	} else {
		query.Set("cursor", strconv.FormatUint(f.cursor, 10))
	}
	if f.epoch != "" {
		query.Set("epoch", f.epoch)
	}
	return query
}

// undone explains an answer that opens no stream.
func (f *follower) undone(res *http.Response) error {
	defer res.Body.Close()
	err := f.refused(res)
	if res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests {
		return &lostError{err}
	}
	return err
}

// read takes messages. The error is never nil.
func (f *follower) read(ws *websocket.Conn, asks chan<- struct{}) error {
	alive := func() { _ = ws.SetReadDeadline(time.Now().Add(peerTimeout)) }
	ping := ws.PingHandler()
	ws.SetPingHandler(func(text string) error { alive(); return ping(text) })
	ws.SetReadLimit(messageMax)
	if f.cursor == 0 || f.UntilHead {
		asks <- struct{}{}
	}
	for {
		alive()
		_, text, err := ws.ReadMessage()
		if err != nil {
			return &lostError{err}
		}
		again, err := f.take(text)
		if err != nil {
			return err
		}
		if again {
			loop.Wake(asks)
		}
	}
}

// ask asks the stream for its place, by an update of the filter that changes nothing, at each of
// asks and regularly. It leaves it to read to find that the connection is broken, since an error of
// the daemon may be waiting there.
func (f *follower) ask(ctx context.Context, ws *websocket.Conn, asks <-chan struct{}) error {
	update, err := json.Marshal(struct {
		Type string `json:"type"`
		Filter
	}{"update", f.Filter})
	if err != nil {
		return err
	}
	tick := time.NewTicker(f.pace.ask)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-asks:
		case <-tick.C:
		}
		if ws.SetWriteDeadline(time.Now().Add(answerTimeout)) != nil ||
			ws.WriteMessage(websocket.TextMessage, update) != nil {
			return nil
		}
	}
}
