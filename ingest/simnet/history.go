package simnet

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"time"
)

// Weights says how often each kind of step is taken, in proportion to the others, and how large
// some are.
type Weights struct {
	Commit     int // of 1 to WritesMax writes
	Redundant  int // a commit with redundant operations
	Empty      int // a commit without writes
	Burst      int // of 2 to BurstMax commits of one account
	Status     int // active to deactivated, taken down or suspended, on among these, and back
	Handle     int
	Key        int // a rotation, with the empty commit it brings
	Migrate    int
	MigrateKey int // a migration with a new key, but no commit
	Delete     int // for good; at least half of the accounts the network began with remain
	New        int
	Sync       int // a #sync of the known head
	Bounce     int // a migration to another host and back at once
	// a former host states that the account is deactivated or deleted, with its clock four minutes
	// ahead
	Former int
	// a relay takes an account down, suspends or throttles it, whatever its host states; or ends that
	Decide int
	// WritesMax bounds the writes of one commit. Default 8.
	WritesMax int
	// BurstMax bounds the commits of one burst. Default 20.
	BurstMax int
	// AccountsMax bounds the accounts, new ones included. Default twice as many as the network began
	// with.
	AccountsMax int
}

// DefaultWeights are mostly commits, with some of everything.
func DefaultWeights() Weights {
	return Weights{Commit: 100, Redundant: 12, Empty: 4, Burst: 3, Status: 8, Handle: 4, Key: 3,
		Migrate: 3, MigrateKey: 2, Delete: 1, New: 1, Sync: 2, Bounce: 1, Former: 3, Decide: 3}
}

// History makes seeded random mutations of a whole network. It belongs to one goroutine; two
// histories with the same seed on equal networks make the same events. For a history by script call
// the mutations of Account.
type History struct {
	net     *Network
	rng     *rand.Rand
	weights Weights
	deleted int
	renamed int
}

// Change is the effect of a step.
type Change struct{ Kind, DID string }

// History returns a history. Weights without a kind are DefaultWeights.
func (n *Network) History(seed uint64, w Weights) *History {
	h := &History{net: n, rng: rand.New(rand.NewChaCha8(n.derive("history", int(seed), 0)))}
	def := DefaultWeights()
	def.WritesMax, def.BurstMax = cmp.Or(w.WritesMax, 8), cmp.Or(w.BurstMax, 20)
	def.AccountsMax = cmp.Or(w.AccountsMax, 2*n.opts.Repos)
	sizes := Weights{WritesMax: w.WritesMax, BurstMax: w.BurstMax, AccountsMax: w.AccountsMax}
	if w == sizes {
		w = def
	}
	w.WritesMax, w.BurstMax, w.AccountsMax = def.WritesMax, def.BurstMax, def.AccountsMax
	h.weights = w
	return h
}

// Run takes steps.
func (h *History) Run(steps int) {
	for range steps {
		h.Step()
	}
}

// Step makes one mutation, or a burst. If no account is fit for the drawn kind, it draws another.
func (h *History) Step() Change {
	w := h.weights
	kinds := []struct {
		name   string
		weight int
		do     func() string // the DID, "" if no account was fit
	}{
		{"commit", w.Commit, func() string { return h.commits(1) }},
		{"redundant", w.Redundant, h.redundant},
		{"empty", w.Empty, h.empty},
		{"burst", w.Burst, func() string { return h.commits(2 + h.rng.IntN(max(1, w.BurstMax-1))) }},
		{"status", w.Status, h.status},
		{"handle", w.Handle, h.handle},
		{"key", w.Key, func() string { return h.with(Active, func(a *Account) { a.RotateKey() }) }},
		{"migrate", w.Migrate, func() string { return h.migrate((*Account).Migrate) }},
		{"migrateKey", w.MigrateKey, func() string { return h.migrate((*Account).MigrateKey) }},
		{"delete", w.Delete, h.remove},
		{"new", w.New, h.add},
		{"sync", w.Sync, func() string { return h.with(Active, (*Account).Sync) }},
		{"bounce", w.Bounce, h.bounce},
		{"former", w.Former, h.former},
		{"decide", w.Decide, h.decide},
	}
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	for range 100 {
		draw := h.rng.IntN(total)
		for _, k := range kinds {
			if draw -= k.weight; draw >= 0 {
				continue
			}
			if did := k.do(); did != "" {
				return Change{k.name, did}
			}
			break
		}
	}
	return Change{Kind: "none"}
}

// with does something with a random account of a status, "" for all but the deleted.
func (h *History) with(s Status, do func(*Account)) string {
	accounts := h.net.Accounts()
	for range 50 {
		a := accounts[h.rng.IntN(len(accounts))]
		if now := a.Status(); now == s || (s == "" && now != Deleted) {
			do(a)
			return a.did
		}
	}
	return ""
}

func (h *History) commits(n int) string {
	return h.with(Active, func(a *Account) {
		for range n {
			if _, err := a.Mutate(1 + h.rng.IntN(h.weights.WritesMax)); err != nil {
				panic(fmt.Sprintf("simnet: seeded commit: %v", err)) // Mutate makes possible writes only
			}
		}
	})
}

func (h *History) redundant() string {
	return h.with(Active, func(a *Account) {
		if _, err := a.MutateRedundantly(); err != nil {
			panic(fmt.Sprintf("simnet: seeded commit: %v", err)) // it makes possible writes only
		}
	})
}

func (h *History) empty() string {
	// without writes nothing is impossible
	return h.with(Active, func(a *Account) { _, _ = a.Commit() })
}

func (h *History) status() string {
	return h.with("", func(a *Account) {
		hidden := []Status{Deactivated, Takendown, Suspended}[h.rng.IntN(3)]
		if a.Status() != Active && h.rng.IntN(4) > 0 {
			hidden = Active
		}
		a.SetStatus(hidden)
	})
}

func (h *History) handle() string {
	h.renamed++
	return h.with("", func(a *Account) { a.SetHandle(fmt.Sprintf("renamed%d.sim.test", h.renamed)) })
}

func (h *History) migrate(move func(*Account, *Host)) string {
	if len(h.net.hosts) < 2 {
		return ""
	}
	return h.with(Active, func(a *Account) {
		from, to := a.Host(), h.net.hosts[h.rng.IntN(len(h.net.hosts)-1)]
		if to == from {
			to = h.net.hosts[len(h.net.hosts)-1]
		}
		move(a, to)
	})
}

func (h *History) bounce() string {
	return h.migrate(func(a *Account, to *Host) {
		home := a.Host()
		a.Migrate(to)
		a.Migrate(home)
	})
}

func (h *History) former() string {
	accounts := h.net.Accounts()
	for range 50 {
		a := accounts[h.rng.IntN(len(accounts))]
		if a.FormerHost() != nil && a.Status() != Deleted {
			a.FormerSays([]Status{Deactivated, Deleted}[h.rng.IntN(2)], 4*time.Minute)
			return a.did
		}
	}
	return ""
}

func (h *History) decide() string {
	relay := h.net.relays[h.rng.IntN(len(h.net.relays))]
	if decided := relay.Decided(); len(decided) > 0 && h.rng.IntN(2) == 0 {
		a := decided[h.rng.IntN(len(decided))]
		relay.Decide(a, Active)
		return a.did
	}
	s := []Status{Takendown, Suspended, Throttled, Desynchronized}[h.rng.IntN(4)]
	return h.with(Active, func(a *Account) { relay.Decide(a, s) })
}

func (h *History) remove() string {
	if 2*(h.deleted+1) > h.net.opts.Repos {
		return ""
	}
	return h.with("", func(a *Account) {
		h.deleted++
		a.SetStatus(Deleted)
	})
}

func (h *History) add() string {
	if len(h.net.Accounts()) >= h.weights.AccountsMax {
		return ""
	}
	return h.net.AddAccount(h.net.hosts[h.rng.IntN(len(h.net.hosts))]).did
}
