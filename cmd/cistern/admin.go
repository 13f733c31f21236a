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
	"syscall"
	"time"
)

// adminClient drives a running daemon through its private listener.
type adminClient struct {
	base, token string
	http        *http.Client
}

// Limits on what an answer may be.
const (
	// adminLineMax bounds one row; rows are near 1 KiB.
	adminLineMax = 1 << 20
	// adminErrorMax bounds an error's body.
	adminErrorMax = 64 << 10
	adminTimeout  = 30 * time.Second
)

// nextCursorHeader names the cursor of the next page of GET /repos.
const nextCursorHeader = "Cistern-Next-Cursor"

// newAdminClient takes the address as --admin has it, or a URL.
func newAdminClient(address, token string) (*adminClient, error) {
	base := address
	if !strings.Contains(address, "://") {
		if _, err := parseListen(address); err != nil {
			return nil, fmt.Errorf("--admin %q: want the host:port of a daemon's private listener, or its URL", address)
		}
		if strings.HasPrefix(address, ":") {
			address = "127.0.0.1" + address
		}
		base = "http://" + address
	}
	base, err := parseURL(base, "http", "https")
	if err != nil {
		return nil, fmt.Errorf("--admin %q: %w", address, err)
	}
	transport := &http.Transport{ResponseHeaderTimeout: adminTimeout}
	return &adminClient{base: base, token: token, http: &http.Client{Transport: transport}}, nil
}

// do sends a request and gives the rows of the answer to fn. next is the cursor of the next page.
func (c *adminClient) do(ctx context.Context, method, path string, query url.Values, rows []didRow, fn func(json.RawMessage) error) (next string, err error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	for _, row := range rows {
		if err := encoder.Encode(row); err != nil {
			return "", err
		}
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, &body)
	if err != nil {
		return "", err
	}
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

// readRows gives each line to fn.
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
	var opError *net.OpError
	if errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &opError) && opError.Op == "dial" {
		return fmt.Errorf("no daemon answers at %s: start one with cistern run, or name its private listener with --admin (%w)", c.base, opErrorText(err))
	}
	return err
}

// opErrorText drops the method and URL that http puts before the cause.
func opErrorText(err error) error {
	var urlError *url.Error
	if errors.As(err, &urlError) {
		return urlError.Err
	}
	return err
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
	return fmt.Errorf("the daemon at %s says %s: %s%s", c.base, printable(said.Error), printable(said.Message), hint)
}
