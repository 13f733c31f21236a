package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"cistern/objects"
	"cistern/objects/lease"

	"golang.org/x/sync/errgroup"
)

// transfers is how many files are read, stored or restored at a time: enough to fill a link whose
// answers take a while.
const transfers = 4

// Options of Run. The zero value of a field takes the default.
type Options struct {
	// Destination takes the backup. Required.
	Destination objects.Destination
	// Source is what is backed up. Required.
	Source Source
	// Keep is how many complete generations to keep; older ones are deleted, and the tables that
	// no other generation has. Default 0: all.
	Keep int
	// Holder names this backup to another one that finds the destination locked. Default "".
	Holder string
	// Lease is how long the lock of a backup that was killed keeps the destination. All backups of
	// a destination have the same. Default 5 minutes.
	Lease time.Duration
	// Progress is called as work proceeds, by one goroutine at a time. Default: nothing.
	Progress func(Progress)
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Source is a directory that does not change, such as a checkpoint of a store.
type Source struct {
	Dir     string
	Epoch   string // of its log
	Head    uint64 // newest event id
	Format  int    // of the store
	Version string // of the daemon
}

// Result is what Run did.
type Result struct {
	Generation Generation
	Uploaded   int64 // bytes of files that the destination did not have
	Tables     int   // such files
	Hashed     int64 // bytes that were read to find out whether the destination has them
	Deleted    int   // generations that were deleted
}

// Progress states how far an operation is.
type Progress struct {
	Files, FilesTotal int
	Bytes, BytesTotal int64
	// File is the file that was begun last, and FileBytes its size.
	File      string
	FileBytes int64
}

// begin notes that work on a file begins.
func (p *Progress) begin(f File) { p.File, p.FileBytes = f.Name, f.Size }

func (o Options) withDefaults() Options {
	o.Lease = cmp.Or(o.Lease, lease.DefaultLasts)
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// lock returns the lock of a backup on its destination.
func (o Options) lock() lease.Options {
	return lease.Options{Destination: o.Destination, What: "backup", Holder: o.Holder,
		Lasts: o.Lease, Now: o.Now}
}

func (o Options) validate() error {
	var errs []error
	if o.Destination == nil || o.Source.Dir == "" {
		errs = append(errs, errors.New("backup needs a destination and a source"))
	}
	if o.Keep < 0 || o.Lease < 0 {
		errs = append(errs, fmt.Errorf("backup keep %d or lease %s is negative", o.Keep, o.Lease))
	}
	return errors.Join(errs...)
}

// Run makes a backup: it stores the files that the destination lacks, then the manifest, then the
// marker, and last deletes what Keep makes superfluous. Until the marker is durable the destination
// has no new generation, and the old ones are whole at any time. If Run fails after that, the
// Result has the generation. It returns lease.ErrLocked if another backup uses the destination.
func Run(ctx context.Context, o Options) (res Result, err error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return res, err
	}
	err = lease.With(ctx, o.lock(), func(ctx context.Context, held func() error) error {
		old, err := List(ctx, o.Destination)
		if err != nil {
			return err
		}
		name, err := nameGeneration(o.Now(), o.Source.Epoch, old)
		if err != nil {
			return err
		}
		u := &upload{opts: o, result: &res}
		m, err := u.run(ctx, old)
		if err != nil {
			return err
		}
		g, err := publish(ctx, o.Destination, name, m, held)
		if err != nil {
			return err
		}
		res.Generation = g
		if res.Deleted, err = prune(ctx, o.Destination, o.Keep, held); err != nil {
			return fmt.Errorf("generation %s is complete, but older ones were not deleted: %w", name, err)
		}
		return nil
	})
	if err != nil {
		err = &destinationError{o.Destination.String(), err}
	}
	return res, err
}

// destinationError is an error of a backup with the destination, in one line. If several steps fail
// by the same cause, such as storing an object and giving the lock back, the cause is named once.
type destinationError struct {
	destination string
	err         error
}

func (e *destinationError) Unwrap() error { return e.err }

func (e *destinationError) Error() string {
	var causes []string
	for line := range strings.Lines(e.err.Error()) {
		line = strings.TrimSpace(line)
		if !slices.ContainsFunc(causes,
			func(other string) bool { return causeOf(other) == causeOf(line) }) {
			causes = append(causes, line)
		}
	}
	return "destination " + e.destination + ": " + strings.Join(causes, "; ")
}

// causeOf returns what follows the names of objects in the text of an error.
func causeOf(text string) string { return text[strings.LastIndex(text, ": ")+1:] }

// upload brings the files of one backup to the destination.
type upload struct {
	opts   Options
	known  map[string]File // by name: files of the same log in an older generation
	stored map[string]int64

	// mu guards:
	mu       sync.Mutex
	result   *Result
	progress Progress
	putting  map[string]*sync.Once // by sum
}

// run stores the files of the source that the destination lacks, and returns the manifest.
func (u *upload) run(ctx context.Context, old []Generation) (*Manifest, error) {
	src := u.opts.Source
	m := &Manifest{Epoch: src.Epoch, Head: src.Head, Format: src.Format, Version: src.Version,
		Created: u.opts.Now().UTC()}
	err := errors.Join(u.scan(m), u.remember(ctx, old))
	if err != nil {
		return nil, err
	}
	if u.stored, err = listTables(ctx, u.opts.Destination); err != nil {
		return nil, err
	}
	u.putting = map[string]*sync.Once{}
	g, filesCtx := errgroup.WithContext(ctx)
	g.SetLimit(transfers)
	for i := range m.Files {
		g.Go(func() error { return u.file(filesCtx, &m.Files[i]) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return m, u.confirm(ctx, m)
}

// scan lists the files of the source. It checks them as it would the files in a manifest.
func (u *upload) scan(m *Manifest) error {
	entries, err := os.ReadDir(u.opts.Source.Dir)
	if err != nil {
		return gone(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return gone(err)
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a file", filepath.Join(u.opts.Source.Dir, e.Name()))
		}
		m.Files = append(m.Files, File{Name: e.Name(), Size: info.Size(), Sum: objects.Sum{}.String(),
			Modified: info.ModTime().UnixNano()})
	}
	if len(m.Files) == 0 {
		return fmt.Errorf("%s has no files", u.opts.Source.Dir)
	}
	u.progress.FilesTotal, u.progress.BytesTotal = len(m.Files), m.bytes()
	return m.check()
}

// gone explains a file that vanished.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the checkpoint is gone, as when its daemon stops: %w", err)
	}
	return err
}

// isTable reports whether a file is of a kind that the engine writes once, under a number that it
// gives to no other file of the same log.
func isTable(name string) bool {
	return strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob")
}

// remember reads the sums of tables from the newest generation of the same log, so that only new
// tables are read. A table is the same if it has the number, the size and the time of writing that
// it had: a number is given once in an epoch, and size and time guard against a directory that was
// set back by hand, which gives numbers twice.
func (u *upload) remember(ctx context.Context, old []Generation) error {
	u.known = map[string]File{}
	for i := len(old) - 1; i >= 0; i-- {
		if old[i].Epoch != u.opts.Source.Epoch {
			continue
		}
		m, err := ReadManifest(ctx, u.opts.Destination, old[i])
		if errors.Is(err, objects.ErrDamaged) {
			continue // what is not known is read
		}
		if err != nil {
			return err
		}
		for _, f := range m.Files {
			if isTable(f.Name) {
				u.known[f.Name] = f
			}
		}
		return nil
	}
	return nil
}

// listTables returns the sizes of the stored tables by their sums.
func listTables(ctx context.Context, d objects.Destination) (map[string]int64, error) {
	tables := map[string]int64{}
	err := d.List(ctx, tablesDir+"/", func(o objects.Object) error {
		sum := strings.TrimPrefix(o.Name, tablesDir+"/")
		if _, err := objects.ParseSum(sum); err == nil {
			tables[sum] = o.Size
		}
		return nil
	})
	return tables, err
}

// file finds the sum of a file and stores it unless the destination has it.
func (u *upload) file(ctx context.Context, f *File) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u.mu.Lock()
	u.progress.begin(*f)
	u.opts.Progress(u.progress)
	u.mu.Unlock()
	file := filepath.Join(u.opts.Source.Dir, f.Name)
	if known, ok := u.known[f.Name]; ok && known.Size == f.Size && known.Modified == f.Modified {
		f.Sum = known.Sum
	} else {
		sum, err := hashFile(ctx, file, f.Size)
		if err != nil {
			return err
		}
		f.Sum = sum.String()
		u.count(func(r *Result) { r.Hashed += f.Size })
	}
	if err := u.store(ctx, file, *f); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.progress.Files++
	u.progress.Bytes += f.Size
	u.opts.Progress(u.progress)
	return nil
}

func (u *upload) count(add func(*Result)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	add(u.result)
}

// hashFile returns the sum of a file, which must have this size.
func hashFile(ctx context.Context, file string, size int64) (objects.Sum, error) {
	f, err := os.Open(file)
	if err != nil {
		return objects.Sum{}, gone(err)
	}
	r := objects.NewChecked(ctx, f)
	_, err = io.Copy(io.Discard, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return objects.Sum{}, fmt.Errorf("read %s: %w", file, err)
	}
	if r.Size() != size {
		return objects.Sum{}, fmt.Errorf("read %s: %d bytes instead of %d", file, r.Size(), size)
	}
	return r.Sum(), nil
}

// store stores a file under its sum, once if several files have the same content.
func (u *upload) store(ctx context.Context, file string, f File) (err error) {
	u.mu.Lock()
	size, ok := u.stored[f.Sum]
	once := u.putting[f.Sum]
	if once == nil {
		once = new(sync.Once)
		u.putting[f.Sum] = once
	}
	u.mu.Unlock()
	if ok && size == f.Size {
		return nil
	}
	once.Do(func() { err = u.put(ctx, file, f) })
	return err // if the attempt of another file failed, run returns that error
}

func (u *upload) put(ctx context.Context, file string, f File) error {
	sum, err := objects.ParseSum(f.Sum)
	if err != nil {
		return err
	}
	body, err := os.Open(file)
	if err != nil {
		return gone(err)
	}
	err = u.opts.Destination.Put(ctx, tableName(f.Sum),
		objects.Content{Reader: body, Size: f.Size, Sum: sum})
	if err := errors.Join(err, body.Close()); err != nil {
		return fmt.Errorf("back up %s: %w", f.Name, err)
	}
	u.count(func(r *Result) { r.Tables++; r.Uploaded += f.Size })
	return nil
}

// confirm returns an error unless the destination lists every file.
func (u *upload) confirm(ctx context.Context, m *Manifest) error {
	stored, err := listTables(ctx, u.opts.Destination)
	if err != nil {
		return err
	}
	for _, f := range m.Files {
		if size, ok := stored[f.Sum]; !ok || size != f.Size {
			return fmt.Errorf("%s does not list %s (%s) with its %d bytes after it was stored: %w",
				u.opts.Destination, tableName(f.Sum), f.Name, f.Size, objects.ErrDamaged)
		}
	}
	return nil
}
