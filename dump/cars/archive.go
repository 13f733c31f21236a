package cars

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"cistern/objects"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Archive is a tar archive that is being written. It has its name once Commit has returned.
type Archive struct {
	name   string
	file   *os.File
	unlock func() error // lets others make an archive of the name
	now    func() time.Time

	// mu guards the writers:
	mu    sync.Mutex
	tar   *tar.Writer
	codec io.WriteCloser // nil without compression
	out   *bufio.Writer
}

// IsArchive reports whether a name is that of an archive, and not of a directory.
func IsArchive(name string) bool {
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// CreateArchive begins an archive, whose name says how it is compressed. A file of the name with
// objects.PartSuffix, which an earlier attempt may have left, is replaced. The error is
// objects.ErrInUse while another archive of the name is written.
func CreateArchive(name string) (a *Archive, err error) {
	if _, err := os.Lstat(name); err == nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrExist)
	}
	unlock, err := objects.NewDirectory(filepath.Dir(name)).Lock(filepath.Base(name) + ".locked")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unlock())
		}
	}()
	if err := os.Remove(name + objects.PartSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(name+objects.PartSuffix, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	a = &Archive{name: name, file: f, unlock: unlock, now: time.Now,
		out: bufio.NewWriterSize(f, 1<<20)}
	to := io.Writer(a.out)
	switch {
	case strings.HasSuffix(name, "gz"):
		a.codec, err = gzip.NewWriterLevel(a.out, gzip.BestSpeed)
	case strings.HasSuffix(name, ".zst"):
		a.codec, err = zstd.NewWriter(a.out, zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithWindowSize(windowBytes))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if a.codec != nil {
		to = a.codec
	}
	a.tar = tar.NewWriter(to)
	return a, nil
}

// Put adds a file to the archive. Safe for concurrent use.
func (a *Archive) Put(ctx context.Context, name string, c objects.Content) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: c.Size, Mode: 0o644,
		ModTime: a.now().Truncate(time.Second)})
	if err == nil {
		_, err = io.Copy(a.tar, c.Reader)
	}
	if err != nil {
		return fmt.Errorf("write %s into %s: %w", name, a.name, err)
	}
	return nil
}

// Commit ends the archive, makes it durable and gives it its name.
func (a *Archive) Commit() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.tar.Close()
	if a.codec != nil {
		err = errors.Join(err, a.codec.Close())
	}
	err = errors.Join(err, a.out.Flush())
	if err == nil {
		err = a.file.Sync()
	}
	if err := errors.Join(err, a.file.Close()); err != nil {
		return err
	}
	a.file = nil
	err = os.Rename(a.name+objects.PartSuffix, a.name)
	if err == nil {
		err = objects.SyncDir(filepath.Dir(a.name))
	}
	return errors.Join(err, a.unlock())
}

// Close deletes an archive that was not committed.
func (a *Archive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil
	}
	if a.codec != nil {
		_ = a.codec.Close() // frees its goroutines
	}
	err := errors.Join(a.file.Close(), os.Remove(a.name+objects.PartSuffix), a.unlock())
	a.file = nil
	return err
}

// String returns the name.
func (a *Archive) String() string { return a.name }
