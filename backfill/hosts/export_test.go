package hosts

import (
	"context"

	"cistern/backfill/pace"
	"cistern/store"
)

// HostsMax is how many hosts a table holds.
const HostsMax = hostsMax

// Waiters is how many requests wait in Admit for a permit of a host.
func Waiters(t *Table, id uint32) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.hosts[id].waiters)
}

// Knows reports whether a host is in the table.
func Knows(t *Table, id uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hosts[id] != nil
}

// Trust has a host bear so many requests at a time as are set for it.
func Trust(t *Table, id uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.hostOf(id)
	h.Trust()
	h.Note(pace.Outcome{Answered: true}, h.Mark(), t.opts.Now())
}

// Spend charges a request to a permit.
func Spend(ctx context.Context, p *Permit, k pace.Kind) error { return p.spend(ctx, k) }

// Admit lets a request in that belongs to no repository being fetched.
func Admit(ctx context.Context, t *Table, id uint32) (*Permit, error) { return t.admit(ctx, id) }

// StoreOf is the store of a table.
func StoreOf(t *Table) *store.Store { return t.store }
