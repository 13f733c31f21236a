package clients

import (
	"net"
	"syscall"
)

// WakeAt has a connection count as readable only once it holds that many bytes, or has ended. A
// peer that sends a little at a time then wakes nothing meanwhile. It is a hint: connections that
// have no such threshold stay as they are.
func WakeAt(c net.Conn, bytes int) {
	if own, ok := c.(*conn); ok {
		c = own.Conn
	}
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, bytes)
	})
}
