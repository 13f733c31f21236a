package simnet

import (
	"net"
	"net/http"
	"time"
)

// hostListener is a host's listener. It resets connections while the host is dead.
type hostListener struct {
	net.Listener
	host *Host
}

// Accept returns the next connection that the host does not reset.
func (d hostListener) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil || d.host.receives(conn) {
			return conn, err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset instead of a close
		}
		_ = conn.Close()
	}
}

func (h *Host) receives(conn net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		h.log.Resets = append(h.log.Resets, time.Now())
		return false
	}
	if h.conns == nil {
		h.conns = make(map[net.Conn]struct{})
	}
	h.conns[conn] = struct{}{}
	return true
}

// connState forgets connections that ended, or became a stream's.
func (h *Host) connState(conn net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.conns, conn)
	}
}

// Die has the host reset the connections it has and, until Up or Down, all that come, which its log
// notes. Unlike a host that is Down it keeps its port.
func (h *Host) Die() error {
	if err := h.Up(); err != nil {
		return err
	}
	h.mu.Lock()
	h.dead = true
	for conn := range h.conns {
		_ = conn.Close()
	}
	h.mu.Unlock()
	if h.stream != nil {
		h.stream.setDown(true)
	}
	h.await()
	return nil
}

// await waits until no request is being answered.
func (h *Host) await() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.active > 0 {
		h.idle.Wait()
	}
}
