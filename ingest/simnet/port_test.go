package simnet_test

import (
	"fmt"
	"net"
	"testing"

	"cistern/ingest/simnet"
)

// TestListen: each listener has a port of its own, below the range from which systems pick ports
// for connections and for listeners that name no port. Other processes find its block taken.
func TestListen(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 100 {
		l, err := simnet.Listen()
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		if port < 1024 || port >= 32_768 || seen[port] {
			t.Errorf("port %d", port)
		}
		seen[port] = true
		if other, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port-port%500)); err == nil {
			t.Errorf("another process may take the block of port %d", port)
			other.Close()
		}
	}
}
