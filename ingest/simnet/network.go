package simnet

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Network is a simulated AT network.
type Network struct {
	opts   Options
	words  []string
	plc    *Host
	relays []*Host
	hosts  []*Host

	// mu guards:
	mu       sync.RWMutex
	accounts []*Account
	byDID    map[string]*Account
	running  bool // a new account causes an event

	built     atomic.Bool // every repository has its content
	generated atomic.Int64
}

// New makes the accounts and hosts of a network. It neither generates repositories nor listens.
func New(opts Options) (*Network, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("simnet options: %w", err)
	}
	n := &Network{opts: opts, words: strings.Fields(wordList), byDID: make(map[string]*Account)}
	n.plc = newHost("plc", n.servePLC)
	for i := range opts.Relays {
		h := newHost(fmt.Sprintf("relay%d", i), nil)
		h.relay = &relay{net: n, host: h}
		h.answer = h.relay.serve
		h.stream = newStream(n, int64(i+1)*relaySeqs, opts.Window)
		h.stream.silent = opts.Manners == Indigo
		n.relays = append(n.relays, h)
	}
	for i := range opts.Hosts {
		h := newHost(fmt.Sprintf("pds%d", i), nil)
		h.answer = (&pds{n, h}).serve
		h.stream = newStream(n, 0, opts.Window)
		h.meter.limit = opts.Limit
		n.hosts = append(n.hosts, h)
	}
	homes := newPlacement(n)
	for i := range opts.Repos {
		n.addAccount(i, homes.of(i)).quiet = every(opts.QuietEvery, i)
	}
	return n, nil
}

// Start makes every host listen and serve until Close.
func (n *Network) Start(ctx context.Context) error {
	for _, h := range n.all() {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, n.Close())
		}
		if err := h.Up(); err != nil {
			return errors.Join(fmt.Errorf("start %s: %w", h.name, err), n.Close())
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running = true
	return nil
}

// Close stops every host, breaking what is in progress, and waits for its goroutines.
func (n *Network) Close() error {
	var errs []error
	for _, h := range n.all() {
		errs = append(errs, h.Down())
	}
	return errors.Join(errs...)
}

// Build generates all repositories at once, on all cores, instead of on first use.
func (n *Network) Build(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, a := range n.Accounts() {
		g.Go(func() error {
			if ctx.Err() == nil {
				a.snapshot()
				n.generated.Add(1)
			}
			return ctx.Err()
		})
	}
	err := g.Wait()
	n.built.Store(true)
	return err
}

// Built returns how many repositories Build has generated. It may be called while Build runs.
func (n *Network) Built() int64 { return n.generated.Load() }

// Names returns a resolver that knows the handles of all accounts, by the TXT record of each, and
// no other name. It asks no network.
func (n *Network) Names() *net.Resolver {
	return NameServer(func(name string) *Name {
		handle, ok := strings.CutPrefix(name, "_atproto.")
		if !ok {
			return nil
		}
		for _, a := range n.Accounts() {
			if a.Handle() == handle {
				return &Name{Texts: []string{"did=" + a.DID()}}
			}
		}
		return nil
	})
}

// PLC returns the base URL of the PLC directory.
func (n *Network) PLC() string { return n.plc.URL() }

// Relay returns the base URL of the first relay.
func (n *Network) Relay() string { return n.relays[0].URL() }

// PLCHost returns the PLC directory as a host, for faults and counts.
func (n *Network) PLCHost() *Host { return n.plc }

// RelayHost returns the first relay as a host, for faults and counts.
func (n *Network) RelayHost() *Host { return n.relays[0] }

// Relays lists the relays.
func (n *Network) Relays() []*Host { return slices.Clone(n.relays) }

// Host returns PDS number i.
func (n *Network) Host(i int) *Host { return n.hosts[i] }

// Hosts lists the PDS hosts.
func (n *Network) Hosts() []*Host { return append([]*Host(nil), n.hosts...) }

// DIDs lists the DIDs of all accounts, in the order in which they were made.
func (n *Network) DIDs() []string {
	accounts := n.Accounts()
	dids := make([]string, len(accounts))
	for i, a := range accounts {
		dids[i] = a.did
	}
	return dids
}

// Accounts lists all accounts, in the order in which they were made.
func (n *Network) Accounts() []*Account {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.accounts[:len(n.accounts):len(n.accounts)]
}

// Truths returns the true state of all accounts, in the order in which they were made.
func (n *Network) Truths() []Truth {
	accounts := n.Accounts()
	truths := make([]Truth, len(accounts))
	for i, a := range accounts {
		truths[i] = a.Truth()
	}
	return truths
}

// Account returns the account with a DID, nil if it is unknown.
func (n *Network) Account(did string) *Account {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.byDID[did]
}

// AddAccount adds an account, with a generated repository, to a host. Once the network was started,
// the streams have its events.
func (n *Network) AddAccount(on *Host) *Account {
	n.mu.Lock()
	a, running := n.addAccount(len(n.accounts), on), n.running
	a.mu.Lock() // before the account is visible, so that its first commit is its first event
	defer a.mu.Unlock()
	n.mu.Unlock()
	if running {
		a.create()
	}
	return a
}

func (n *Network) addAccount(i int, on *Host) *Account {
	digest := n.derive("did", i, 0)
	rngSeed := n.derive("content", i, 0)
	a := &Account{
		repository: repository{
			net:   n,
			index: i,
			did:   "did:plc:" + didEncoding.EncodeToString(digest[:])[:24],
			key:   newSigner(n.derive("key", i, 0), every(n.opts.P256Every, i)),
			rng:   rand.New(rand.NewChaCha8(rngSeed)),
		},
		handle: firstHandle(i),
		host:   on,
		status: Active,
		legacy: every(n.opts.LegacyEvery, i),
	}
	a.plc = []plcOp{{a.born(), a.key, a.handle, on, false}}
	n.accounts = append(n.accounts, a)
	n.byDID[a.did] = a
	on.addResident(a)
	return a
}

// firstHandle returns the first handle of an account.
func firstHandle(i int) string { return fmt.Sprintf("user%d.sim.test", i) }

var didEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").
	WithPadding(base32.NoPadding)

// derive returns the seed for one property, named by label, of an account.
func (n *Network) derive(label string, account, turn int) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "simnet/%d/%s/%d/%d", n.opts.Seed, label, account, turn))
}

// didAt returns the DID of account i of the initial accounts.
func (n *Network) didAt(i int) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.accounts[i].did
}

// repoSize returns the initial number of records of account i: log-normal around the median.
func (n *Network) repoSize(i int) int {
	if i < n.opts.Repos && i >= n.opts.Repos-n.opts.Empty {
		return 0
	}
	const sigma = 1.2 // mean ≈ 2 medians; one in twenty over 7 medians
	seed := n.derive("size", i, 0)
	z := rand.New(rand.NewChaCha8(seed)).NormFloat64()
	size := math.Round(float64(n.opts.RecordsMedian) * math.Exp(sigma*z))
	return int(min(max(size, 1), float64(n.opts.RecordsMax)))
}

func (n *Network) all() []*Host { return slices.Concat([]*Host{n.plc}, n.relays, n.hosts) }
