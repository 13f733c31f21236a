package clients

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sync/semaphore"
)

// Of returns the client to which the limits of a peer apply: its IPv4 address, or the /64 of its
// IPv6 address, since every IPv6 customer has at least a /64. Peers without an IP address are one
// client. Forwarding headers are not read: any client can send them.
func Of(peer string) netip.Prefix {
	const ipv6Bits = 64
	host, _, err := net.SplitHostPort(peer)
	if err != nil {
		return netip.Prefix{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = ipv6Bits
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// Places is a number of places that one client cannot take all. A client that holds fewer than
// share gets any free place; a client that holds more gets none of the last reserve places.
type Places struct {
	max, reserve, share int

	// mu guards:
	mu    sync.Mutex
	taken int
	held  map[netip.Prefix]int // by clients that hold any, so at most max entries
}

// NewPlaces makes limit places, of which reserve are kept for clients that hold less than share.
func NewPlaces(limit, reserve, share int) *Places {
	return &Places{max: limit, reserve: reserve, share: share, held: map[netip.Prefix]int{}}
}

// Take takes a place for c, and reports whether there was one.
func (p *Places) Take(c netip.Prefix) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.max - p.taken
	if free <= 0 || p.held[c] >= p.share && free <= p.reserve {
		return false
	}
	p.taken++
	p.held[c]++
	return true
}

// Give releases a place of c.
func (p *Places) Give(c netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.held[c]--; p.held[c] == 0 {
		delete(p.held, c)
	}
}

// BelowShare reports whether c holds less than its share.
func (p *Places) BelowShare(c netip.Prefix) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[c] < p.share
}

// Full reports whether no client gets a place.
func (p *Places) Full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken >= p.max
}

// Turns is a weighted semaphore. One client can hold at most three quarters of it. A client waits
// for its own part first, so that its queue, however long, delays no other client.
type Turns struct {
	all  *semaphore.Weighted
	most int64 // of one client: see Most

	// mu guards:
	mu      sync.Mutex
	clients map[netip.Prefix]*turn // clients that hold something or wait
}

type turn struct {
	own  *semaphore.Weighted
	uses int // guarded by Turns.mu
}

// NewTurns makes a semaphore of that size.
func NewTurns(size int64) *Turns {
	return &Turns{all: semaphore.NewWeighted(size), most: max(1, size/4*3),
		clients: map[netip.Prefix]*turn{}}
}

// Most returns how much one client may hold.
func (t *Turns) Most() int64 { return t.most }

// Acquire waits until c may have n more, which must not be above Most, or until ctx ends.
func (t *Turns) Acquire(ctx context.Context, c netip.Prefix, n int64) error {
	own := t.enter(c)
	if err := own.Acquire(ctx, n); err != nil {
		t.leave(c)
		return err
	}
	if err := t.all.Acquire(ctx, n); err != nil {
		own.Release(n)
		t.leave(c)
		return err
	}
	return nil
}

// TryAcquire acquires without waiting, and reports whether it did.
func (t *Turns) TryAcquire(c netip.Prefix, n int64) bool {
	own := t.enter(c)
	if !own.TryAcquire(n) {
		t.leave(c)
		return false
	}
	if !t.all.TryAcquire(n) {
		own.Release(n)
		t.leave(c)
		return false
	}
	return true
}

// Release releases what one call of Acquire or TryAcquire took for c.
func (t *Turns) Release(c netip.Prefix, n int64) {
	t.all.Release(n)
	t.mu.Lock()
	own := t.clients[c].own
	t.mu.Unlock()
	own.Release(n)
	t.leave(c)
}

func (t *Turns) enter(c netip.Prefix) *semaphore.Weighted {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := t.clients[c]
	if mine == nil {
		mine = &turn{own: semaphore.NewWeighted(t.most)}
		t.clients[c] = mine
	}
	mine.uses++
	return mine.own
}

func (t *Turns) leave(c netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine := t.clients[c]; mine.uses > 1 {
		mine.uses--
		return
	}
	delete(t.clients, c)
}

// Uses returns the number of holders and waiters of all clients.
func (t *Turns) Uses() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.clients {
		n += c.uses
	}
	return n
}
