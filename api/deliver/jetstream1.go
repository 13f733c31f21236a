package deliver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"cistern/api/deliver/format"
	"cistern/api/wire"
	"cistern/filter"

	"github.com/gorilla/websocket"
)

// Jetstream1 answers GET /subscribe, as version 1 of Jetstream does.
func (d *Delivery) Jetstream1(w http.ResponseWriter, r *http.Request) error {
	s, err := d.subscribe1(r)
	if err != nil {
		return err
	}
	return d.open(w, r, s)
}

// subscribe1 reads the parameters.
func (d *Delivery) subscribe1(r *http.Request) (s subscription, err error) {
	q, err := parseParams(r)
	if err != nil {
		return s, err
	}
	s = subscription{protocol: jetstream1, format: format.Jetstream1,
		most:  lenientSize(q.get("maxMessageSizeBytes")),
		waits: q.get("requireHello") == "true"}
	if s.position, err = q.jetstreamPosition(); err != nil {
		return s, err
	}
	s.filter, err = compileJetstream(filter.EventsConfig{Collections: q["wantedCollections"],
		DIDs: q["wantedDids"]})
	if err != nil {
		return s, err
	}
	if q.get("compress") != "true" && !strings.Contains(r.Header.Get("Socket-Encoding"), "zstd") {
		return s, nil
	}
	if d.formats.Jetstream1Zstd == nil {
		return s, wire.Invalid("compress=true: this server has no dictionary of Jetstream. Its " +
			"operator enables compression with --jetstream-dictionary FILE")
	}
	if strings.Contains(strings.Join(r.Header.Values("Sec-WebSocket-Extensions"), ","),
		"permessage-deflate") {
		return s, wire.Invalid("compress=true and permessage-deflate: choose one of them")
	}
	s.format = d.formats.Jetstream1Zstd
	return s, nil
}

// lenientSize reads a size. What is not one means no limit, as in Jetstream.
func lenientSize(text string) uint32 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return clampSize(n)
}

// clampSize returns a size, 0 if it is not one.
func clampSize(n int64) uint32 {
	if n < 0 || n > math.MaxUint32 {
		return 0
	}
	return uint32(n)
}

// jetstream1 is version 1 of Jetstream. It has no messages for errors.
var jetstream1 = &protocol{
	messageBytesMax: optionsBytesMax,
	locate: func(_ context.Context, log Log, s *subscription) error {
		s.clamps = true
		given := s.given
		err := settle(log, &s.position)
		// Also at the head: a consumer that goes on there gets what comes before its first change.
		s.given = given
		return err
	},
	message: readOptions,
	failure: noFailure,
}

// optionsUpdate is the message of a consumer that replaces what it wants.
type optionsUpdate struct {
	WantedCollections   []string `json:"wantedCollections"`
	WantedDIDs          []string `json:"wantedDids"`
	MaxMessageSizeBytes int64    `json:"maxMessageSizeBytes"`
}

// readOptions reads a message of a consumer. Messages of other types are ignored.
func readOptions(kind int, body []byte) (*change, error) {
	if kind != websocket.TextMessage {
		return nil, nil
	}
	var m struct {
		Type    string          `json:"type"`
		Payload json.RawMessage `json:"payload"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, invalidMessage("%w", shorter(err))
	}
	if m.Type != "options_update" {
		return nil, nil
	}
	var o optionsUpdate
	if payload := bytes.TrimSpace(m.Payload); len(payload) > 0 {
		if err := json.Unmarshal(payload, &o); err != nil {
			return nil, invalidMessage("options_update: %w", shorter(err))
		}
	}
	f, err := compileJetstream(filter.EventsConfig{Collections: o.WantedCollections,
		DIDs: o.WantedDIDs})
	if err != nil {
		return nil, invalidMessage("options_update: %w", err)
	}
	return &change{filter: f, most: clampSize(o.MaxMessageSizeBytes)}, nil
}

// shorter names the wrong field only: a close frame has room for a line. Errors of JSON may repeat
// a whole message.
func shorter(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s cannot be of type %s", cmp.Or(wrong.Field, "the message"), wrong.Value)
	}
	const most = 200
	if text := err.Error(); len(text) > most {
		return errors.New(strings.ToValidUTF8(text[:most], "") + "…")
	}
	return err
}
