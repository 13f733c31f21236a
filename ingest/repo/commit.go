package repo

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// ErrSignature is the ErrInvalid of a signature that does not verify: the key may have changed.
var ErrSignature = fmt.Errorf("signature does not verify: %w", ErrInvalid)

// commitVersion is the only version of the repository format in use.
const commitVersion = 3

// Commit is the signed root of a repository.
type Commit struct {
	DID     string
	Version int
	Rev     string // a TID
	Data    CID    // root node of the tree
	Prev    CID    // zero for null, the usual value
	Sig     []byte
}

// ParseCommit reads a commit block: strict DAG-CBOR of exactly the six fields of version 3,
// with a valid DID and rev. The result does not refer to block.
func ParseCommit(block []byte) (Commit, error) {
	c, _, err := parseCommit(block)
	if err != nil {
		return Commit{}, fmt.Errorf("commit: %w: %w", err, ErrInvalid)
	}
	if _, err := syntax.ParseDID(c.DID); err != nil {
		return Commit{}, fmt.Errorf("commit DID %.80q: %w: %w", c.DID, err, ErrInvalid)
	}
	if _, err := ParseTID(c.Rev); err != nil {
		return Commit{}, fmt.Errorf("commit rev: %w", err)
	}
	return c, nil
}

// sigField is the position of the signature, key and value, in a commit block.
type sigField struct{ from, to int }

// parseCommit reads
//
//	{"did": text, "rev": text, "sig": bytes, "data": link, "prev": link or null, "version": 3}
//
// whose order is the canonical one.
func parseCommit(b []byte) (c Commit, sig sigField, err error) {
	if len(b) > commitBytesMax {
		return c, sig, fmt.Errorf("%d bytes", len(b))
	}
	at, ok := literal(b, 0, "\xa6")
	if !ok {
		return c, sig, errors.New("not a map of six fields")
	}
	from, at, ok := field(b, at, "\x63did", MajorText)
	if !ok {
		return c, sig, errors.New("field did")
	}
	c.DID = string(b[from:at])
	if from, at, ok = field(b, at, "\x63rev", MajorText); !ok {
		return c, sig, errors.New("field rev")
	}
	c.Rev = string(b[from:at])
	sig.from = at
	if from, at, ok = field(b, at, "\x63sig", MajorBytes); !ok || from == at {
		return c, sig, errors.New("field sig")
	}
	sig.to, c.Sig = at, slices.Clone(b[from:at])
	if at, ok = literal(b, at, "\x64data"); ok {
		at, ok = Link(b, at)
	}
	if !ok {
		return c, sig, errors.New("field data")
	}
	c.Data = CID(b[at-len(CID{}) : at])
	if at, ok = literal(b, at, "\x64prev"); ok {
		var prev uint32
		if prev, at, ok = linkOrNull(b, at); ok && prev != 0 {
			c.Prev = CID(b[prev:at])
		}
	}
	if !ok {
		return c, sig, errors.New("field prev")
	}
	if at, ok = literal(b, at, "\x67version\x03"); !ok || at != len(b) {
		return c, sig, errors.New("field version is not 3, or something follows it")
	}
	c.Version = commitVersion
	return c, sig, nil
}

// field reads a key and returns where the string after it has its content.
func field(b []byte, at int, key string, major byte) (from, to int, ok bool) {
	if at, ok = literal(b, at, key); !ok {
		return 0, 0, false
	}
	return Span(b, at, major)
}

// CheckRev returns an error if the rev is more than RevSkewMax after now.
func (c Commit) CheckRev(now time.Time) error {
	if t := TIDTime(c.Rev); t.IsZero() || t.Sub(now) > RevSkewMax {
		return fmt.Errorf("rev %s is %s in the future: %w",
			c.Rev, t.Sub(now).Round(time.Second), ErrInvalid)
	}
	return nil
}

// Verify checks the signature in block, from which c was parsed. The signed bytes are those of
// the block without its field sig. A signature that does not verify, or that has a high S, is
// ErrSignature.
func (c Commit) Verify(block []byte, key *Key) error {
	parsed, sig, err := parseCommit(block)
	if err != nil {
		return fmt.Errorf("commit: %w: %w", err, ErrInvalid)
	}
	if parsed.Data != c.Data || parsed.DID != c.DID || parsed.Rev != c.Rev ||
		!slices.Equal(parsed.Sig, c.Sig) {
		return fmt.Errorf("commit %s rev %s is not of this block: %w", c.DID, c.Rev, ErrInvalid)
	}
	unsigned := make([]byte, 0, len(block))
	unsigned = append(unsigned, 0xa5) // a map of five fields
	unsigned = append(unsigned, block[1:sig.from]...)
	unsigned = append(unsigned, block[sig.to:]...)
	if !key.Verify(unsigned, c.Sig) {
		return fmt.Errorf("commit %s rev %s: %w", c.DID, c.Rev, ErrSignature)
	}
	return nil
}
