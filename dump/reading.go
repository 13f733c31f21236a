package dump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"cistern/api/deliver/format"
	"cistern/filter"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// Source is what records are read from: a store. Its methods may be called by any goroutine.
type Source interface {
	// BeginSnapshot returns a pass that begins at the head of the log.
	BeginSnapshot(f *filter.Events) *store.Pass
	// ReadRecords calls fn for the records of a pass behind a position, until fn returns false or
	// about rowsMax rows were examined, and returns the position to go on from. The error is
	// store.ErrOutdatedCursor if the log has lost events after the head of the pass. What fn gets
	// is valid during the call.
	ReadRecords(
		ctx context.Context, p *store.Pass, at store.RecordPosition, rowsMax int,
		fn func(*store.Event, store.RecordPosition) bool,
	) (next store.RecordPosition, ended bool, err error)
	// Epoch names the log.
	Epoch() string
}

// ErrToken means that a token does not belong to a reading of this store and this filter.
var ErrToken = errors.New("token of another reading")

// Reading is a pass over all records that a filter wants, as of a head. It may be continued from a
// token, also by another process.
type Reading struct {
	source Source
	pass   *store.Pass
	at     store.RecordPosition
	ended  bool
	tokens format.TokenWriter
}

// Begin returns a reading as of the present head.
func Begin(s Source, f *filter.Events) *Reading {
	return newReading(s, s.BeginSnapshot(f), store.RecordPosition{})
}

// Resume returns the reading that a token continues. The error is ErrToken for a text that is
// not a token, and for a token of another store or filter.
func Resume(s Source, f *filter.Events, token string) (*Reading, error) {
	t, err := format.ParseToken(token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if t.Epoch != s.Epoch() {
		return nil, fmt.Errorf("%w: its store had the epoch %.40q, this one has %q",
			ErrToken, t.Epoch, s.Epoch())
	}
	p := store.NewPass(t.Head, t.End, f)
	if t.Order == format.InLog || p.Order != t.Order || p.Sum != t.Sum {
		return nil, fmt.Errorf("%w: it belongs to other collections or dids", ErrToken)
	}
	return newReading(s, p, t.At), nil
}

func newReading(s Source, p *store.Pass, at store.RecordPosition) *Reading {
	return &Reading{source: s, pass: p, at: at, tokens: format.PassTokens(s.Epoch(), p)}
}

// Head returns the event as of which the records are.
func (r *Reading) Head() uint64 { return r.pass.Head }

// Epoch returns the epoch of the store.
func (r *Reading) Epoch() string { return r.source.Epoch() }

// Pass returns the pass of the reading, and the position that it goes on from, for a caller that
// reads repositories in place of records.
func (r *Reading) Pass() (*store.Pass, store.RecordPosition) { return r.pass, r.at }

// MoveTo has the reading go on from a position of its pass that the caller has read up to.
func (r *Reading) MoveTo(at store.RecordPosition, ended bool) { r.at, r.ended = at, ended }

// Sum returns a sum of what the filter chooses.
func (r *Reading) Sum() uint32 { return r.pass.Sum }

// Ended reports whether no record is left.
func (r *Reading) Ended() bool { return r.ended }

// Token returns the token that continues the reading.
func (r *Reading) Token() string {
	return string(r.tokens.AppendRecord(nil, r.pass.Order, r.at))
}

// Written is what a file has.
type Written struct {
	Rows        int64
	First, Last string // at-URIs of its records, "" if it has none
}

// WriteFile writes the next records as one file. After an error neither the file nor the reading is
// of use. progress is called with the rows of each page once they are written; it may be nil.
func (r *Reading) WriteFile(ctx context.Context, w io.Writer, f Format, o FileOptions,
	progress func(rows int),
) (out Written, err error) {
	made := f.open(w, r, o)
	free, filled := make(chan *page, pages), make(chan *page, pages)
	for range pages {
		free <- newPage()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(filled)
		return r.fill(ctx, made, o, free, filled)
	})
	g.Go(func() error {
		for p := range filled {
			if err := o.compute(ctx, false, func() error { return made.write(p) }); err != nil {
				return err
			}
			out.add(p)
			if progress != nil {
				progress(p.rows)
			}
			free <- p // never full
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return out, err
	}
	token := ""
	if !r.ended {
		token = r.Token()
	}
	return out, made.end(out.Rows, token)
}

// compute calls fn with the right to compute.
func (o *FileOptions) compute(ctx context.Context, reads bool, fn func() error) error {
	if o.Compute == nil {
		return fn()
	}
	leave, err := o.Compute(ctx, reads)
	if err != nil {
		return err
	}
	defer leave()
	return fn()
}

// add counts the records of a page.
func (w *Written) add(p *page) {
	if w.Rows += int64(p.rows); p.rows == 0 {
		return
	}
	if w.First == "" {
		w.First = p.first.uri()
	}
	w.Last = p.last.uri()
}

// fill reads pages until the file is to end.
func (r *Reading) fill(ctx context.Context, f file, o FileOptions, free <-chan *page,
	filled chan<- *page,
) error {
	var rows, bytes int64
	for !r.ended && (o.RowsMax == 0 || rows < o.RowsMax) && (o.BytesMax == 0 || bytes < o.BytesMax) {
		var p *page
		select {
		case p = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		left := int64(pageRows)
		if o.RowsMax > 0 {
			left = min(left, o.RowsMax-rows)
		}
		if err := o.compute(ctx, true, func() error { return r.read(ctx, f, p, left) }); err != nil {
			return err
		}
		rows += int64(p.rows)
		bytes += int64(len(p.text))
		filled <- p // never full
		runtime.Gosched()
	}
	return nil
}

// read reads a page of at most rows.
func (r *Reading) read(ctx context.Context, f file, p *page, rows int64) error {
	p.reset()
	next, ended, err := r.source.ReadRecords(ctx, r.pass, r.at, rowsExamined,
		func(ev *store.Event, _ store.RecordPosition) bool {
			f.add(p, ev)
			p.count(ev)
			return !p.full(rows)
		})
	if err != nil {
		return err
	}
	r.at, r.ended = next, ended
	if !ended {
		f.mark(p, r.Token)
	}
	return nil
}
