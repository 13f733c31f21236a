package backfill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/backfill/refilter"
	"cistern/ingest/identity"
	"cistern/loop"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// IntakeOptions configures an Intake. Store and Directory are required.
type IntakeOptions struct {
	Store     *store.Store
	Directory Directory

	// Limits of copies. fetch.Options documents their meaning and their defaults.
	Concurrency     int
	MemoryBytes     int64
	RepoMemoryBytes int64
	SpoolDir        string
	CARBytesMax     int64

	// RetryBase is the pause after the directory has not answered once; it doubles. Default 1s.
	RetryBase time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger receives state changes. Default: discard.
	Logger *slog.Logger
	// Registerer receives the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

// Intake stores repositories whose CARs do not come from their hosts. It verifies and writes them
// as a task does, but nothing else may write to the store meanwhile: live commits are not buffered.
// Its methods are safe for concurrent use.
type Intake struct {
	opts   IntakeOptions
	store  *store.Store
	copier *fetch.Copier

	// mu guards:
	mu    sync.Mutex
	taken map[string]chan struct{} // DIDs in flight; closed when the repository is stored or refused
	owed  bool                     // the comparison with the lists of hosts is requested
}

var (
	// ErrNotNewer means that the stored copy is as new as the CAR, or newer.
	ErrNotNewer = errors.New("the stored copy is not older")
	// ErrNotWanted means that the filter, or the state of the account, does not let the repository
	// be followed.
	ErrNotWanted = errors.New("not wanted")
	// ErrUnavailable means that the directory that all did:plc share did not answer.
	ErrUnavailable = errors.New("the directory does not answer")
)

const (
	// intakeTries is how often the shared directory is asked for a document before the repository is
	// refused.
	intakeTries = 4
)

// NewIntake makes an Intake.
func NewIntake(opts IntakeOptions) (*Intake, error) {
	if opts.Store == nil || opts.Directory == nil {
		return nil, errors.New("options of an intake: a required field is missing")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	opts.RetryBase = cmp.Or(opts.RetryBase, time.Second)
	copier, err := fetch.New(fetch.Options{
		Keys: opts.Directory, Crowded: func() bool { return false },
		Concurrency: opts.Concurrency, MemoryBytes: opts.MemoryBytes,
		RepoMemoryBytes: opts.RepoMemoryBytes, SpoolDir: opts.SpoolDir, CARBytesMax: opts.CARBytesMax,
		Now: opts.Now, Logger: opts.Logger, Registerer: opts.Registerer,
	})
	if err != nil {
		return nil, fmt.Errorf("options of an intake: %w", err)
	}
	return &Intake{opts: opts, store: opts.Store, copier: copier,
		taken: map[string]chan struct{}{}}, nil
}

// Read reads a CAR to its end, and checks the hash of each block. The file is passed to Store, or
// closed.
func (k *Intake) Read(car io.Reader) (*fetch.File, error) { return k.copier.ReadFile(car) }

// Store verifies a file and stores the repository, or the difference to the stored copy. Unless it
// returns an error, it calls done once, perhaps in another goroutine and after it has returned;
// done must not block. Without an error the copy is complete and durable, and fresh says whether it
// is the first. Errors are ErrNotNewer, those for which hosts.IsOfStore is true, the end of ctx,
// and else the reason to refuse the repository. Store takes the file over.
func (k *Intake) Store(ctx context.Context, f *fetch.File, done func(fresh bool, err error)) error {
	release, err := k.begin(ctx, f.Commit.DID)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	d := newDelivery(k, f.Commit.DID, func(fresh bool, err error) {
		release()
		done(fresh, err)
	})
	err = d.run(ctx, f)
	if err != nil {
		release()
	}
	return err
}

// begin waits until no other copy of the repository is in flight, and adds it to those in flight.
func (k *Intake) begin(ctx context.Context, did string) (release func(), err error) {
	for {
		k.mu.Lock()
		other, busy := k.taken[did]
		if !busy {
			ended := make(chan struct{})
			k.taken[did] = ended
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.taken, did)
				k.mu.Unlock()
				close(ended)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// owe requests, before the first row is written, that the daemon compares the lists of all known
// hosts with the rows: events that are newer than a CAR may never come. base is the origin of one
// of the hosts, whose scheme is used for all.
func (k *Intake) owe(base string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.owed {
		return nil
	}
	defer k.store.LockReconcileHosts()()
	b := k.store.NewBatch()
	b.PutReconcileHosts(base)
	// From here on the comparison follows, whatever of the import a crash leaves.
	if err := b.CommitSync(); err != nil {
		return hosts.OfStore(err)
	}
	k.owed = true
	return nil
}

// delivery is one repository on its way into the store.
type delivery struct {
	k    *Intake
	doc  document
	win  window
	land landing
	done func(fresh bool, err error)
}

func newDelivery(k *Intake, did string, done func(fresh bool, err error)) *delivery {
	d := &delivery{k: k, done: done}
	d.doc = document{directory: k.opts.Directory, did: did, now: k.opts.Now}
	d.win = window{store: k.store, did: did, filter: k.store.Filter()}
	d.land = landing{win: &d.win, doc: &d.doc, now: k.opts.Now,
		delay: func(uint32) time.Duration { return goneRecheck }}
	return d
}

// run verifies and writes the repository. Unless it returns an error, done was called, or the store
// calls it.
func (d *delivery) run(ctx context.Context, f *fetch.File) error {
	err := d.admit(f)
	if err == nil {
		err = d.resolve(ctx)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	c, err := f.Verify(ctx, &fetch.Request{
		Target: fetch.Target{DID: d.win.did, Ident: d.doc.ident, HostID: d.doc.hostID},
		Fresh:  true, Filter: d.win.filter.Filter, Rev: d.win.row.Rev, TornRev: d.win.row.TornRev,
	})
	if err != nil {
		return err
	}
	d.land.take(c)
	if err = d.open(); err == nil {
		err = d.write(ctx, c)
	}
	if cerr := c.Close(); err != nil {
		err = errors.Join(err, cerr)
	}
	return err // once the copy is written, a failure to close its spool changes nothing
}

// admit reads the row, and decides whether the CAR is of use. Only the account's host can say that
// a hidden account is active again.
func (d *delivery) admit(f *fetch.File) error {
	row, err := d.k.store.RepoOrNew(d.win.did)
	if err != nil {
		return hosts.OfStore(err)
	}
	d.win.row = row
	rev := f.Commit.Rev
	switch {
	case d.win.filter.Excluded(row.DID):
		return fmt.Errorf("%w: the filter excludes the account", ErrNotWanted)
	case row.Status.Hidden():
		return fmt.Errorf("%w: the account is %s", ErrNotWanted, row.Status)
	case row.Known() && row.Tracked == store.Untracked:
		return fmt.Errorf("%w: the account is known and not followed", ErrNotWanted)
	case row.Ordinal == 0:
		return nil
	case rev < row.Rev, rev < row.TornRev, rev == row.Rev && !row.Torn && !row.Lacks:
		return ErrNotNewer
	}
	return nil
}

// resolve reads the document of the account, and finds the number of its host. It waits while the
// shared directory asks for that, and tries again when it does not answer. The document of a
// did:web is at a host that may never answer, and is asked for once.
func (d *delivery) resolve(ctx context.Context) error {
	for try, pause := 1, d.k.opts.RetryBase; ; try, pause = try+1, 2*pause {
		err := d.doc.refresh(ctx, &d.win.row)
		if err == nil {
			break
		}
		v := classify(ctx, err, d.k.opts.Now())
		switch {
		case v.ending == endStop || v.noHost || !sharesDirectory(d.win.did):
			return err
		case v.wait > 0:
			loop.Sleep(ctx, v.wait, nil)
			try--
		case try == intakeTries:
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		default:
			loop.Sleep(ctx, pause, nil)
		}
	}
	id, err := hosts.IDOf(d.k.store, identity.HostOf(d.doc.ident.PDS))
	d.doc.hostID = id
	return err
}

// why returns the reason to follow a repository that is not known yet.
func (d *delivery) why() (store.Why, error) {
	f := d.win.filter
	switch {
	case f.Full():
		return store.ByNetwork, nil
	case len(f.Signals()) == 0:
		return store.ByOperator, nil // each CAR is a name that the operator gives
	case d.land.signal:
		return store.BySignal, nil
	}
	return store.Untracked, fmt.Errorf("%w: no record is in a collection that a signal names",
		ErrNotWanted)
}

// open makes the row pending, in a new attempt. After a crash from here on it stays pending, and
// either the next import or the daemon completes it.
func (d *delivery) open() error {
	before := d.win.row
	var why store.Why
	if !before.Known() || refilter.OnSignal(d.win.filter.Filter, &before) {
		var err error
		if why, err = d.why(); err != nil {
			return err
		}
	}
	if err := d.k.owe(d.doc.ident.PDS); err != nil {
		return err
	}
	_, err := d.k.store.UpdateRepo(d.win.did, func(b *store.Batch, row *store.Repo) error {
		if row.Attempt != before.Attempt || row.State != before.State {
			return store.ErrStale
		}
		switch {
		case !row.Known():
			row.Pending.Host = d.doc.hostID
			b.Track(row, why, store.PriorityDiscovery)
		case row.State != store.StatePending:
			row.Recheck = row.Ordinal != 0
			b.Enqueue(row, store.PriorityRetry)
		default:
			b.DropBuffer(row)
		}
		b.PutRepo(row)
		d.win.row = *row
		return nil
	})
	return hosts.OfStore(err)
}

// write stores a verified copy.
func (d *delivery) write(ctx context.Context, c *fetch.Copy) error {
	if d.win.row.Ordinal != 0 {
		if _, err := d.land.diff(ctx, c); err != nil {
			return err
		}
		d.done(false, nil)
		return nil
	}
	// The store calls done, also with the error that Import returns.
	_ = d.k.store.Import(ctx, store.Import{
		DID: d.win.did, Attempt: d.win.row.Attempt, Rev: d.land.commit.Rev,
		Filter: d.win.filter.Selection, Blocks: c.Blocks(), Walk: c.Walk,
		Complete: d.land.complete,
		Done:     func(_ store.Repo, err error) { d.done(true, hosts.OfStore(err)) },
	})
	return nil
}
