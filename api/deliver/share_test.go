package deliver_test

import (
	"net"
	"strings"
	"testing"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"

	"github.com/gorilla/websocket"
)

const one, two, three, four = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"

// A client takes no more streams than its part, and others get theirs.
func TestStreamsAreSharedByClients(t *testing.T) {
	t.Parallel()
	srv := serveLog(t, delivertest.NewLog(), deliver.Options{SubscribersMax: 8})
	addr := strings.TrimPrefix(srv.URL, "http://")
	open := func(from string) int {
		d := websocket.Dialer{NetDialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
		ws, res, err := d.DialContext(t.Context(), "ws://"+addr+"/stream", nil)
		if err == nil {
			t.Cleanup(func() { _ = ws.Close() })
		}
		return res.StatusCode
	}
	for i, c := range []struct {
		from   string
		status int
	}{
		{one, 101}, {one, 101}, {one, 101}, {one, 101}, {one, 101}, {one, 101},
		{one, 429}, // a quarter is kept
		{two, 101},
		{two, 429}, // the share of so few
		{three, 101},
		{four, 503}, // all are taken
	} {
		if got := open(c.from); got != c.status {
			t.Errorf("stream %d, from %s: status %d, want %d", i, c.from, got, c.status)
		}
	}
}
