package simnet

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// Hosts listen on ports from portsFrom on. Systems give connections, and listeners that name no
// port, higher ones: while a host is down, its clients must not reach another server that got its
// port, and the port must be free when the host is up again.
//
// Other processes do the same, so each takes ports of its own blocks. It listens on the first port
// of a block as long as it lives, which tells the others that the block is taken.
const (
	portsFrom  = 10_000
	blocks     = 44
	blockPorts = 500
)

// ports are the blocks of this process.
var ports struct {
	mu    sync.Mutex
	looks int            // blocks that were looked at; mu guards this and the rest
	held  []net.Listener // on the first port of each block
	next  int            // of the ports of all blocks, the one to try next
}

// Listen listens on a port of this machine that nothing listens on, and that neither a system nor
// another process gives away.
func Listen() (net.Listener, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	var last error
	for range blocks * blockPorts {
		if ports.next == len(ports.held)*(blockPorts-1) {
			if err := takeBlock(); err != nil && len(ports.held) == 0 {
				return nil, err
			}
			ports.next %= max(1, len(ports.held)*(blockPorts-1))
		}
		first := ports.held[ports.next/(blockPorts-1)].Addr().(*net.TCPAddr).Port
		l, err := listenOn(first + 1 + ports.next%(blockPorts-1))
		ports.next++
		if err == nil {
			return l, nil
		}
		last = err
	}
	return nil, errors.Join(errors.New("no port is free"), last)
}

// takeBlock takes a block that no process has.
func takeBlock() (last error) {
	for ports.looks < blocks {
		l, err := listenOn(portsFrom + ports.looks*blockPorts)
		ports.looks++
		if err == nil {
			ports.held = append(ports.held, l)
			return nil
		}
		last = err
	}
	return errors.Join(errors.New("no block of ports is free"), last)
}

func listenOn(port int) (net.Listener, error) {
	return net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
}
