package deliver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"cistern/filter"
)

// errMessage means that a consumer sent a message that a stream does not take.
var errMessage = errors.New("peer sent a message that is not an update of its filter")

// update is a message of a consumer: it replaces the filter of the stream.
type update struct {
	Type        string   `json:"type"`
	Collections []string `json:"collections"`
	DIDs        []string `json:"dids"`
	Kinds       []string `json:"kinds"`
	Actions     []string `json:"actions"`
	Live        *bool    `json:"live"`
}

// parseUpdate reads a message of a consumer.
func parseUpdate(r io.Reader) (*filter.Events, error) {
	body, err := io.ReadAll(r)
	if err != nil {
		return nil, errPeer
	}
	var m update
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	if m.Type != "update" {
		return nil, fmt.Errorf("%w: its type is %.40q", errMessage, m.Type)
	}
	c := filter.EventsConfig{Collections: m.Collections, DIDs: m.DIDs, Kinds: m.Kinds, Actions: m.Actions}
	if m.Live != nil {
		c.Live = strconv.FormatBool(*m.Live)
	}
	f, err := compile(c)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	return f, nil
}

// appendUpdated appends the frame that answers an update: it holds for the events from id on.
func appendUpdated(dst []byte, id uint64) []byte {
	start := len(dst)
	dst = strconv.AppendUint(append(dst, `0000{"type":"updated","id":`...), id, 10)
	return sealFrame(append(dst, '}'), start)
}
