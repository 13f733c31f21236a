package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"time"

	"cistern/backfill/pace"
)

// errorBodyMax bounds the body of an answer with another status than 200: a JSON object with two
// strings.
const errorBodyMax = 64 << 10

// ReadAnswer reads an answer with another status than 200 as an AnswerError. body is that of resp,
// decompressed.
func ReadAnswer(resp *http.Response, body io.Reader, now time.Time) error {
	e := &AnswerError{Code: resp.StatusCode, Wait: pace.AskedWait(resp.Header, now)}
	if resp.StatusCode == http.StatusTooManyRequests && resp.Request.Response == nil {
		// Not redirected: Permit.Do has noted the quota.
		q := pace.ParseQuota(resp.Header, now)
		e.Quota = q.Spent(now) && e.Wait <= q.Reset.Sub(now)+time.Second
	}
	var said struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	b, err := io.ReadAll(io.LimitReader(body, errorBodyMax))
	if err == nil && json.Unmarshal(b, &said) == nil {
		e.Name, e.Message = Clean(said.Error), Clean(said.Message)
	}
	return e
}

// ContentType returns the content type of an answer without parameters, or words for a missing one.
func ContentType(h http.Header) string {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return "no content type"
	}
	return Clean(kind)
}

// TimedOut reports whether the transport gave up waiting for an answer (ResponseHeaderTimeout),
// which has no error value of its own: not that the context ended, nor that the connection failed.
func TimedOut(ctx context.Context, err error) bool {
	var timeout net.Error
	return ctx.Err() == nil && errors.As(err, &timeout) && timeout.Timeout() &&
		!errors.As(err, new(*net.OpError))
}

// HoldsAny reads an answer of describeRepo, and reports whether the repository of did holds a
// collection that wanted accepts. ErrMalformed means that it is not such an answer.
func HoldsAny(answer []byte, did string, wanted func(collection []byte) bool) (bool, error) {
	var said struct {
		DID         string   `json:"did"`
		Collections []string `json:"collections"`
	}
	if err := json.Unmarshal(answer, &said); err != nil || said.DID != did {
		return false, fmt.Errorf("describeRepo of %s: %w", did, ErrMalformed)
	}
	return slices.ContainsFunc(said.Collections, func(c string) bool { return wanted([]byte(c)) }), nil
}
