//go:build !linux

package clients

import "net"

// WakeAt does nothing here.
func WakeAt(net.Conn, int) {}
