package api_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"cistern/store/storetest"

	"github.com/gorilla/websocket"
)

// begin sends the beginning of a request with a large header.
func (v *visitor) begin() error {
	_, err := io.WriteString(v, "GET / HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 20<<10))
	return err
}

// end sends the rest, and reads the answer.
func (v *visitor) end() error {
	if _, err := io.WriteString(v, "\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(v.in, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// Requests with large headers are few at a time, of which one client has at most three quarters.
func TestLargeHeadersAreFew(t *testing.T) {
	t.Parallel()
	servePipes(t, 100, 25, 2, func(p *pipes) {
		open := func(from string, most int) (last *visitor) {
			for i := range most + 1 {
				v := p.visit(from)
				if err := v.begin(); (err != nil) != (i == most) {
					t.Fatalf("large header %d from %s: %v", i, from, err)
				} else if err == nil {
					last = v
				}
				synctest.Wait()
			}
			return last
		}
		first := open(one, 24)
		open(two, 8)
		if err := first.end(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		open(three, 1) // in its place, and one more is refused
		if err := p.visit(four).ask(); err != nil {
			t.Errorf("a usual header: %v", err)
		}
		for range 3 { // and again on the same connection: each gives back what it took
			v := p.visit(four)
			if err := v.begin(); err == nil {
				t.Error("more large headers than there are")
			}
		}
	})
}

// A URL has room for a filter of 10,000 accounts, and a stream keeps no other client from it.
func TestFiltersInURLs(t *testing.T) {
	t.Parallel()
	addr := serveBounded(t, 100, 25, 2)
	query := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "&wantedDids=%s", strings.ReplaceAll(storetest.DID(i), ":", "%3A"))
		}
		return b.String()
	}
	for i := range 40 { // more than there may be large headers at a time
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+addr+"/subscribe?cursor=1"+query(10_000), nil)
		if err != nil {
			t.Fatalf("stream %d with 10,000 DIDs: %v", i, err)
		}
		t.Cleanup(func() { _ = ws.Close() })
	}
	for n, status := range map[int]int{10_001: 400, 12_000: 431} {
		_, res, err := websocket.DefaultDialer.Dial("ws://"+addr+"/subscribe?cursor=1"+query(n), nil)
		if res == nil || res.StatusCode != status {
			t.Errorf("%d DIDs: %v, %v, want %d", n, res, err, status)
		}
	}
}
