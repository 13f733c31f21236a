package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
)

// wantsArray reports whether a list is answered as one JSON array instead of JSON lines.
func wantsArray(r *http.Request) bool {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	switch {
	case strings.Contains(accept, TypeJSON):
		return true
	case strings.Contains(accept, TypeNDJSON):
		return false
	}
	return strings.Contains(r.Header.Get("Content-Type"), TypeJSON)
}

// WriteList answers with one JSON value for each item: a line each, or one array if the client asks
// for JSON. It returns nil: a client that went away is not an error.
func WriteList[T any](w http.ResponseWriter, r *http.Request, items []T) error {
	if wantsArray(r) {
		if items == nil {
			items = []T{}
		}
		WriteJSON(w, http.StatusOK, items)
		return nil
	}
	w.Header().Set("Content-Type", TypeNDJSON)
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

// ReadDIDs reads a request's list: JSON lines or an array, of {"did"} or bare strings. An item of
// another shape becomes "". The caller must check that the items are DIDs. The error is a refusal,
// also of a body of more than bytesMax bytes or itemsMax items.
func ReadDIDs(
	w http.ResponseWriter, r *http.Request, bytesMax int64, itemsMax int,
) ([]string, error) {
	body := bufio.NewReader(http.MaxBytesReader(w, r.Body, bytesMax))
	array, err := skipBracket(body)
	if err != nil {
		return nil, BodyError(err, 0)
	}
	items := json.NewDecoder(body)
	if array {
		if _, err := items.Token(); err != nil {
			return nil, BodyError(err, 0)
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
			return nil, BodyError(err, len(dids))
		}
		if len(dids) == itemsMax {
			return nil, Refuse("PayloadTooLarge", "more than %d items: send several lists", itemsMax)
		}
		dids = append(dids, didOf(item))
	}
	if _, err := items.Token(); err != nil {
		return nil, BodyError(err, len(dids))
	}
	if _, err := items.Token(); !errors.Is(err, io.EOF) {
		return nil, Invalid("the body goes on after the end of its array")
	}
	return dids, nil
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
