package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// jetstream1Way is /subscribe. Its cursors are ids or times.
type jetstream1Way struct{ timed, zstd bool }

// jetstream2Way is subscribeEvents. It has no message that changes the filter.
type jetstream2Way struct{ timed, zstd bool }

// jetstreamEvent is what both versions say of an event, each in its own place.
type jetstreamEvent struct {
	Type    string `json:"$type"`
	Error   string
	Message string
	Payload json.RawMessage // of version 2

	DID     string
	Cursor  uint64 // of version 1
	Seq     uint64 // of version 2
	TimeUS  int64  `json:"time_us"`
	Time    time.Time
	Kind    string
	Name    string // of an info
	Account *struct{ Active bool }
	Commit  json.RawMessage // of version 1

	Operation, Collection, Rkey, CID string
}

func (m *jetstreamEvent) delivered(kind string) delivered {
	ev := delivered{id: m.Cursor + m.Seq, what: kind, did: m.DID, at: m.TimeUS}
	if ev.at == 0 {
		ev.at = m.Time.UnixMicro()
	}
	if kind == "commit" {
		ev.what, ev.action, ev.cid = "record", m.Operation, m.CID
		ev.collection, ev.rkey = m.Collection, m.Rkey
	}
	if m.Account != nil {
		ev.active = m.Account.Active
	}
	return ev
}

// jetstreamTarget returns the parameters that go on where a consumer is.
func jetstreamTarget(c *stream, timed bool, q url.Values) (query string, from uint64) {
	switch {
	case c.next == 0:
	case timed && c.time > 0:
		q.Set("cursor", fmt.Sprint(c.time))
	default:
		q.Set("cursor", fmt.Sprint(c.next))
	}
	return "?" + q.Encode(), c.next
}

func (w *jetstream1Way) target(c *stream) (path string, from uint64) {
	q := url.Values{"wantedCollections": c.want.Collections, "wantedDids": c.want.DIDs}
	if w.zstd {
		q.Set("compress", "true")
	}
	path, from = jetstreamTarget(c, w.timed, q)
	return "/subscribe" + path, from
}

func (w *jetstream1Way) read(c *stream, kind int, message []byte) ([]delivered, error) {
	message, err := c.w.plain(kind, message, w.zstd)
	if err != nil {
		return nil, err
	}
	var m jetstreamEvent
	if err := json.Unmarshal(message, &m); err != nil {
		return nil, fmt.Errorf("message %.200s: %w", message, err)
	}
	if m.Kind == "commit" {
		if err := json.Unmarshal(m.Commit, &m); err != nil {
			return nil, fmt.Errorf("message %.200s: %w", message, err)
		}
	}
	return []delivered{m.delivered(m.Kind)}, nil
}

func (w *jetstream1Way) update(want wish) (message []byte, answered bool) {
	message, err := json.Marshal(map[string]any{"type": "options_update",
		"payload": map[string]any{"wantedCollections": want.Collections, "wantedDids": want.DIDs}})
	if err != nil {
		panic(err)
	}
	return message, false
}

func (w *jetstream2Way) target(c *stream) (path string, from uint64) {
	q := url.Values{"collections": c.want.Collections, "dids": c.want.DIDs}
	for _, kind := range c.want.Kinds {
		q.Add("kinds", strings.Replace(kind, "record", "commit", 1))
	}
	if w.zstd {
		q.Set("zstdDictionary", fmt.Sprint(c.w.dictionary))
	}
	path, from = jetstreamTarget(c, w.timed, q)
	return "/xrpc/network.bsky.jetstream.subscribeEvents" + path, from
}

func (w *jetstream2Way) read(c *stream, kind int, message []byte) ([]delivered, error) {
	message, err := c.w.plain(kind, message, w.zstd)
	if err != nil {
		return nil, err
	}
	var m jetstreamEvent
	if err := json.Unmarshal(message, &m); err != nil {
		return nil, fmt.Errorf("message %.200s: %w", message, err)
	}
	if m.Type == "error" {
		what := "error"
		if m.Error == "CursorTooOld" {
			what = "outdated"
		}
		return []delivered{{what: what, text: m.Error}}, nil
	}
	if err := json.Unmarshal(m.Payload, &m); err != nil {
		return nil, fmt.Errorf("message %.200s: %w", message, err)
	}
	_, name, _ := strings.Cut(m.Type, "#")
	if name == "info" && m.Name == "OutdatedCursor" {
		return []delivered{{what: "outdated"}}, nil
	}
	return []delivered{m.delivered(name)}, nil
}

func (w *jetstream2Way) update(wish) (message []byte, answered bool) { return nil, false }
