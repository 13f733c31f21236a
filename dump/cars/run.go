package cars

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"cistern/api/export"
	"cistern/dump/cars/manifest"
	"cistern/objects"
	"cistern/objects/lease"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// Options are the options of Run. Source is required, and one of Destination and Archive.
type Options struct {
	// Source is a store that does not change meanwhile: at rest, or a checkpoint.
	Source *store.Store
	// Destination takes the export, file by file.
	Destination objects.Destination
	// Archive takes the export in place of a destination. Run commits it.
	Archive *Archive
	// DIDs are the accounts that are exported. Default: all.
	DIDs []string
	// PageRepos is how many repositories a part of the manifest has. Default 5,000.
	PageRepos int
	// TempDir has each large CAR until it is stored. Default: that of the system.
	TempDir string
	// Progress is called after each repository, one call at a time. Default: nothing.
	Progress func(Progress)
	// Holder names the export in the errors of others that find it at the destination.
	Holder string
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Progress is how far an export is.
type Progress struct {
	Repositories int64 // with those of former runs, and those left out
	Found        int64 // those of former runs
	Bytes        int64 // of CARs
}

// target takes files. Its methods may be called concurrently.
type target interface {
	Put(ctx context.Context, name string, c objects.Content) error
}

// run is one export.
type run struct {
	Options
	to       target
	exporter *export.Exporter
	state    progress
	found    int64       // repositories of former runs
	spools   chan *spool // idle; one for each worker

	// mu guards:
	mu   sync.Mutex
	seen Progress
}

// Run makes an export, or goes on with one at a destination that was interrupted. ErrComplete means
// that the destination has an export already, and lease.ErrLocked that another run uses it.
func Run(ctx context.Context, o Options) (m manifest.Manifest, err error) {
	x, err := newRun(o)
	if err != nil {
		return manifest.Manifest{}, err
	}
	if x.Archive != nil {
		return x.run(ctx, func() error { return nil })
	}
	lock := lease.Options{Destination: x.Destination, What: "export", Holder: x.Holder}
	err = lease.Alone(ctx, lock, func(ctx context.Context, held func() error) (err error) {
		m, err = x.run(ctx, held)
		return err
	})
	return m, err
}

// run makes an export while it has the destination alone. held returns an error if that may be
// over.
func (x *run) run(ctx context.Context, held func() error) (manifest.Manifest, error) {
	if x.Destination != nil {
		if err := x.resume(ctx, x.Destination); err != nil {
			return manifest.Manifest{}, err
		}
	}
	x.seen = Progress{Repositories: x.found, Found: x.found, Bytes: x.state.Bytes}
	if err := errors.Join(x.pages(ctx), held()); err != nil {
		return manifest.Manifest{}, err
	}
	x.state.End(x.Now())
	if err := x.putJSON(ctx, manifest.Name, &x.state.Manifest); err != nil {
		return manifest.Manifest{}, err
	}
	if x.Archive != nil {
		return x.state.Manifest, x.Archive.Commit()
	}
	// The export is complete: if this fails, a file is left that nothing reads.
	return x.state.Manifest, x.Destination.Delete(ctx, progressName)
}

func newRun(o Options) (*run, error) {
	x := &run{Options: o, spools: make(chan *spool, workersMax)}
	x.PageRepos = cmp.Or(x.PageRepos, pageRepos)
	switch {
	case o.Source == nil || (o.Destination == nil) == (o.Archive == nil):
		return nil, errors.New("an export needs a source, and a destination or an archive")
	case o.Archive != nil:
		x.to = o.Archive
	default:
		x.to = o.Destination
	}
	if x.Progress == nil {
		x.Progress = func(Progress) {}
	}
	if x.Now == nil {
		x.Now = time.Now
	}
	x.state.Manifest = manifest.New(o.Source.Epoch(), o.Source.Head(), o.DIDs, x.Now())
	var err error
	x.exporter, err = export.New(export.Options{})
	return x, err
}

// pages exports all pages that are left.
func (x *run) pages(ctx context.Context) (err error) {
	for range workersMax {
		x.spools <- newSpool(x.TempDir)
	}
	defer func() {
		for range workersMax {
			err = errors.Join(err, (<-x.spools).close())
		}
	}()
	for {
		rows, err := x.next()
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := x.page(ctx, rows); err != nil {
			return err
		}
	}
}

// next returns the next repositories, none at the end.
func (x *run) next() (rows []store.Repo, err error) {
	if x.state.DIDs == nil {
		return x.Source.ReposByOrdinal(x.state.After, x.PageRepos)
	}
	done := min(int(x.state.After), len(x.DIDs))
	for _, did := range x.DIDs[done:min(done+x.PageRepos, len(x.DIDs))] {
		row, err := x.Source.RepoOrNew(did)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// page exports repositories, and then notes them. A crash before the note repeats them.
func (x *run) page(ctx context.Context, rows []store.Repo) error {
	lines := make([]manifest.Line, len(rows))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(workersMax)
	for i := range rows {
		g.Go(func() (err error) {
			s := <-x.spools
			defer func() { x.spools <- s }()
			if lines[i], err = x.one(gctx, rows[i].DID, s); err == nil {
				x.tell(&lines[i])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return x.note(ctx, rows, lines)
}

// note makes a page durable: from here on an export that is interrupted goes on behind it.
func (x *run) note(ctx context.Context, rows []store.Repo, lines []manifest.Line) error {
	if err := x.putPart(ctx, lines); err != nil {
		return err
	}
	if x.state.DIDs != nil {
		x.state.After += store.Ordinal(len(rows))
	} else {
		x.state.After = rows[len(rows)-1].Ordinal
	}
	if x.Destination == nil {
		return nil
	}
	return x.putJSON(ctx, progressName, &x.state)
}

// tell reports a repository.
func (x *run) tell(l *manifest.Line) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.seen.Repositories++
	x.seen.Bytes += l.Bytes
	x.Progress(x.seen)
}

// one exports a repository, or says in its line why it is left out.
func (x *run) one(ctx context.Context, did string, s *spool) (l manifest.Line, err error) {
	v, err := x.Source.ViewRepo(did)
	if errors.Is(err, store.ErrNotFound) {
		return manifest.Line{DID: did, LeftOut: manifest.Unknown}, nil
	}
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if l = manifest.Describe(v.Repo()); l.LeftOut != "" {
		return l, nil
	}
	err = x.write(ctx, v, s)
	if l.LeftOut = export.LeftOut(err); l.LeftOut != "" {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("export %s: %w", did, err)
	}
	c, err := s.content()
	if err != nil {
		return l, err
	}
	l.SetCAR(v.Repo().Records, c.Size, c.Sum.String())
	return l, x.to.Put(ctx, l.Path, c)
}

// write writes the CAR of a repository.
func (x *run) write(ctx context.Context, v *store.RepoView, s *spool) error {
	if err := s.reset(); err != nil {
		return err
	}
	made, err := x.exporter.Open(ctx, v, export.Part{})
	if err != nil {
		return err
	}
	return made.Write(ctx, s, "")
}
