package hosts_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"cistern/backfill/hosts"
	"cistern/store"
)

// answers is a transport with one answer for all requests.
type answers struct {
	code int
	kind string // of the content
	body string
	wait string // Retry-After
	err  error
}

// RoundTrip answers.
func (a answers) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.err != nil {
		return nil, a.err
	}
	if a.code == 0 {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	h := http.Header{"Content-Type": {a.kind}}
	if a.wait != "" {
		h.Set("Retry-After", a.wait)
	}
	return &http.Response{StatusCode: a.code, Header: h, Body: io.NopCloser(strings.NewReader(a.body)), Request: req}, nil
}

// TestQuery: what an answer shows about its host. Failures that are not the host's are not its last
// one.
func TestQuery(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	for name, c := range map[string]struct {
		answers
		is    error  // nil for an AnswerError if the code is not 200
		state string // of the host
		told  bool   // the failure is shown as the host's
	}{
		"in order":               {answers{code: 200, kind: json, body: `{"a":1}`}, nil, "ok", false},
		"JSON by another name":   {answers{code: 200, kind: "text/plain", body: `{"a":1}`}, nil, "ok", false},
		"too long":               {answers{code: 200, kind: json, body: strings.Repeat(" ", 101)}, hosts.ErrTooLong, "ok", false},
		"a page of a proxy":      {answers{code: 200, kind: "text/html", body: "<html>"}, hosts.ErrMalformed, "parked", true},
		"an account is unknown":  {answers{code: 400, body: `{"error":"RepoNotFound"}`}, nil, "ok", false},
		"one request too many":   {answers{code: 429, wait: "7"}, nil, "parked", true},
		"one failed request":     {answers{code: 500}, nil, "failing", true},
		"out of order":           {answers{code: 503}, nil, "parked", true},
		"the connection broke":   {answers{err: io.ErrUnexpectedEOF}, io.ErrUnexpectedEOF, "failing", true},
		"no answer in time":      {answers{}, context.Canceled, "parked", true},
		"a redirect was refused": {answers{err: hosts.ErrRedirect}, hosts.ErrRedirect, "ok", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := &clock{now: time.Unix(1_800_000_000, 0)}
			table, id := newTable(t, hosts.Options{Transport: c.answers}, clock)
			within := time.Minute
			if c.code == 0 {
				within = time.Millisecond
			}
			body, err := table.Query(t.Context(), "https://pds.test", "m", nil, 100, within)
			var answer *hosts.AnswerError
			switch {
			case c.is != nil && !errors.Is(err, c.is), c.is == nil && c.code == 200 && string(body) != c.body:
				t.Errorf("%q, %v", body, err)
			case c.is == nil && c.code != 200 && (!errors.As(err, &answer) || answer.Code != c.code):
				t.Errorf("%v", err)
			}
			now := table.Standing(id)
			if now.State() != c.state || (now.Error != "") != c.told || now.Running != 0 {
				t.Errorf("the host is %s, want %s: %+v", now.State(), c.state, now)
			}
			if c.wait != "" && now.ParkedUntil != clock.now.Add(7*time.Second) {
				t.Errorf("parked until %s", now.ParkedUntil)
			}
		})
	}
}

// TestQueryCancelled: a request that the caller cancels shows nothing about the host.
func TestQueryCancelled(t *testing.T) {
	t.Parallel()
	table, id := newTable(t, hosts.Options{Transport: answers{}}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := table.Query(ctx, "https://pds.test", "m", nil, 100, time.Minute); err == nil {
		t.Error("an answer")
	}
	if now := table.Standing(id); now.State() != "ok" || now.Running != 0 {
		t.Errorf("it stands as %+v", now)
	}
}

// TestQueryOfNoHost: a base URL that is none is refused.
func TestQueryOfNoHost(t *testing.T) {
	t.Parallel()
	table, _ := newTable(t, hosts.Options{Transport: answers{code: 200, body: "{}"}}, nil)
	if _, err := table.Query(t.Context(), "ftp://pds.test", "m", nil, 100, time.Minute); err == nil {
		t.Error("an answer")
	}
}

// TestOfStore: an error of the store is marked, but for that of a row that has changed.
func TestOfStore(t *testing.T) {
	t.Parallel()
	if err := hosts.OfStore(nil); err != nil {
		t.Errorf("no error is %v", err)
	}
	if err := hosts.OfStore(store.ErrStale); hosts.IsOfStore(err) || !errors.Is(err, store.ErrStale) {
		t.Errorf("a changed row is %v", err)
	}
	err := fmt.Errorf("more: %w", hosts.OfStore(store.ErrCorrupt))
	if !hosts.IsOfStore(err) || !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a failure is %v", err)
	}
}
