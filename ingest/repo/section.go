package repo

import (
	"errors"
	"fmt"
	"io"
)

// source reads a CAR's sections through a buffer and keeps the peer's errors (ErrInvalid)
// apart from those of the transport, which are wrapped as they come.
type source struct {
	r      io.Reader
	buf    []byte
	lo, hi int
	total  int64 // bytes read from r
	limit  int64
	empty  int // reads in a row that gave nothing
	id     [CIDBytes]byte
}

// emptyReadsMax is how many reads may return nothing and no error.
const emptyReadsMax = 100

// fill reads more when the buffer is empty. The error is io.EOF itself at the end of the body.
func (s *source) fill() error {
	for s.lo == s.hi {
		n, err := s.r.Read(s.buf)
		if n < 0 || n > len(s.buf) {
			return fmt.Errorf("read CAR: reader returned %d of %d bytes", n, len(s.buf))
		}
		s.lo, s.hi, s.total = 0, n, s.total+int64(n)
		if s.total > s.limit {
			return fmt.Errorf("CAR exceeds %d bytes: %w", s.limit, ErrInvalid)
		}
		if n > 0 {
			s.empty = 0
			return nil
		}
		if err == io.EOF {
			return io.EOF
		}
		if err != nil {
			return fmt.Errorf("read CAR: %w", err)
		}
		if s.empty++; s.empty > emptyReadsMax {
			return fmt.Errorf("read CAR: %w", io.ErrNoProgress)
		}
	}
	return nil
}

// truncated turns the end of the body into the error of a body that ends inside something.
func truncated(err error) error {
	if err == io.EOF {
		return fmt.Errorf("CAR ends inside a section: %w: %w", io.ErrUnexpectedEOF, ErrInvalid)
	}
	return err
}

func (s *source) full(p []byte) error {
	for len(p) > 0 {
		if err := s.fill(); err != nil {
			return truncated(err)
		}
		n := copy(p, s.buf[s.lo:s.hi])
		s.lo += n
		p = p[n:]
	}
	return nil
}

// length reads the varint before a section. The error is io.EOF itself where the body ends before it.
func (s *source) length() (uint64, error) {
	var v uint64
	for i := range sectionVarintBytesMax {
		if err := s.fill(); err != nil {
			if i > 0 {
				err = truncated(err)
			}
			return 0, err
		}
		b := s.buf[s.lo]
		s.lo++
		if i == sectionVarintBytesMax-1 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			if b == 0 && i > 0 {
				return 0, fmt.Errorf("section length has a needless byte: %w", ErrInvalid)
			}
			return v, nil
		}
	}
	return 0, fmt.Errorf("section length exceeds 64 bits: %w", ErrInvalid)
}

// header reads the CAR's header and returns its first root.
func (s *source) header() (CID, error) {
	n, err := s.length()
	if err != nil {
		return CID{}, truncated(err)
	}
	if n > headerBytesMax {
		return CID{}, fmt.Errorf("CAR header of %d bytes: %w", n, ErrInvalid)
	}
	b := make([]byte, n)
	if err := s.full(b); err != nil {
		return CID{}, err
	}
	root, err := parseHeader(b)
	if err != nil {
		return CID{}, fmt.Errorf("CAR header: %w: %w", err, ErrInvalid)
	}
	return root, nil
}

// parseHeader reads {"roots":[link…],"version":1}. The keys may stand in either order: the
// header is not hashed, so that nothing depends on its form.
func parseHeader(b []byte) (root CID, err error) {
	at, ok := literal(b, 0, "\xa2")
	if !ok {
		return CID{}, errors.New("not a map of two keys")
	}
	for range 2 {
		if next, ok := literal(b, at, "\x67version"); ok {
			if at, ok = literal(b, next, "\x01"); !ok {
				return CID{}, errors.New("version is not 1")
			}
			continue
		}
		next, ok := literal(b, at, "\x65roots")
		if !ok || root.Defined() {
			return CID{}, errors.New("keys are not roots and version")
		}
		if root, at, err = parseRoots(b, next); err != nil {
			return CID{}, err
		}
	}
	if !root.Defined() || at != len(b) {
		return CID{}, errors.New("not exactly roots and version")
	}
	return root, nil
}

// parseRoots returns the first root; the others have no meaning for a repository.
func parseRoots(b []byte, at int) (root CID, next int, err error) {
	major, n, at, ok := head(b, at)
	if !ok || major != majorArray {
		return CID{}, 0, errors.New("roots is not a list")
	}
	if n == 0 {
		return CID{}, 0, errors.New("no root")
	}
	if next, ok = link(b, at); !ok {
		return CID{}, 0, errors.New("root is not a link to v1 dag-cbor sha2-256")
	}
	root = CID(b[next-len(CID{}) : next])
	for range n - 1 {
		tag, nr, at, ok := head(b, next)
		if !ok || tag != majorTag || nr != tagLink {
			return CID{}, 0, errors.New("root is not a link")
		}
		if _, next, ok = span(b, at, majorBytes); !ok {
			return CID{}, 0, errors.New("root is not a link")
		}
	}
	return root, next, nil
}
