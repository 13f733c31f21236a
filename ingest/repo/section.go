package repo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// source reads a CAR. It returns ErrInvalid for errors in the data, and wraps errors of the
// transport.
type source struct {
	r     io.Reader
	total int64 // bytes read from r
	limit int64
	err   error // what r returned together with the last bytes
}

// emptyReadsMax is how many reads in a row may return nothing and no error.
const emptyReadsMax = 100

// read reads at least one byte. The error is io.EOF itself at the end of the body.
func (s *source) read(p []byte) (int, error) {
	for range emptyReadsMax {
		n, err := 0, s.err
		if err == nil {
			n, err = s.r.Read(p)
		}
		if n < 0 || n > len(p) {
			return 0, fmt.Errorf("read CAR: reader returned %d of %d bytes", n, len(p))
		}
		s.total += int64(n)
		switch {
		case s.total > s.limit:
			return 0, fmt.Errorf("CAR exceeds %d bytes: %w", s.limit, ErrTooLarge)
		case n > 0:
			s.err = err
			return n, nil
		case err == io.EOF:
			return 0, io.EOF
		case err != nil:
			return 0, fmt.Errorf("read CAR: %w", err)
		}
	}
	return 0, fmt.Errorf("read CAR: %w", io.ErrNoProgress)
}

// section reads the next section and returns its content and its start, the position of its length.
// The error is io.EOF itself if there is no further section.
func (b *body) section(lengthMax uint64) (content []byte, pos uint64, err error) {
	n, k, err := b.length()
	if err != nil {
		return nil, 0, err
	}
	if n > lengthMax {
		return nil, 0, fmt.Errorf("section of %d bytes: %w", n, ErrInvalid)
	}
	size := k + int(n)
	if err := b.more(size); err != nil {
		return nil, 0, err
	}
	content, pos = b.cur[b.lo+k:b.lo+size], b.base+uint64(b.lo)
	b.lo += size
	return content, pos, nil
}

// length reads the varint at lo and how many bytes it takes.
func (b *body) length() (n uint64, k int, err error) {
	for k < sectionVarintBytesMax {
		if b.hi-b.lo <= k {
			if err := b.more(k + 1); err != nil {
				return 0, 0, err
			}
		}
		v := b.cur[b.lo+k]
		if k == sectionVarintBytesMax-1 && v > 1 {
			break
		}
		n |= uint64(v&0x7f) << (7 * k)
		k++
		if v < 0x80 {
			if v == 0 && k > 1 {
				return 0, 0, fmt.Errorf("section length has a needless byte: %w", ErrInvalid)
			}
			return n, k, nil
		}
	}
	return 0, 0, fmt.Errorf("section length exceeds 64 bits: %w", ErrInvalid)
}

// isForeign reports whether the CID of a section's block has a version, codec or hash that
// repositories do not use. No commit and no tree can refer to such a block, and the repository
// specification has readers ignore blocks without a reference.
func isForeign(section []byte) bool {
	if len(section) >= len(cidPrefix) && string(section[:len(cidPrefix)]) == cidPrefix {
		return false
	}
	if len(section) >= cidV0Bytes && string(section[:len(cidV0Prefix)]) == cidV0Prefix {
		return true
	}
	var parts [4]uint64 // version, codec, hash function, length of the digest
	for i := range parts {
		n, k := binary.Uvarint(section)
		if k <= 0 {
			return false
		}
		parts[i], section = n, section[k:]
	}
	return parts[0] == 1 && parts[3] <= uint64(len(section))
}

// A CID of version 0 is a bare sha2-256 multihash.
const (
	cidV0Prefix = "\x12\x20"
	cidV0Bytes  = len(cidV0Prefix) + 32
)

// header reads the CAR's header and returns its first root. If rootless is set, a CAR without a
// root is allowed, and the root is zero.
func (b *body) header(rootless bool) (CID, error) {
	h, _, err := b.section(headerBytesMax)
	if err == io.EOF {
		return CID{}, fmt.Errorf("CAR is empty: %w: %w", io.ErrUnexpectedEOF, ErrInvalid)
	}
	if err != nil {
		return CID{}, fmt.Errorf("CAR header: %w", err)
	}
	root, err := parseHeader(h)
	if errors.Is(err, errNoRoot) && rootless {
		return CID{}, nil
	}
	if err != nil {
		return CID{}, fmt.Errorf("CAR header: %w: %w", err, ErrInvalid)
	}
	return root, nil
}

var errNoRoot = errors.New("no root")

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
	major, n, at, ok := Head(b, at)
	if !ok || major != MajorArray {
		return CID{}, 0, errors.New("roots is not a list")
	}
	if n == 0 {
		return CID{}, 0, errNoRoot
	}
	if next, ok = Link(b, at); !ok {
		return CID{}, 0, errors.New("root is not a link to v1 dag-cbor sha2-256")
	}
	root = CID(b[next-len(CID{}) : next])
	for range n - 1 {
		tag, nr, at, ok := Head(b, next)
		if !ok || tag != MajorTag || nr != TagLink {
			return CID{}, 0, errors.New("root is not a link")
		}
		if _, next, ok = Span(b, at, MajorBytes); !ok {
			return CID{}, 0, errors.New("root is not a link")
		}
	}
	return root, next, nil
}
