package simnet

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// repository is the repository of one account at its host: the newest commits, the key that signs
// them, and the logical clock of their revs. It is generated from the seed on first use. It emits
// no events, which is left to the account.
type repository struct {
	net   *Network
	index int // index of the account
	did   string

	// mu guards these fields and the account:
	mu        sync.Mutex
	key       *signer
	now, prev *snapshot // now is nil until the first use
	imported  string    // rev that the host states for the head instead of its own; "": none
	eventRev  string    // rev of the last event, "" until the first use
	clock     time.Time // time of the newest TID or event
	rng       *rand.Rand
}

// Paths lists the paths of all records in order.
func (r *repository) Paths() []string {
	s := r.snapshot()
	paths := make([]string, len(s.leaves))
	for i, l := range s.leaves {
		paths[i] = l.path
	}
	return paths
}

// Record returns the bytes of a record, nil if the path has no record. Callers do not modify them.
func (r *repository) Record(path string) []byte {
	s := r.snapshot()
	if i, ok := s.find(path); ok {
		return s.leaves[i].data
	}
	return nil
}

// CAR returns the CAR that a correct host sends.
func (r *repository) CAR() []byte {
	s := r.snapshot()
	return encodeCAR(s.root.cid, s.blocks())
}

// NextTID returns a record key newer than all earlier ones.
func (r *repository) NextTID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.load()
	return r.tick()
}

func (r *repository) snapshot() *snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load()
}

// head returns the newest commit, and the rev that the host states for it.
func (r *repository) head() (s *snapshot, rev string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load(), r.statedRev()
}

// statedRev returns the rev that the host states for the head: a new rev after it imported the
// repository. Called with mu held.
func (r *repository) statedRev() string { return cmp.Or(r.imported, r.load().rev) }

// load returns the newest snapshot, generating the repository on first use. Called with mu held.
func (r *repository) load() *snapshot {
	if r.now == nil {
		leaves := r.generate()
		r.now = newSnapshot(r.did, r.tick(), leaves, r.key, r.net.opts.Preorder)
		r.eventRev = r.now.rev
	}
	return r.now
}

// generate makes the first content of the repository, sorted by path.
func (r *repository) generate() []leaf {
	size := r.net.repoSize(r.index)
	gen := recordGen{rng: r.rng, net: r.net, did: r.did}
	r.clock = r.born()
	leaves := make([]leaf, 0, size+1)
	for i := range size {
		at := r.advance()
		if i == 0 {
			leaves = append(leaves, newLeaf("app.bsky.actor.profile/self", gen.profile(at, r.index)))
			continue
		}
		leaves = append(leaves, newLeaf(gen.next(at)))
	}
	if r.index < r.net.opts.OddKeys {
		leaves = append(leaves, newLeaf("no slash, "+firstHandle(r.index), gen.note(r.advance())))
	}
	slices.SortFunc(leaves, func(x, y leaf) int { return strings.Compare(x.path, y.path) })
	return leaves
}

// stepMax is the longest time between two writes of one account on the logical clock.
const stepMax = 2 * time.Minute

// advance moves the account's logical clock by a seeded step.
func (r *repository) advance() time.Time {
	return r.forward(time.Duration(1+r.rng.Int64N(int64(stepMax/time.Microsecond))) * time.Microsecond)
}

// forward moves the clock by a step, or to the time of this machine if the network is built and its
// options say so. Such a clock does not run ahead of the machine: revs of the future are refused.
func (r *repository) forward(step time.Duration) time.Time {
	if r.net.opts.Present && r.net.built.Load() {
		step = max(time.Microsecond, time.Since(r.clock))
	}
	r.clock = r.clock.Add(step)
	return r.clock
}

// tick returns a TID newer than all earlier TIDs of the account.
func (r *repository) tick() string { return tid(r.advance(), r.index) }

func tid(at time.Time, clock int) string {
	return syntax.NewTID(at.UnixMicro(), uint(clock)&1023).String()
}

// stamp moves the logical clock by the resolution of event times, and returns its time. Called with
// mu held.
func (r *repository) stamp() time.Time {
	r.load()
	return r.forward(time.Millisecond)
}

// born returns the time at which the account was created, before all its content.
func (r *repository) born() time.Time {
	return r.net.opts.Epoch.Add(-time.Duration(r.net.repoSize(r.index)+2) * stepMax)
}
