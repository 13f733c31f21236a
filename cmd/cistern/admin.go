package main

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
)

// adminClient sends requests to the private listener of a running daemon.
type adminClient struct {
	base, token string
	http        *http.Client
}

// Limits on an answer.
const (
	// adminLineMax bounds one row. Rows take about 1 KiB.
	adminLineMax = 1 << 20
	// adminErrorMax bounds the body of an error.
	adminErrorMax = 64 << 10
	adminTimeout  = 30 * time.Second
)

// nextCursorHeader is the header of GET /repos with the cursor of the next page.
const nextCursorHeader = "Cistern-Next-Cursor"

func newAdminClient(base, token string) *adminClient {
	transport := &http.Transport{ResponseHeaderTimeout: adminTimeout}
	return &adminClient{base: base, token: token, http: &http.Client{Transport: transport}}
}

// parseAdmin returns the base URL of a private listener. It reads an address as --admin of the
// daemon has it, or a URL.
func parseAdmin(address string) (string, error) {
	if strings.Contains(address, "://") {
		return parseURL(address)
	}
	if _, err := parseListen(address); err != nil {
		return "", errors.New("want the host:port of a daemon's private listener, or its URL")
	}
	if strings.HasPrefix(address, ":") {
		address = "127.0.0.1" + address
	}
	return "http://" + address, nil
}

// do sends a request and calls fn for each row of the answer. next is the cursor of the next page.
func (c *adminClient) do(ctx context.Context, method, path string, query url.Values, rows []didRow,
	fn func(json.RawMessage) error) (next string, err error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	for _, row := range rows {
		if err := encoder.Encode(row); err != nil {
			return "", err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, &body)
	if err != nil {
		return "", err
	}
	req.URL.RawQuery = query.Encode()
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Accept", "application/x-ndjson")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return "", c.unreachable(err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return "", c.refused(res)
	}
	return res.Header.Get(nextCursorHeader), readRows(res.Body, fn)
}

// readRows calls fn for each line of body.
func readRows(body io.Reader, fn func(json.RawMessage) error) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, adminLineMax)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if !json.Valid(line) {
			return fmt.Errorf("the answer is not JSON lines: %s", clip(printable(string(line)), 80))
		}
		if err := fn(line); err != nil {
			return err
		}
	}
	return lines.Err()
}

// unreachable explains why no answer came.
func (c *adminClient) unreachable(err error) error {
	var dial *net.OpError
	if !errors.As(err, &dial) || dial.Op != "dial" {
		return err
	}
	return fmt.Errorf("no daemon answers at %s: start one with cistern run, or name its private "+
		"listener with --admin (%w)", c.base, dial)
}

// refused explains an answer that is an error.
func (c *adminClient) refused(res *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, adminErrorMax))
	if err != nil {
		return err
	}
	var said struct{ Error, Message string }
	if json.Unmarshal(text, &said) != nil || said.Error == "" {
		said.Error, said.Message = res.Status, clip(string(bytes.TrimSpace(text)), 200)
	}
	hint := ""
	if res.StatusCode == http.StatusUnauthorized {
		hint = " (with --admin-token or CISTERN_ADMIN_TOKEN)"
	}
	return fmt.Errorf("the daemon at %s answers %s: %s%s", c.base, printable(said.Error),
		printable(said.Message), hint)
}
