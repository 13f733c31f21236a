package intake

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"cistern/backfill"
	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/ingest/repo"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// Options configures a Loader. Store, Directory and Source are required.
type Options struct {
	Store     *store.Store
	Directory backfill.Directory
	Source    Source

	// Workers is the number of repositories that are read and verified at a time. Default 32.
	Workers int
	// SpoolDir takes the CARs that do not fit into memory. Default: the system's directory for
	// temporary files.
	SpoolDir string
	// CARBytesMax bounds one CAR. Default 4 GiB.
	CARBytesMax int64

	// RetryBase is the pause after the directory has not answered once; it doubles. Default 1s.
	RetryBase time.Duration

	// Refused is called with each CAR that is refused, one call at a time. It must not block for
	// long. Default: nothing.
	Refused func(Refusal)
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger receives state changes. Default: discard.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	o.Workers = cmp.Or(o.Workers, 32)
	o.CARBytesMax = cmp.Or(o.CARBytesMax, 4<<30)
	if o.Refused == nil {
		o.Refused = func(Refusal) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Loader stores the CARs of a source. It is used for one Run.
type Loader struct {
	opts    Options
	intake  *backfill.Intake
	results results
	buffers sync.Pool // of *bytes.Buffer, for CARs of archives

	copyBytes, largeBytes int64 // copyBytesMax and largeBytesMin; less in tests

	// source guards the source, and the body of an entry that shares it.
	source sync.Mutex
	// large is held while a CAR of largeBytes or more is read and stored. It is locked after source.
	large sync.Mutex
}

// New makes a Loader. It starts nothing.
func New(opts Options) (*Loader, error) {
	opts = opts.withDefaults()
	if opts.Source == nil || opts.Workers < 1 || opts.CARBytesMax < 1 {
		return nil, errors.New("options of a loader: a required field is missing or not positive")
	}
	l := &Loader{opts: opts, results: results{refused: opts.Refused},
		copyBytes: copyBytesMax, largeBytes: largeBytesMin}
	l.buffers.New = func() any { return new(bytes.Buffer) }
	var err error
	l.intake, err = backfill.NewIntake(backfill.IntakeOptions{
		Store: opts.Store, Directory: opts.Directory, Concurrency: opts.Workers,
		SpoolDir: opts.SpoolDir, CARBytesMax: opts.CARBytesMax, RetryBase: opts.RetryBase,
		Now: opts.Now, Logger: opts.Logger,
	})
	return l, err
}

// Run reads the source to its end, and returns when everything that it stored is durable. The error
// says why it ended early; what was stored by then stays, and another run continues.
func (l *Loader) Run(ctx context.Context) (Summary, error) {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	var loops errgroup.Group
	loops.Go(func() error {
		defer cancel() // without the store nothing can go on
		return l.opts.Store.Run(writing)
	})
	g, reading := errgroup.WithContext(reading)
	for range l.opts.Workers {
		g.Go(func() error { return l.work(reading) })
	}
	err := g.Wait()
	// The last groups: the result of every CAR is known when they are visible.
	err = errors.Join(err, l.opts.Store.FlushImports())
	stop()
	err = errors.Join(err, loops.Wait())
	if err == nil {
		err = ctx.Err()
	}
	return l.results.summary(), err
}

// Summary returns the counts so far. Safe for concurrent use.
func (l *Loader) Summary() Summary { return l.results.summary() }

// work stores CARs until the source ends.
func (l *Loader) work(ctx context.Context) error {
	for {
		err := l.one(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// one stores the next CAR. The error is io.EOF itself at the end of the source; any other ends the
// run.
func (l *Loader) one(ctx context.Context) error {
	l.source.Lock()
	e, err := l.opts.Source.Next(ctx)
	if err != nil || e.Body == nil {
		l.source.Unlock()
	}
	if err != nil {
		return err
	}
	if e.Size >= l.largeBytes {
		l.large.Lock()
		defer l.large.Unlock()
	}
	f, err := l.read(ctx, &e)
	l.results.read(e.Size)
	if err != nil {
		return l.judge(ctx, &e, "", err)
	}
	did := f.Commit.DID
	err = l.intake.Store(ctx, f, func(fresh bool, err error) {
		// If this fails because the store does, Store.Run ends the run.
		_ = l.end(ctx, &e, did, fresh, err)
	})
	if err != nil {
		return l.end(ctx, &e, did, false, err)
	}
	return nil
}

// end counts a CAR that was stored or not. An error ends the run.
func (l *Loader) end(ctx context.Context, e *Entry, did string, fresh bool, err error) error {
	switch {
	case errors.Is(err, backfill.ErrNotNewer):
		l.results.stored(func(s *Summary) *int64 { return &s.NotNewer })
	case err != nil:
		return l.judge(ctx, e, did, err)
	case fresh:
		l.results.stored(func(s *Summary) *int64 { return &s.New })
	default:
		l.results.stored(func(s *Summary) *int64 { return &s.Updated })
	}
	return nil
}

// judge refuses a CAR, unless its error ends the run.
func (l *Loader) judge(ctx context.Context, e *Entry, did string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case hosts.IsOfStore(err):
		return err
	}
	blameless := errors.Is(err, backfill.ErrUnavailable) || errors.Is(err, errUnread)
	if l.results.refuse(newRefusal(e.Name, did, err), blameless) {
		return fmt.Errorf("%d CARs in a row could not be read or verified, the last because: %w",
			failuresMax, err)
	}
	return nil
}

// errUnread means that the source or the local disk failed, and not that a CAR is wrong.
var errUnread = errors.New("cannot be read")

// read reads a CAR to its end. The source is locked if it has the body of the CAR, and read unlocks
// it.
func (l *Loader) read(ctx context.Context, e *Entry) (*fetch.File, error) {
	switch {
	case e.Body == nil:
		return l.open(ctx, e)
	case e.Size > l.copyBytes:
		defer l.source.Unlock()
		return l.parse(e, e.Body)
	}
	buffer := l.buffers.Get().(*bytes.Buffer)
	defer l.buffers.Put(buffer)
	buffer.Reset()
	buffer.Grow(int(e.Size) + bytes.MinRead) // so that the read of the end does not move it
	_, err := buffer.ReadFrom(e.Body)
	l.source.Unlock()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnread, err)
	}
	return l.parse(e, buffer)
}

// open reads a CAR that has a file of its own.
func (l *Loader) open(ctx context.Context, e *Entry) (*fetch.File, error) {
	body, err := e.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnread, err)
	}
	f, err := l.parse(e, body)
	if cerr := body.Close(); err == nil && cerr != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errUnread, cerr), f.Close())
	}
	return f, err
}

// parse reads a CAR, and marks errors that are not those of its bytes.
func (l *Loader) parse(e *Entry, r io.Reader) (*fetch.File, error) {
	if e.Size > l.opts.CARBytesMax {
		return nil, fmt.Errorf("CAR of %d bytes exceeds %d: raise --repo-max to take it",
			e.Size, l.opts.CARBytesMax)
	}
	f, err := l.intake.Read(r)
	if err != nil && !errors.Is(err, repo.ErrInvalid) {
		err = fmt.Errorf("%w: %w", errUnread, err)
	}
	return f, err
}
