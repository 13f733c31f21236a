package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// PartSuffix ends the names of files that are not complete.
const PartSuffix = ".part"

// Limits on directories.
const (
	// depthMax bounds the depth of nested directories that a listing enters. Names have three.
	depthMax = 8
	// entriesRead is how many entries of a directory are in memory at a time.
	entriesRead = 1000
)

// Directory is a Destination in a file system. It reads and lists regular files only, and follows
// no symbolic link that leads out of it: others may write into a directory, too.
type Directory struct {
	root  string
	names int // most names of one listing: listedMax, less in tests
}

// NewDirectory returns the destination at root, which need not exist.
func NewDirectory(root string) *Directory { return &Directory{filepath.Clean(root), listedMax} }

// String returns the path.
func (d *Directory) String() string { return d.root }

// within calls fn with the root and an object's name in it.
func (d *Directory) within(name string, fn func(root *os.Root, name string) error) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("name %.80q leads out of %s", name, d.root)
	}
	root, err := os.OpenRoot(d.root)
	if err != nil {
		return err
	}
	return errors.Join(fn(root, filepath.FromSlash(name)), root.Close())
}

// Put writes the object under another name, syncs it and renames it, so that a crash leaves no
// part of it.
func (d *Directory) Put(ctx context.Context, name string, c Content) error {
	_, err := c.Reader.Seek(0, io.SeekStart)
	if err == nil {
		err = MakeDirs(d.root)
	}
	if err == nil {
		err = d.within(name, func(root *os.Root, file string) error {
			if err := makeDirsIn(root, filepath.Dir(file)); err != nil {
				return err
			}
			return WriteFile(ctx, root, file, c.Reader, c.Size, c.Sum)
		})
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// WriteFile makes a file of this size and sum in a directory, at once and durably. A file that is
// not complete has the name with PartSuffix, which the next attempt replaces. One attempt at a time
// writes a file.
func WriteFile(ctx context.Context, root *os.Root, file string, from io.Reader, size int64,
	sum Sum) error {
	part := file + PartSuffix
	// A file with the name of the part may be a link, or a pipe that would block.
	if err := root.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	r := NewChecked(ctx, from)
	_, err = io.Copy(f, io.LimitReader(r, size+1))
	if err == nil {
		err = r.Is(size, sum)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	// The bytes are durable. The name becomes so with the directory.
	if err := root.Rename(part, file); err != nil {
		return err
	}
	return syncDirIn(root, filepath.Dir(file))
}

// MakeDirs makes a directory and its missing parents, durably.
func MakeDirs(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	above := filepath.Dir(dir)
	if above != dir {
		if err := MakeDirs(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(above)
}

// makeDirsIn makes a directory below root and its missing parents there, durably.
func makeDirsIn(root *os.Root, dir string) error {
	if _, err := root.Stat(dir); err == nil || dir == "." {
		return err
	}
	if err := makeDirsIn(root, filepath.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDirIn(root, filepath.Dir(dir))
}

// SyncDir makes the names of the files in a directory durable.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func syncDirIn(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Get opens the file.
func (d *Directory) Get(_ context.Context, name string) (io.ReadCloser, error) {
	return d.get(name)
}

func (d *Directory) get(name string) (f *os.File, err error) {
	err = d.within(name, func(root *os.Root, file string) error {
		info, err := root.Lstat(file)
		if err == nil && info.Mode().IsRegular() {
			// A pipe may have taken its place since: do not wait for its writer.
			if f, err = root.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
				info, err = f.Stat()
			}
		}
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%w: it is not a regular file", ErrDamaged)
		}
		return err
	})
	if err == nil {
		return f, nil
	}
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotFound
	}
	return nil, fmt.Errorf("%s in %s: %w", name, d.root, err)
}

// GetRange reads a part of the file.
func (d *Directory) GetRange(_ context.Context, name string, at, n int64) ([]byte, error) {
	f, err := d.get(name)
	if err != nil {
		return nil, err
	}
	b, err := readRange(io.NewSectionReader(f, at, n), name, at, n)
	return b, errors.Join(err, f.Close())
}

// List walks the directory that the prefix names. A destination that does not exist has no objects.
func (d *Directory) List(ctx context.Context, prefix string, fn func(Object) error) error {
	below := strings.TrimSuffix(prefix[:strings.LastIndexByte(prefix, '/')+1], "/")
	root, err := os.OpenRoot(d.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	w := walk{root: root, listed: listed{of: d, prefix: prefix, fn: fn, most: d.names}}
	return errors.Join(w.enter(ctx, path.Join(".", below), 0), root.Close())
}

// walk is one listing of a directory.
type walk struct {
	root   *os.Root
	listed listed
}

// enter lists a directory in parts, because it may have any number of entries. A missing directory
// is empty.
func (w *walk) enter(ctx context.Context, dir string, depth int) (err error) {
	if depth > depthMax {
		return fmt.Errorf("list %s: %.80q is more than %d directories deep", w.listed.of, dir, depthMax)
	}
	f, err := w.root.OpenFile(filepath.FromSlash(dir), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		entries, err := f.ReadDir(entriesRead)
		for _, e := range entries {
			if err := w.entry(ctx, path.Join(dir, e.Name()), e, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (w *walk) entry(ctx context.Context, name string, e fs.DirEntry, depth int) error {
	if err := errors.Join(ctx.Err(), w.listed.count(name)); err != nil {
		return err
	}
	if e.IsDir() {
		return w.enter(ctx, name, depth+1)
	}
	if !strings.HasPrefix(name, w.listed.prefix) {
		return nil
	}
	info, err := w.root.Lstat(filepath.FromSlash(name))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	return w.listed.fn(Object{Name: name, Size: info.Size(), Modified: info.ModTime()})
}

// Delete deletes the file, and its directory if that is empty then and has a parent below the root.
func (d *Directory) Delete(_ context.Context, name string) error {
	err := d.within(name, func(root *os.Root, file string) error {
		err := root.Remove(file)
		if strings.Count(name, "/") > 1 {
			_ = root.Remove(filepath.Dir(file)) // fails while it has files, as it should
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
