package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"cistern/objects"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// RestoreOptions are the options of Restore.
type RestoreOptions struct {
	// Destination has the backup. Required.
	Destination objects.Destination
	// Generation is what is restored. Default: the newest one.
	Generation string
	// Dir is where to: a directory that is missing, empty or half restored. Required.
	Dir string
	// Like is a directory that an older generation was restored into. Its tables are read, and linked
	// instead of fetched where the generation has them too. Default: no such directory.
	Like string
	// Progress is called as work proceeds, by one goroutine at a time. Default: nothing.
	Progress func(Progress)
	// Step is called at each durable step, where tests end the restoring. Default: nothing.
	Step func(name string) error
}

// Restore writes the files of a generation into a directory, each checked by its sum. If it is
// interrupted, the next call with the same generation goes on: it checks the files that are there
// and gets the others. Until it has ended, the store refuses the directory; the first Open then
// gives the log a new epoch.
func Restore(ctx context.Context, o RestoreOptions) (Generation, error) {
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Step == nil {
		o.Step = func(string) error { return nil }
	}
	if o.Destination == nil || o.Dir == "" {
		return Generation{}, errors.New("restore needs a destination and a directory")
	}
	r := &restoration{RestoreOptions: o}
	begun, err := r.begun()
	if err != nil {
		return Generation{}, err
	}
	g, err := Find(ctx, o.Destination, r.Generation)
	if err != nil {
		return g, err
	}
	m, err := ReadManifest(ctx, o.Destination, g)
	if err != nil {
		return g, err
	}
	if m.Format != store.FormatVersion {
		return g, fmt.Errorf("generation %s has a store of format %d, written by version %.80q: this "+
			"version of Cistern reads format %d", g.Name, m.Format, m.Version, store.FormatVersion)
	}
	if begun != "" && begun != g.Manifest {
		return g, fmt.Errorf("%s is half restored from another backup of the name %s: empty it first",
			o.Dir, g.Name)
	}
	return g, r.run(ctx, g, m)
}

// restoration is one call of Restore.
type restoration struct {
	RestoreOptions
	root *os.Root // of Dir

	// mu guards:
	mu       sync.Mutex
	progress Progress
}

// begun returns the sum of the manifest that an interrupted call restores; "" if the directory is
// empty. It sets Generation to what that call restores.
func (r *restoration) begun() (manifest string, err error) {
	half, ok, err := store.ReadRestored(r.Dir)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", r.empty()
	}
	switch {
	case half.Complete:
		return "", fmt.Errorf("%s has all of generation %s already: start the daemon with it, or empty "+
			"it first", r.Dir, half.Generation)
	case r.Generation != "" && r.Generation != half.Generation:
		return "", fmt.Errorf("%s is half restored from generation %s, not %.80q: restore that one, or "+
			"empty the directory first", r.Dir, half.Generation, r.Generation)
	}
	r.Generation = half.Generation
	return half.Manifest, nil
}

// empty returns an error for a directory with files other than an interrupted first step leaves.
func (r *restoration) empty() error {
	entries, err := os.ReadDir(r.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != "lost+found" && name != store.RestoredName+objects.PartSuffix {
			return fmt.Errorf("%s is not empty: it has %s; a backup is restored into an empty directory",
				r.Dir, name)
		}
	}
	return nil
}

// run restores the files. The steps are durable in their order.
func (r *restoration) run(ctx context.Context, g Generation, m *Manifest) (err error) {
	if err := objects.MakeDirs(r.Dir); err != nil {
		return err
	}
	if r.root, err = os.OpenRoot(r.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.root.Close()) }()
	mark := store.Restored{Source: r.Destination.String(), Generation: g.Name, Manifest: g.Manifest}
	if err := mark.Write(r.Dir); err != nil {
		return err
	}
	// From here on the store refuses the directory, so that it does not matter which files it has.
	if err := errors.Join(r.Step("marked"), r.clean(m)); err != nil {
		return err
	}
	r.progress = Progress{FilesTotal: len(m.Files), BytesTotal: m.bytes()}
	work, filesCtx := errgroup.WithContext(ctx)
	work.SetLimit(transfers)
	for _, f := range m.Files {
		work.Go(func() error { return r.file(filesCtx, f) })
	}
	if err := work.Wait(); err != nil {
		return err
	}
	if err := errors.Join(objects.SyncDir(r.Dir), r.Step("files")); err != nil {
		return err
	}
	mark.Complete = true
	// Every file and its name are durable. The store may be opened once this is written.
	return errors.Join(mark.Write(r.Dir), r.Step("complete"))
}

// clean deletes files that the generation does not have.
func (r *restoration) clean(m *Manifest) error {
	named := map[string]bool{store.RestoredName: true, "lost+found": true}
	for _, f := range m.Files {
		named[f.Name] = true
	}
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case named[name]:
		case !strings.HasSuffix(name, objects.PartSuffix):
			return fmt.Errorf("%s is half restored and has %s, which is not of generation %s: empty it "+
				"first", r.Dir, name, r.Generation)
		default:
			if err := os.Remove(filepath.Join(r.Dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// file restores one file, unless it is there.
func (r *restoration) file(ctx context.Context, f File) error {
	r.mu.Lock()
	r.progress.begin(f)
	r.Progress(r.progress)
	r.mu.Unlock()
	name := filepath.Join(r.Dir, f.Name)
	sum, err := objects.ParseSum(f.Sum)
	if err != nil {
		return err
	}
	if got, err := hashFile(ctx, name, f.Size); err != nil || got != sum {
		if r.link(ctx, name, f, sum) {
			return r.done(f)
		}
		if err := r.fetch(ctx, f, sum); err != nil {
			return err
		}
	}
	return r.done(f)
}

// link links a table of Like, and reports whether it could. Other files are not linked: the engine
// writes into some of them again. What fails here is fetched.
func (r *restoration) link(ctx context.Context, name string, f File, sum objects.Sum) bool {
	if r.Like == "" || !isTable(f.Name) {
		return false
	}
	like := filepath.Join(r.Like, f.Name)
	if got, err := hashFile(ctx, like, f.Size); err != nil || got != sum {
		return false
	}
	_ = os.Remove(name) // what an interruption or a disk has damaged
	return os.Link(like, name) == nil
}

// done counts a file that is restored.
func (r *restoration) done(f File) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Files++
	r.progress.Bytes += f.Size
	r.Progress(r.progress)
	return r.Step("file")
}

// fetch writes the file under another name, and renames it when it is whole and durable.
func (r *restoration) fetch(ctx context.Context, f File, sum objects.Sum) error {
	body, err := r.Destination.Get(ctx, tableName(f.Sum))
	if errors.Is(err, objects.ErrNotFound) {
		err = fmt.Errorf("%w: it is missing", objects.ErrDamaged)
	}
	if err != nil {
		return fmt.Errorf("restore %s (%s): %w", f.Name, tableName(f.Sum), err)
	}
	err = objects.WriteFile(ctx, r.root, f.Name, body, f.Size, sum)
	if err := errors.Join(err, body.Close()); err != nil {
		return fmt.Errorf("restore %s (%s): %w", f.Name, tableName(f.Sum), err)
	}
	return nil
}
