package fetch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"

	"cistern/backfill/hosts"
	"cistern/ingest/repo"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// decoders keeps idle decompressors for reuse.
type decoders struct {
	gzip sync.Pool // of *gzip.Reader
	zstd sync.Pool // of *zstd.Decoder

	permits *budget // of zstd bodies: a transfer takes one before it offers to decompress them
}

// errEncoding means that the host compressed the body in a way that the request did not offer.
var errEncoding = fmt.Errorf("content encoding that was not offered: %w", repo.ErrInvalid)

// body is a decoded body, which must be closed.
type body struct {
	io.Reader
	close func()
}

// open decodes a body with the encoding that its Content-Encoding header names.
func (d *decoders) open(encoding string, tr *transfer) (body, error) {
	switch encoding {
	case "", "identity":
		return body{tr, func() {}}, nil
	case "gzip", "x-gzip":
		z, err := d.openGzip(tr)
		if err != nil {
			return body{}, err
		}
		return body{&expansion{r: z, from: tr}, func() { d.gzip.Put(z) }}, nil
	case "zstd":
		if !tr.zstd {
			return body{}, errEncoding
		}
		z, err := d.openZstd(tr)
		if err != nil {
			return body{}, err
		}
		return body{&expansion{r: z, from: tr}, func() { d.putZstd(z) }}, nil
	}
	return body{}, fmt.Errorf("content encoding %.20q: %w", hosts.Clean(encoding), repo.ErrInvalid)
}

func (d *decoders) openGzip(tr *transfer) (*gzip.Reader, error) {
	z, ok := d.gzip.Get().(*gzip.Reader)
	if !ok {
		z = new(gzip.Reader)
	}
	if err := z.Reset(bufio.NewReader(tr)); err != nil {
		return nil, corrupt(err)
	}
	return z, nil
}

func (d *decoders) openZstd(tr *transfer) (*zstd.Decoder, error) {
	z, ok := d.zstd.Get().(*zstd.Decoder)
	if !ok {
		var err error
		if z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxWindow(zstdWindowMax)); err != nil {
			return nil, fmt.Errorf("make zstd decoder: %w", err)
		}
	}
	if err := z.Reset(tr); err != nil {
		return nil, corrupt(err)
	}
	return z, nil
}

func (d *decoders) putZstd(z *zstd.Decoder) {
	if z.Reset(nil) == nil {
		d.zstd.Put(z)
	}
}

// expansion bounds what a compressed body becomes.
type expansion struct {
	r    io.Reader
	from *transfer
	out  int64
}

// Read decompresses.
func (e *expansion) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.out += int64(n)
	if e.out > expandSlack+expandRatio*e.from.got.Load() {
		return 0, fmt.Errorf("body expands more than %d times: %w", expandRatio, repo.ErrInvalid)
	}
	if err != nil && err != io.EOF {
		err = corrupt(err)
	}
	return n, err
}

// corrupt marks an error of decompression as invalid input. It returns errors of the connection as
// they are.
func corrupt(err error) error {
	for _, known := range []error{gzip.ErrHeader, gzip.ErrChecksum,
		zstd.ErrMagicMismatch, zstd.ErrCRCMismatch, zstd.ErrWindowSizeExceeded,
		zstd.ErrDecoderSizeExceeded, zstd.ErrReservedBlockType, zstd.ErrBlockTooSmall,
		zstd.ErrCompressedSizeTooBig, zstd.ErrUnknownDictionary, zstd.ErrFrameSizeExceeded,
		zstd.ErrFrameSizeMismatch} {
		if errors.Is(err, known) {
			return fmt.Errorf("%w: %w", err, repo.ErrInvalid)
		}
	}
	return err
}
