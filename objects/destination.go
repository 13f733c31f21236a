package objects

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"time"
)

// Destination keeps objects under names, which have parts separated by slashes. Its methods may be
// called concurrently. What Put has stored, Get and List show at once.
type Destination interface {
	// Put stores an object, in place of one of that name. It is durable when Put returns. If Put
	// fails or the process ends, the name has the old object or the new one. An error is returned
	// if the content is not of the stated size and sum.
	Put(ctx context.Context, name string, c Content) error
	// Get reads an object, which may have any size: the caller bounds what it reads. It returns
	// ErrNotFound if no object has the name.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// GetRange reads n bytes, at least one, of an object from byte at on. It returns ErrNotFound
	// if no object has the name, and ErrDamaged if the object ends before these bytes.
	GetRange(ctx context.Context, name string, at, n int64) ([]byte, error)
	// List calls fn for each object whose name begins with prefix, in any order. It returns
	// ErrListing after listedMax of them.
	List(ctx context.Context, prefix string, fn func(Object) error) error
	// Delete deletes an object. A missing object is no error.
	Delete(ctx context.Context, name string) error
	// String names the destination in errors and logs, without secrets.
	String() string
}

// Content is what Put stores.
type Content struct {
	Reader io.ReadSeeker // is read from its beginning, perhaps more than once
	Size   int64         // bytes
	Sum    Sum
}

// Object is an object of a destination.
type Object struct {
	Name     string
	Size     int64     // bytes
	Modified time.Time // by the clock of the destination
}

// Sum is a SHA-256.
type Sum [sha256.Size]byte

// String returns the sum in hexadecimal.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// ParseSum reads the text of Sum.String.
func ParseSum(text string) (s Sum, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(s) || text != strings.ToLower(text) {
		return s, fmt.Errorf("%.80q is not a SHA-256 in hexadecimal", text)
	}
	return Sum(b), nil
}

var (
	// ErrNotFound means that a destination has no object of a name.
	ErrNotFound = errors.New("not found")
	// ErrDamaged means that a destination does not have what was stored there.
	ErrDamaged = errors.New("damaged")
	// ErrListing means that a listing exceeds the limits below, which no real destination does.
	ErrListing = errors.New("impossible listing")
)

// Limits on listings.
const (
	// listedMax bounds the names of one listing: the tables of a store of some 100 TB, which take
	// 200 MB of memory.
	listedMax = 2 << 20
	// nameBytesMax is the longest name of an object that S3 allows.
	nameBytesMax = 1 << 10
)

// listed passes on the objects of one listing.
type listed struct {
	of     Destination
	prefix string
	fn     func(Object) error
	most   int // names
	n      int
}

// count counts a name. It returns ErrListing if there are too many, or if the name is too long.
func (l *listed) count(name string) error {
	l.n++
	switch {
	case l.n > l.most:
		return fmt.Errorf("list %s in %s: %w: it has more than %d names", l.prefix, l.of, ErrListing,
			l.most)
	case len(name) > nameBytesMax:
		return fmt.Errorf("list %s in %s: %w: the name %.80q… has %d bytes, at most %d are possible",
			l.prefix, l.of, ErrListing, name, len(name), nameBytesMax)
	}
	return nil
}

// Open returns the destination that text names: s3://BUCKET/PREFIX, else a directory, which is made
// by the first Put. environ has the variables with the access to S3 (OpenS3). It does not connect.
func Open(text string, environ []string) (Destination, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	switch {
	case text == "":
		return nil, errors.New("destination is empty: want a directory or s3://BUCKET/PREFIX")
	case !ok:
		return NewDirectory(text), nil
	case scheme == "s3":
		return OpenS3(rest, environ)
	}
	return nil, fmt.Errorf("destination of scheme %.20q: want a directory or s3://BUCKET/PREFIX",
		scheme)
}

// Checked passes on the bytes of a reader, counts them and sums them up.
type Checked struct {
	ctx  context.Context
	r    io.Reader
	hash hash.Hash
	size int64
}

// NewChecked returns a reader of r that ends with the error of ctx once ctx ends.
func NewChecked(ctx context.Context, r io.Reader) *Checked {
	return &Checked{ctx: ctx, r: r, hash: sha256.New()}
}

// Read reads from the underlying reader.
func (c *Checked) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.size += int64(n)
	_, _ = c.hash.Write(p[:n]) // a hash does not fail
	return n, err
}

// Size returns how many bytes were read.
func (c *Checked) Size() int64 { return c.size }

// Sum returns the sum of the bytes that were read.
func (c *Checked) Sum() Sum { return Sum(c.hash.Sum(nil)) }

// Is returns ErrDamaged unless what was read has this size and sum.
func (c *Checked) Is(size int64, sum Sum) error {
	if c.size != size {
		return fmt.Errorf("%w: %d bytes instead of %d", ErrDamaged, c.size, size)
	}
	if c.Sum() != sum {
		return fmt.Errorf("%w: its SHA-256 is %s instead of %s", ErrDamaged, c.Sum(), sum)
	}
	return nil
}

// ReadAll reads an object of at most limit bytes into memory. A larger one is ErrDamaged.
func ReadAll(ctx context.Context, d Destination, name string, limit int64) ([]byte, error) {
	r, err := d.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes: %w", name, limit, ErrDamaged)
	}
	return text, nil
}

// PutText stores an object that is in memory.
func PutText(ctx context.Context, d Destination, name string, text []byte) error {
	return d.Put(ctx, name, Content{Reader: bytes.NewReader(text), Size: int64(len(text)),
		Sum: sha256.Sum256(text)})
}

// readRange reads n bytes of a part of an object.
func readRange(r io.Reader, name string, at, n int64) ([]byte, error) {
	b := make([]byte, n)
	got, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: it has %d bytes, not %d", ErrDamaged, at+int64(got), at+n)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s from byte %d: %w", name, at, err)
	}
	return b, nil
}
