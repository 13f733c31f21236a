package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// PartSuffix ends the names of files that are not complete.
const PartSuffix = ".part"

// Directory is a Destination in a file system.
type Directory struct{ root string }

// NewDirectory returns the destination at root, which need not exist.
func NewDirectory(root string) *Directory { return &Directory{filepath.Clean(root)} }

// String returns the path.
func (d *Directory) String() string { return d.root }

func (d *Directory) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// Put writes the object under another name, syncs it and renames it, so that a crash leaves no
// part of it.
func (d *Directory) Put(ctx context.Context, name string, c Content) error {
	file := d.path(name)
	if err := MakeDirs(filepath.Dir(file)); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	if _, err := c.Reader.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	if err := WriteFile(ctx, file, c.Reader, c.Size, c.Sum); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// WriteFile makes a file of this size and sum, at once and durably. A file that is not complete has
// the name with PartSuffix, which the next attempt overwrites.
func WriteFile(ctx context.Context, file string, from io.Reader, size int64, sum Sum) error {
	f, err := os.OpenFile(file+PartSuffix, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
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
	if err := os.Rename(file+PartSuffix, file); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(file))
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

// SyncDir makes the names of the files in a directory durable.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Get opens the file.
func (d *Directory) Get(_ context.Context, name string) (io.ReadCloser, error) {
	f, err := os.Open(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s in %s: %w", name, d.root, ErrNotFound)
	}
	return f, err
}

// GetRange reads a part of the file.
func (d *Directory) GetRange(ctx context.Context, name string, at, n int64) ([]byte, error) {
	r, err := d.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	f := r.(*os.File)
	b, err := readRange(io.NewSectionReader(f, at, n), name, at, n)
	return b, errors.Join(err, f.Close())
}

// List walks the directory that the prefix names. A destination that does not exist has no objects.
func (d *Directory) List(ctx context.Context, prefix string, fn func(Object) error) error {
	below := prefix[:strings.LastIndexByte(prefix, '/')+1]
	return filepath.WalkDir(d.path(below), func(file string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(d.root, file)
		if name = filepath.ToSlash(name); err != nil || !strings.HasPrefix(name, prefix) {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // deleted meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		return fn(Object{Name: name, Size: info.Size(), Modified: info.ModTime()})
	})
}

// Delete deletes the file, and its directory if that is empty then and has a parent below the root.
func (d *Directory) Delete(_ context.Context, name string) error {
	err := os.Remove(d.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if dir := filepath.Dir(d.path(name)); strings.Count(name, "/") > 1 {
		_ = os.Remove(dir) // fails while the directory has files, as it should
	}
	return nil
}
