package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gorilla/websocket"

	"cistern/store"
	"cistern/store/storetest"
)

// shown returns all records that the store answers.
func (w *deliveries) shown(s *store.Store) fold {
	out := fold{}
	for _, did := range w.net.DIDs() {
		out[did] = map[string]string{}
		r, err := s.RepoOrNew(did)
		if err != nil {
			w.t.Fatal(err)
		}
		if r.Status.Hidden() || r.Ordinal == 0 {
			continue
		}
		collections, err := s.Collections(&r)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, c := range collections {
			for _, rec := range storetest.List(w.t, s, &r, c, "", 1<<20, false) {
				out[did][c+"/"+rec.Rkey] = rec.CID.String()
			}
		}
	}
	return out
}

// snapshot reads all records that a filter wants, by a path if one is given, and returns the event
// at which they begin.
func (w *deliveries) snapshot(
	ctx context.Context, want wish, path string,
) (held fold, head uint64, err error) {
	c := &stream{w: w, name: "a snapshot", way: &cisternWay{}, path: path,
		streamState: streamState{want: want, held: fold{}}}
	k, err := c.connect(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer k.leave(true)
	for !c.begun {
		if err := k.receive(time.Minute); errors.Is(err, errOutdated) {
			return nil, 0, errAway // again
		} else if err != nil {
			return nil, 0, err
		}
	}
	return c.held, c.next - 1, nil
}

// plain returns the text of a message.
func (w *deliveries) plain(kind int, message []byte, packed bool) (text []byte, err error) {
	want := websocket.TextMessage
	if packed {
		want = websocket.BinaryMessage
		message, err = w.decoder.DecodeAll(message, nil)
	}
	if kind != want {
		err = fmt.Errorf("message of kind %d", kind)
	}
	return message, err
}

// tail returns the oldest event of the log.
func (w *deliveries) tail() (uint64, error) {
	var stats struct{ Log struct{ Tail uint64 } }
	_, err := w.request(w.t.Context(), "GET", "/stats", nil, &stats)
	return stats.Log.Tail, err
}

// keeps returns nil if the log has all events from an id on, and otherwise errOutdated.
func (w *deliveries) keeps(id uint64) error {
	tail, err := w.tail()
	if err == nil && tail > id {
		err = errOutdated
	}
	return err
}

// request sends a request to the private listener. The error is errAway if there is no answer.
func (w *deliveries) request(
	ctx context.Context, method, path string, body, into any,
) (status int, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	target := "http://" + w.index.admin + path
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, errAway
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, errAway
	}
	if into != nil && res.StatusCode < 300 {
		err = json.Unmarshal(answer, into)
	} else if res.StatusCode >= 400 {
		err = fmt.Errorf("%s %s: %s %s", method, path, res.Status, answer)
	}
	return res.StatusCode, err
}
