package deliver

import (
	"bytes"
	"encoding/json"
	"strconv"

	"cistern/filter"
)

// update is a message of a consumer: it replaces the filter of the stream.
type update struct {
	Type        string   `json:"type"`
	Collections []string `json:"collections"`
	DIDs        []string `json:"dids"`
	Kinds       []string `json:"kinds"`
	Actions     []string `json:"actions"`
	Live        *bool    `json:"live"`
}

// readUpdate reads a message of a consumer of /stream.
func readUpdate(_ int, body []byte) (*change, error) {
	f, err := parseUpdate(body)
	if err != nil {
		return nil, err
	}
	return &change{filter: f}, nil
}

// parseUpdate returns the filter of a message.
func parseUpdate(body []byte) (*filter.Events, error) {
	var m update
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, invalidMessage("it is not an update of the filter: %w", shorter(err))
	}
	if m.Type != "update" {
		return nil, invalidMessage("its type is %.40q, not update", m.Type)
	}
	c := filter.EventsConfig{Collections: m.Collections, DIDs: m.DIDs,
		Kinds: m.Kinds, Actions: m.Actions}
	if m.Live != nil {
		c.Live = strconv.FormatBool(*m.Live)
	}
	f, err := compile(c)
	if err != nil {
		return nil, invalidMessage("%w", err)
	}
	return f, nil
}

// updated returns the message that answers an update: it holds for the events from id on.
func updated(id uint64) []byte {
	return append(strconv.AppendUint([]byte(`{"type":"updated","id":`), id, 10), '}')
}
