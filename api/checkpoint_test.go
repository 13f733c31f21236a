package api_test

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"cistern/api"
)

// TestCheckpointBody: a request whose body cannot be read to its end gets no checkpoint. The server
// would not see when its connection ends, and would keep the checkpoint.
func TestCheckpointBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	conn, err := net.Dial("tcp", w.admin.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "POST /checkpoint HTTP/1.1\r\nHost: localhost\r\n"+
		"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{}"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("HTTP/1.1 400"))
	if _, err := io.ReadFull(conn, line); err != nil || string(line) != "HTTP/1.1 400" {
		t.Errorf("a body that is cut: %q, %v", line, err)
	}
}
