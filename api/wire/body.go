package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
)

// Content types of bodies. Lists are one JSON array, or JSON lines.
const (
	TypeJSON   = "application/json"
	TypeNDJSON = "application/x-ndjson"
)

// IsJSON reports whether the content type of a request is JSON, which no form of a web page can
// send.
func IsJSON(r *http.Request) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && (t == TypeJSON || t == TypeNDJSON)
}

// ReadObject reads the body, one JSON object of at most most bytes, into v. A field that v lacks is
// an error. The error is a refusal.
func ReadObject(w http.ResponseWriter, r *http.Request, most int64, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		return BodyError(err, 0)
	}
	if trimmed := bytes.TrimSpace(body); len(trimmed) == 0 || trimmed[0] != '{' {
		return Invalid("the body is %s: want a JSON object", Echo(string(trimmed)))
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return objectError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Invalid("the body goes on after the end of its object")
	}
	return nil
}

// DiscardBody reads the body of a request that needs none, of at most most bytes. The server sees
// that a client has gone only once the body is read: a handler that waits for that must call it
// first. The error is a refusal.
func DiscardBody(w http.ResponseWriter, r *http.Request, most int64) error {
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, most)); err != nil {
		return Invalid("the body cannot be read: %v", err)
	}
	return nil
}

// objectError describes what is wrong with an object.
func objectError(err error) error {
	var wrong *json.UnmarshalTypeError
	var refusal *Refusal // of a value that reads itself
	switch {
	case errors.As(err, &refusal):
		return err
	case errors.As(err, &wrong):
		return Invalid("%s is a %s: want a %s", wrong.Field, wrong.Value, wrong.Type)
	}
	return Invalid("the body is invalid: %s", strings.TrimPrefix(err.Error(), "json: "))
}

// BodyError returns the refusal that says what is wrong with a body after n good items. err is what
// reading or decoding the body returned.
func BodyError(err error, n int) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return Refuse("PayloadTooLarge", "the body is longer than %d bytes: send several lists",
			large.Limit)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Invalid("the body ends within item %d", n+1)
	}
	return Invalid("item %d is not JSON: %v", n+1, err)
}
