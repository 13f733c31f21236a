package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cistern/console"
)

// Client sends requests to a listener of a running daemon.
type Client struct {
	base, token, naming string
	http                *http.Client
	pace                pace
}

// Limits on an answer.
const (
	// lineMax bounds one row. Rows take about 1 KiB.
	lineMax = 1 << 20
	// textMax bounds an answer that is not JSON.
	textMax = 8 << 20
	// errorMax bounds the body of an error.
	errorMax      = 64 << 10
	answerTimeout = 30 * time.Second
)

// nextCursorHeader is the header of GET /repos with the cursor of the next page.
const nextCursorHeader = "Cistern-Next-Cursor"

// New returns a client of the listener at the URL base. The token is sent with every request,
// unless it is "". Errors use naming to say how a user names the listener, such as "its public
// listener with --url".
func New(base, token, naming string) *Client {
	transport := &http.Transport{ResponseHeaderTimeout: answerTimeout}
	return &Client{base: base, token: token, naming: naming, pace: usualPace(),
		http: &http.Client{Transport: transport}}
}

// Patient returns a client like c whose requests may take any time to be answered.
func (c *Client) Patient() *Client {
	patient := *c
	patient.http = &http.Client{Transport: &http.Transport{}}
	return &patient
}

// Do sends a request with rows as JSON lines, and calls fn for each row of the answer. next is the
// cursor of the next page.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, rows []any,
	fn func(json.RawMessage) error) (next string, err error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	for _, row := range rows {
		if err := encoder.Encode(row); err != nil {
			return "", err
		}
	}
	res, err := c.send(ctx, method, path, query, &body)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	return res.Header.Get(nextCursorHeader), readRows(res.Body, fn)
}

// Text returns an answer that is not JSON, such as that of /metrics. Of a longer one it returns the
// beginning.
func (c *Client) Text(ctx context.Context, path string) (string, error) {
	res, err := c.send(ctx, "GET", path, nil, http.NoBody)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, textMax))
	return string(text), err
}

// send sends a request. The status of its answer is no error.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body io.Reader) (
	*http.Response, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = query.Encode()
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Accept", "application/x-ndjson")
	c.authorize(req.Header)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode/100 != 2 {
		defer res.Body.Close()
		return nil, c.refused(res)
	}
	return res, nil
}

// checkPath returns an error if a part of a path, such as the name of a host, is empty or dots: the
// request would be about something else.
func checkPath(path string) error {
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("%q: want a name", part)
		}
	}
	return nil
}

// authorize adds the token to a request.
func (c *Client) authorize(header http.Header) {
	if c.token != "" {
		header.Set("Authorization", "Bearer "+c.token)
	}
}

// readRows calls fn for each line of body.
func readRows(body io.Reader, fn func(json.RawMessage) error) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, lineMax)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if !json.Valid(line) {
			return fmt.Errorf("the answer is not JSON lines: %s",
				console.Clip(console.Printable(string(line)), 80))
		}
		if err := fn(line); err != nil {
			return err
		}
	}
	return lines.Err()
}

// unreachable returns the error of a request without an answer.
func (c *Client) unreachable(err error) error {
	var dial *net.OpError
	if !errors.As(err, &dial) || dial.Op != "dial" {
		return err
	}
	return fmt.Errorf("no daemon answers at %s: start one with cistern run, or name %s (%w)", c.base,
		c.naming, dial)
}

// Refused is the error of an answer whose status is an error.
type Refused struct {
	Status int // of HTTP
	text   string
}

// Error names the daemon, and what it answers.
func (r *Refused) Error() string { return r.text }

// refused returns the error of an answer whose status is an error.
func (c *Client) refused(res *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, errorMax))
	if err != nil {
		return err
	}
	var said struct{ Error, Message string }
	if json.Unmarshal(text, &said) != nil || said.Error == "" {
		said.Error, said.Message = res.Status, console.Clip(string(bytes.TrimSpace(text)), 200)
	}
	hint := ""
	if res.StatusCode == http.StatusUnauthorized {
		hint = " (with --admin-token or CISTERN_ADMIN_TOKEN)"
	}
	return &Refused{res.StatusCode, fmt.Sprintf("the daemon at %s answers %s: %s%s", c.base,
		console.Printable(said.Error), console.Printable(said.Message), hint)}
}
