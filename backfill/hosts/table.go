package hosts

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"
)

// Table is the bounded table of hosts. It shares permits among the hosts, and bounds the requests
// to each host. Safe for concurrent use.
type Table struct {
	opts    Options
	store   *store.Store
	client  *http.Client
	metrics *metrics

	// mu guards:
	mu    sync.Mutex
	sched *pace.Scheduler
	hosts map[uint32]*host
	full  time.Time // when a scan found no idle host
}

// host is the state of one host. Table.mu guards it.
type host struct {
	pace.Host
	waiters []*waiter // requests that wait for the host's part of a permit
	tally   tally     // statistics that are not written yet
}

// idle reports whether forgetting the host loses nothing but its history.
func (h *host) idle(now time.Time) bool {
	return h.Idle(now) && len(h.waiters) == 0 && !h.tally.dirty
}

// New makes a Table. Nothing is written before Run.
func New(opts Options) (*Table, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("options of the table of hosts: %w", err)
	}
	t := &Table{
		opts:  opts,
		store: opts.Store,
		sched: pace.NewScheduler(opts.Concurrency),
		hosts: make(map[uint32]*host),
	}
	t.client = &http.Client{Transport: opts.Transport, CheckRedirect: t.checkRedirect}
	var err error
	if t.metrics, err = newMetrics(opts.Registerer, t); err != nil {
		return nil, fmt.Errorf("register metrics of hosts: %w", err)
	}
	return t, nil
}

// HostID returns the store's id of a host. An error is a StoreError, or a ResolveError if the store
// accepts no such host.
func (t *Table) HostID(host string) (uint32, error) { return IDOf(t.store, host) }

// IDOf is Table.HostID without a table.
func IDOf(s *store.Store, host string) (uint32, error) {
	id, err := s.HostID(host)
	if errors.Is(err, store.ErrCorrupt) {
		return 0, OfStore(err)
	}
	if err != nil {
		return 0, &ResolveError{Err: fmt.Errorf("%w: %w", identity.ErrInvalid, err)}
	}
	return id, nil
}

// hostOf returns the entry of a host, and creates it if necessary. It returns nil if the table is
// full of hosts in use. Called with mu held.
func (t *Table) hostOf(id uint32) *host {
	if h := t.hosts[id]; h != nil {
		return h
	}
	if len(t.hosts) >= hostsMax && !t.evict() {
		return nil
	}
	h := &host{}
	h.ID = id
	h.Configure(t.limits(id))
	t.hosts[id] = h
	return h
}

// limits returns the limits of a host: those of its row, else those of the first rule that matches,
// else the defaults.
func (t *Table) limits(id uint32) (l pace.Limits, banned bool) {
	h, _ := t.store.HostByID(id) // from memory
	rule, banned := t.opts.Rules.Of(h.Name)
	l = rule.Over(pace.Limits{Min: 1, Max: t.opts.PerHost})
	return pace.Override(h.Limits).Over(l), banned || h.Banned
}

// Banned reports whether a host must not be asked, by its row or a rule.
func (t *Table) Banned(id uint32) bool {
	_, banned := t.limits(id)
	return banned
}

// Changed applies changed limits and bans of a host.
func (t *Table) Changed(id uint32) {
	now := t.opts.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.hosts[id]; h != nil {
		h.Configure(t.limits(id))
		t.serve(h, now)
		t.sched.Reconsider(&h.Host, now)
	}
}

// CloseIdleConnections closes connections that no request uses.
func (t *Table) CloseIdleConnections() { t.client.CloseIdleConnections() }

// evict removes an idle host, preferably one without faults among a few candidates. Finding that no
// host is idle takes a scan of all hosts, so the scan is not repeated for each of the thousands of
// hosts that may need a place.
func (t *Table) evict() bool {
	now := t.opts.Now()
	if since := now.Sub(t.full); since >= 0 && since < evictEvery {
		return false
	}
	var found *host
	seen := 0
	for _, h := range t.hosts { // in the random order of a map
		if h.idle(now) {
			found = h
			if h.Blameless() {
				break
			}
		}
		if seen++; seen == evictTries && found != nil {
			break
		}
	}
	if found == nil {
		t.full = now
		return false
	}
	delete(t.hosts, found.ID)
	return true
}
