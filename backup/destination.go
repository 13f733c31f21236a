package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
	// Get reads an object. It returns ErrNotFound if no object has the name.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// List calls fn for each object whose name begins with prefix, in any order.
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
	// ErrNotFound means that a destination has no object of a name, or no generation.
	ErrNotFound = errors.New("not found")
	// ErrDamaged means that a destination does not have what was stored there.
	ErrDamaged = errors.New("damaged")
	// ErrLocked means that another backup uses the destination.
	ErrLocked = errors.New("another backup uses the destination")
)

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

// checked passes the bytes of r on and sums them up.
type checked struct {
	r    io.Reader
	hash interface {
		io.Writer
		Sum([]byte) []byte
	}
	size int64
}

func newChecked(r io.Reader) *checked { return &checked{r: r, hash: sha256.New()} }

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.size += int64(n)
	_, _ = c.hash.Write(p[:n]) // a hash does not fail
	return n, err
}

func (c *checked) sum() Sum { return Sum(c.hash.Sum(nil)) }

// is returns an error unless what was read has this size and sum.
func (c *checked) is(size int64, sum Sum) error {
	if c.size != size {
		return fmt.Errorf("%w: %d bytes instead of %d", ErrDamaged, c.size, size)
	}
	if c.sum() != sum {
		return fmt.Errorf("%w: its SHA-256 is %s instead of %s", ErrDamaged, c.sum(), sum)
	}
	return nil
}

// readAll reads a small object of at most limit bytes.
func readAll(ctx context.Context, d Destination, name string, limit int64) ([]byte, error) {
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

// putText stores a small object.
func putText(ctx context.Context, d Destination, name string, text []byte) error {
	return d.Put(ctx, name, Content{Reader: strings.NewReader(string(text)),
		Size: int64(len(text)), Sum: sha256.Sum256(text)})
}
