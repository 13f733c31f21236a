package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"cistern/api/wire"
)

// Content types of lists.
const (
	typeJSON   = "application/json"
	typeNDJSON = "application/x-ndjson"
)

// wantsArray reports whether a list is answered as one JSON array instead of JSON lines.
func wantsArray(r *http.Request) bool {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	switch {
	case strings.Contains(accept, typeJSON):
		return true
	case strings.Contains(accept, typeNDJSON):
		return false
	}
	return strings.Contains(r.Header.Get("Content-Type"), typeJSON)
}

// writeList answers with one JSON value for each item.
func writeList[T any](w http.ResponseWriter, r *http.Request, items []T) error {
	if wantsArray(r) {
		if items == nil {
			items = []T{}
		}
		wire.WriteJSON(w, http.StatusOK, items)
		return nil
	}
	w.Header().Set("Content-Type", typeNDJSON)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	for i := range items {
		if err := lines.Encode(&items[i]); err != nil {
			return nil // the client is gone
		}
	}
	_ = out.Flush() // likewise
	return nil
}

// isJSON reports whether the content type is JSON, which no form of a web page can send.
func isJSON(r *http.Request) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && (t == typeJSON || t == typeNDJSON)
}

// readDIDs reads a request's list: JSON lines or an array, of {"did"} or bare strings. An item of
// another shape becomes "". The caller must check that the items are DIDs.
func readDIDs(w http.ResponseWriter, r *http.Request) ([]string, error) {
	body := bufio.NewReader(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	array, err := skipBracket(body)
	if err != nil {
		return nil, wire.BodyError(err, 0)
	}
	items := json.NewDecoder(body)
	if array {
		if _, err := items.Token(); err != nil {
			return nil, wire.BodyError(err, 0)
		}
	}
	var dids []string
	for !array || items.More() {
		var item json.RawMessage
		err := items.Decode(&item)
		if !array && errors.Is(err, io.EOF) {
			return dids, nil
		}
		if err != nil {
			return nil, wire.BodyError(err, len(dids))
		}
		if len(dids) == bodyItemsMax {
			return nil, wire.Refuse("PayloadTooLarge", "more than %d items: send several lists", bodyItemsMax)
		}
		dids = append(dids, didOf(item))
	}
	if _, err := items.Token(); err != nil {
		return nil, wire.BodyError(err, len(dids))
	}
	if _, err := items.Token(); !errors.Is(err, io.EOF) {
		return nil, wire.Invalid("the body goes on after the end of its array")
	}
	return dids, nil
}

// readObject reads the body, one JSON object, into v. A field that v lacks is an error.
func readObject(w http.ResponseWriter, r *http.Request, v any) error {
	return wire.ReadObject(w, r, objectBytesMax, v)
}

// discardBody reads the body of a request that needs none. The server sees that a client has gone
// only once the body is read: a handler that waits for that must call it first. The error is a
// refusal.
func discardBody(w http.ResponseWriter, r *http.Request) error {
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, objectBytesMax)); err != nil {
		return wire.Invalid("the body cannot be read: %v", err)
	}
	return nil
}

// skipBracket reports whether the body is an array, and leaves its bracket unread.
func skipBracket(body *bufio.Reader) (array bool, err error) {
	for {
		b, err := body.ReadByte()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if b != ' ' && b != '\t' && b != '\r' && b != '\n' {
			return b == '[', body.UnreadByte()
		}
	}
}

func didOf(item json.RawMessage) string {
	var s string
	if json.Unmarshal(item, &s) == nil {
		return s
	}
	var o struct {
		DID string `json:"did"`
	}
	if json.Unmarshal(item, &o) != nil {
		return ""
	}
	return o.DID
}
