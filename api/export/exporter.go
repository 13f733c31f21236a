package export

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"cistern/api/clients"
	"cistern/ingest/repo"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrIncomplete means that the store does not have, or does not show, all records of a tree: the
// filter leaves some out, or they are being fetched.
var ErrIncomplete = errors.New("not all records of the repository are here")

// ErrMismatch means that a copy that should be complete does not agree with its commit.
var ErrMismatch = fmt.Errorf("the copy is damaged: %w", errMismatch)

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
	// Logger. Default: discard.
	Logger *slog.Logger
	// Refetch is called with a repository whose copy at a rev does not agree with its commit, to
	// have it fetched again: once for each rev while the repository is among the last
	// mismatchesMax, and again after an error. Default: a function that does nothing.
	Refetch func(did, rev string) error
}

// Exporter writes repositories and parts of them as CARs.
type Exporter struct {
	logger     *slog.Logger
	refetch    func(did, rev string) error
	metrics    *metrics
	outlines   *outlines
	mismatches *mismatches
	outlineMax int // bytes
}

// New returns an exporter.
func New(o Options) (*Exporter, error) {
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Refetch == nil {
		o.Refetch = func(string, string) error { return nil }
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	kept, err := newOutlines(cacheBytesMax)
	if err != nil {
		return nil, err
	}
	wrong, err := newMismatches()
	if err != nil {
		return nil, err
	}
	return &Exporter{logger: cmp.Or(o.Logger, slog.New(slog.DiscardHandler)), refetch: o.Refetch,
		metrics: m, outlines: kept, mismatches: wrong, outlineMax: outlineBytesMax}, nil
}

// uncached returns an exporter that keeps no outlines, for one that exports many repositories once
// each: they would take the place of those that are asked for often.
func (e *Exporter) uncached() (*Exporter, error) {
	x := *e
	var err error
	x.outlines, err = newOutlines(0)
	return &x, err
}

// Export is a part of a repository that can be written.
type Export struct {
	e    *Exporter
	view *store.RepoView
	part Part
	tree *outline
}

// Open prepares the export of a part. It compares the tree that all record rows make with the
// commit, unless it has done so before, so that a large repository may take seconds. The view must
// stay open while the Export is used. Errors: ErrIncomplete, ErrMismatch, and errors of the store.
func (e *Exporter) Open(ctx context.Context, v *store.RepoView, part Part) (*Export, error) {
	r := v.Repo()
	f, err := v.Filter()
	if err != nil {
		return nil, err
	}
	if !r.Whole(f) || !part.shows(r, f.Wants) {
		return nil, fmt.Errorf("%s: %w", r.DID, ErrIncomplete)
	}
	tree, err := e.tree(ctx, v)
	if err != nil {
		return nil, err
	}
	return &Export{e: e, view: v, part: part, tree: tree}, nil
}

// tree returns the outline of a repository whose rows are whole. Requests for one tree share the
// pass over its rows: after each commit of a large repository, many may come at once.
func (e *Exporter) tree(ctx context.Context, v *store.RepoView) (*outline, error) {
	r := v.Repo()
	for {
		if e.mismatches.known(r) {
			return nil, fmt.Errorf("%s at rev %s: %w", r.DID, r.Rev, ErrMismatch)
		}
		o, pass := e.outlines.join(treeOfRepo(r))
		switch {
		case o != nil:
			e.metrics.cached.Inc()
			return o, nil
		case pass == nil:
			defer e.outlines.leave(treeOfRepo(r))
			return e.build(ctx, v)
		}
		err := clients.Pause(ctx, func() error {
			select {
			case <-pass: // if it failed, this request may make the next one
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if err != nil {
			return nil, err
		}
	}
}

// build makes the outline of a repository by a pass over all of its rows.
func (e *Exporter) build(ctx context.Context, v *store.RepoView) (*outline, error) {
	e.metrics.built.Inc()
	b := newOutliner(e.outlineMax)
	if err := scan(ctx, v, nil, nil, b.row); err != nil {
		return nil, err
	}
	return e.proven(v.Repo(), b)
}

// proven returns the outline that was built of all rows of r, if it is that of its commit.
func (e *Exporter) proven(r *store.Repo, b *outliner) (*outline, error) {
	if root := b.end(b.tree.Root()).root; root != r.Data {
		return nil, e.mismatch(r, fmt.Errorf("root %s instead of %s: %w", root, r.Data, errMismatch))
	}
	o := b.copied()
	e.outlines.put(treeOfRepo(r), o)
	return o, nil
}

// mismatch notes that a copy does not agree with its commit, and has it fetched again. A copy that
// was verified by its operations alone may differ: it is fetched again without a report.
func (e *Exporter) mismatch(r *store.Repo, why error) error {
	e.outlines.remove(treeOfRepo(r))
	first := e.mismatches.add(r)
	if r.Verified == store.VerifiedOps {
		return fmt.Errorf("%s: %w", r.DID, ErrIncomplete)
	}
	if first {
		e.metrics.mismatches.Inc()
		e.logger.Error("the copy of a repository does not agree with its commit: it is fetched again",
			"did", r.DID, "rev", r.Rev, "err", why)
		if err := e.refetch(r.DID, r.Rev); err != nil {
			e.mismatches.forget(r.DID)
			return err
		}
	}
	return fmt.Errorf("%s at rev %s: %w: %w", r.DID, r.Rev, ErrMismatch, why)
}

// Rev returns the rev of the repository.
func (x *Export) Rev() string { return x.view.Repo().Rev }

// Write writes the CAR: the commit, and then the part of its tree in pre-order, with each record
// where its entry stands. With since, records that were written up to that rev are left out, and if
// the repository has no later rev, everything but the commit.
//
// An error after the first byte leaves an incomplete CAR. ErrMismatch and ErrIncomplete may still
// occur, if Open could not see the cause in the tree.
func (x *Export) Write(ctx context.Context, out io.Writer, since string) error {
	r := x.view.Repo()
	c := carWriter{w: out}
	defer func() { x.e.metrics.bytes.Add(float64(c.n)) }()
	head := repo.HashCID(r.Commit)
	if err := errors.Join(c.header(head), c.block(head, r.Commit)); err != nil {
		return err
	}
	if since >= r.Rev {
		return nil
	}
	w := walk{ctx: ctx, view: x.view, part: &x.part, since: since, out: &c,
		outlineMax: x.e.outlineMax}
	err := w.run(x.tree)
	if errors.Is(err, errMismatch) {
		return x.e.mismatch(r, err)
	}
	return err
}
