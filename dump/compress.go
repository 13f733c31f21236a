package dump

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Coding is how the bytes of a file are compressed.
type Coding string

// The codings, by their names in HTTP.
const (
	Plain Coding = ""
	Gzip  Coding = "gzip"
	Zstd  Coding = "zstd"
)

// Compress returns a writer whose Close ends the compressed content, and does not close w. It
// starts no goroutine.
func Compress(w io.Writer, c Coding) (io.WriteCloser, error) {
	switch c {
	case Plain:
		return uncompressed{w}, nil
	case Gzip:
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(windowBytes))
	}
	return nil, fmt.Errorf("unknown coding %q", string(c))
}

type uncompressed struct{ io.Writer }

func (uncompressed) Close() error { return nil }
