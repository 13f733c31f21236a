package simnet

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
)

// placement decides on which host each account begins.
type placement struct {
	net    *Network
	shares []float64 // of the hosts up to each, by Options.Skew; empty: all have the same
}

func newPlacement(n *Network) placement {
	s := placement{net: n}
	if n.opts.Skew <= 0 {
		return s
	}
	sum := 0.0
	for i := range n.opts.Hosts {
		sum += math.Pow(float64(i+1), -n.opts.Skew)
		s.shares = append(s.shares, sum)
	}
	return s
}

// of returns the first host of account i: in turn, or one each and the rest by their shares.
func (s placement) of(i int) *Host {
	hosts := s.net.hosts
	if len(s.shares) == 0 || i < len(hosts) {
		return hosts[i%len(hosts)]
	}
	draw := rand.New(rand.NewChaCha8(s.net.derive("seat", i, 0))).Float64() * s.shares[len(hosts)-1]
	return hosts[min(sort.SearchFloat64s(s.shares, draw), len(hosts)-1)]
}

// addResident adds an account to those that the host lists, in the order they were made. It stays
// in the list when it moves away, since its former host goes on listing it.
func (h *Host) addResident(a *Account) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := sort.Search(len(h.residents), func(i int) bool { return h.residents[i].index >= a.index })
	switch {
	case at == len(h.residents):
		h.residents = append(h.residents, a)
	case h.residents[at] != a: // into a copy: lists being read do not change
		h.residents = slices.Insert(slices.Clone(h.residents), at, a)
	}
}

// rank returns the place of an account among all that live or lived on the host, in the order they
// were made.
func (h *Host) rank(a *Account) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return sort.Search(len(h.residents), func(i int) bool { return h.residents[i].index >= a.index })
}

// listed returns the accounts that the host has or had, in the order they were made.
func (h *Host) listed() []*Account {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.residents[:len(h.residents):len(h.residents)]
}
