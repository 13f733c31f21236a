package clients_test

import (
	"net"
	"syscall"
	"testing"

	"cistern/api/clients"
)

// The threshold of a connection that a Listener accepted is that of its socket, and what has arrived
// is read whatever it is.
func TestWakeAt(t *testing.T) {
	t.Parallel()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := &remembering{Listener: raw}
	l := clients.Limit(own, clients.NewPlaces(10, 0, 10), func() {}, func() {})
	defer l.Close()
	peer, err := net.Dial("tcp", raw.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, bytes := range []int{2048, 1} {
		clients.WakeAt(c, bytes)
		if got := own.threshold(t); got != bytes {
			t.Errorf("the threshold is %d, want %d", got, bytes)
		}
	}
	if _, err := peer.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Errorf("%d bytes were read, %v", n, err)
	}
	one, other := net.Pipe()
	defer one.Close()
	defer other.Close()
	clients.WakeAt(one, 2048) // has no socket
}

// remembering keeps the last connection that was accepted.
type remembering struct {
	net.Listener
	last *net.TCPConn
}

func (l *remembering) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.last = c.(*net.TCPConn)
	}
	return c, err
}

func (l *remembering) threshold(t *testing.T) (bytes int) {
	t.Helper()
	raw, err := l.last.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		bytes, failed = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT)
	})
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return bytes
}
