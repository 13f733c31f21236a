package wire

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// echoCharsMax bounds the part of a bad value that an error repeats.
const echoCharsMax = 80

// Refusal is an error for the client: a name from a closed set, which decides the status, and a
// sentence that names the wrong value.
type Refusal struct {
	Name    string
	Message string
	// Status is the status of the answer. 0: that of Name.
	Status int
}

func (e *Refusal) Error() string { return e.Name + ": " + e.Message }

// CutError is an error after the first bytes of an answer were sent. The connection is closed
// without the end of the answer, so that the client cannot take the answer for complete.
type CutError struct{ Cause error }

func (e *CutError) Error() string { return "answer is cut short: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *CutError) Unwrap() error { return e.Cause }

// BareError is an error that is answered without a body, as clients know it from another service.
type BareError struct{ Cause error }

func (e *BareError) Error() string { return e.Cause.Error() }

// Unwrap returns the cause.
func (e *BareError) Unwrap() error { return e.Cause }

// Refuse returns a Refusal.
func Refuse(name, format string, args ...any) error {
	return &Refusal{Name: name, Message: fmt.Sprintf(format, args...)}
}

// Invalid returns the refusal of an invalid request.
func Invalid(format string, args ...any) error { return Refuse("InvalidRequest", format, args...) }

// EventsOnly returns the refusal of a request for records to a store that keeps events only.
func EventsOnly() error {
	return Refuse("EventsOnly", "this server keeps events only (--ephemeral) and has no records to "+
		"answer with: follow /stream, and ask the account's host for records")
}

// Echo returns a value from outside in a form that an error may repeat.
func Echo(v string) string {
	if len(v) > echoCharsMax {
		return strconv.QuoteToASCII(v[:echoCharsMax]) + "…"
	}
	return strconv.QuoteToASCII(v)
}

// ErrorBody is the body of an answer that refuses.
type ErrorBody struct {
	Error   string `json:"error"`
	Message string `json:"message"`
}

// WriteJSON answers with v. A client that went away is not an error.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError,
			[]byte(`{"error":"InternalError","message":"answer has no JSON form"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	WriteBody(w, status, body)
}

// WriteBody answers with JSON, unless the header names another type already.
func WriteBody(w http.ResponseWriter, status int, body []byte) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(body))) // else a long body goes in chunks
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error concerns the client only
}
