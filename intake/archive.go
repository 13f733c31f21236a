package intake

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"cistern/objects"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Archive has the CARs of a tar archive, which may be compressed by gzip or zstd, whatever its
// name. It is read once, from its beginning to its end.
type Archive struct {
	name   string
	size   int64
	file   io.Closer
	raw    counted
	stream *archiveStream
	tar    *tar.Reader
	others int
	cars   int
}

func openArchive(
	ctx context.Context, at objects.Destination, name string, size int64,
) (*Archive, error) {
	shown := at.String() + "/" + name
	file, err := at.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	a, err := newArchive(shown, file, size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", shown, err), file.Close())
	}
	a.file = file
	return a, nil
}

// newArchive reads an archive of so many bytes.
func newArchive(name string, r io.Reader, size int64) (*Archive, error) {
	a := &Archive{name: name, size: size, raw: counted{r: r}}
	var err error
	if a.stream, err = decompress(&a.raw); err != nil {
		return nil, err
	}
	a.tar = tar.NewReader(a.stream)
	return a, nil
}

// Next returns the next CAR of the archive. What is neither a regular file nor has the suffix of a
// CAR is skipped. An archive without its end, or without a CAR, is an error.
func (a *Archive) Next(ctx context.Context) (Entry, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Entry{}, err
		}
		h, err := a.tar.Next()
		switch {
		case errors.Is(err, io.EOF) && a.stream.ended:
			return Entry{}, fmt.Errorf("%s is cut off behind %d CARs: its end is missing", a.name, a.cars)
		case errors.Is(err, io.EOF) && a.cars == 0:
			return Entry{}, fmt.Errorf("%s has no file that ends in %s", a.name, carSuffix)
		case errors.Is(err, io.EOF):
			return Entry{}, io.EOF
		case err != nil:
			return Entry{}, fmt.Errorf("read %s behind %d CARs: %w", a.name, a.cars, err)
		case h.Size < 0 || h.Size > entryBytesMax:
			return Entry{}, fmt.Errorf("%s has a file of %d bytes, at most %d are possible: %.80q", a.name,
				h.Size, int64(entryBytesMax), h.Name)
		case h.Typeflag == tar.TypeReg && strings.HasSuffix(h.Name, carSuffix):
			a.cars++
			return Entry{Name: h.Name, Size: h.Size, Body: a.tar}, nil
		}
		if a.others++; a.others > othersMax {
			return Entry{}, fmt.Errorf("read %s: %w", a.name, errOthers)
		}
	}
}

// Size returns the size of the archive as it is stored.
func (a *Archive) Size() int64 { return a.size }

// Read returns how many bytes of that were read.
func (a *Archive) Read() int64 { return a.raw.n.Load() }

// Close closes the archive.
func (a *Archive) Close() error {
	a.stream.close()
	return a.file.Close()
}

// String names the archive.
func (a *Archive) String() string { return a.name }

// counted counts what is read.
type counted struct {
	r io.Reader
	n atomic.Int64
}

// Read reads from the underlying reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// archiveStream is the decompressed archive.
type archiveStream struct {
	r     io.Reader
	ended bool // a read found nothing more: a whole archive is not read beyond its end
	close func()
}

// Read reads the decompressed archive.
func (s *archiveStream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if n == 0 && errors.Is(err, io.EOF) {
		s.ended = true
	}
	return n, err
}

// readBytes is how much of an archive is read at a time.
const readBytes = 256 << 10

// decompress returns the stream of an archive, by how its first bytes say it is compressed.
func decompress(r io.Reader) (*archiveStream, error) {
	b := bufio.NewReaderSize(r, readBytes)
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case strings.HasPrefix(string(magic), "\x1f\x8b"):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, err
		}
		return &archiveStream{r: bufio.NewReaderSize(z, readBytes), close: func() { _ = z.Close() }}, nil
	case string(magic) == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(windowBytesMax))
		if err != nil {
			return nil, err
		}
		return &archiveStream{r: z, close: z.Close}, nil
	}
	return &archiveStream{r: b, close: func() {}}, nil
}
