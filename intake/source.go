package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"cistern/objects"
)

// Source has CARs. It is used by one goroutine at a time.
type Source interface {
	// Next returns the next CAR. The error is io.EOF after the last; any other ends the source.
	Next(ctx context.Context) (Entry, error)
	// Size returns how many bytes the source has, as they are stored, 0 if that is unknown.
	Size() int64
	// Read returns how many bytes of an archive were read, so far. It is safe for concurrent use.
	Read() int64
	// Close closes the source.
	Close() error
	// String names the source.
	String() string
}

// Entry is one CAR of a source.
type Entry struct {
	Name string
	Size int64 // bytes
	// Body is read before the next call of Next; nil if Open opens a body of its own.
	Body io.Reader
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// carSuffix ends the names of CARs. Other files are not read.
const carSuffix = ".car"

// archiveSuffixes end the names of archives in buckets. The file of an archive in a file system may
// have any name.
var archiveSuffixes = []string{".tar", ".tar.gz", ".tgz", ".tar.zst"}

var errOthers = errors.New("too many files that are no CARs")

// Open opens the source that text names: a directory or an archive, as a path or as
// s3://BUCKET/PREFIX. environ has the variables with the access to S3 (objects.OpenS3).
func Open(ctx context.Context, text string, environ []string) (Source, error) {
	if strings.Contains(text, "://") {
		return openRemote(ctx, text, environ)
	}
	info, err := os.Stat(text)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return listFiles(ctx, objects.NewDirectory(text))
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a directory nor a regular file", text)
	}
	dir := objects.NewDirectory(filepath.Dir(text))
	return openArchive(ctx, dir, filepath.Base(text), info.Size())
}

func openRemote(ctx context.Context, text string, environ []string) (Source, error) {
	for _, suffix := range archiveSuffixes {
		if !strings.HasSuffix(text, suffix) {
			continue
		}
		dir, name := path.Split(text)
		at, err := objects.Open(strings.TrimSuffix(dir, "/"), environ)
		if err != nil {
			return nil, err
		}
		size := int64(0)
		err = at.List(ctx, name, func(o objects.Object) error {
			if o.Name == name {
				size = o.Size
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		return openArchive(ctx, at, name, size)
	}
	at, err := objects.Open(text, environ)
	if err != nil {
		return nil, err
	}
	return listFiles(ctx, at)
}
