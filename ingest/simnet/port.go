package simnet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
)

// Hosts listen on ports from portsFrom on. Systems give connections, and listeners that name no
// port, higher ones: while a host is down, its clients must not reach another server that got its
// port, and the port must be free when the host is up again.
const (
	portsFrom = 10_000
	portsMany = 22_000
)

// nextPort is where Listen looks next: elsewhere in every process.
var nextPort = func() *atomic.Int64 {
	var n atomic.Int64
	n.Store(int64(os.Getpid()) * 131)
	return &n
}()

// Listen listens on a port of this machine that nothing listens on, and that no system gives away.
func Listen() (net.Listener, error) {
	var last error
	for range portsMany {
		port := portsFrom + nextPort.Add(1)%portsMany
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return l, nil
		}
		last = err
	}
	return nil, errors.Join(errors.New("no port is free"), last)
}
