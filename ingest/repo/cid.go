package repo

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
)

// CID is the SHA-256 digest of a block, which is all that varies in the CIDs of
// AT Protocol repositories: every commit, MST node and record is CIDv1,
// codec dag-cbor (0x71), multihash sha2-256 of 32 bytes
// (https://atproto.com/specs/repository#cid-formats). The zero CID means "none".
type CID [sha256.Size]byte

// CIDBytes is the length of a CID in its binary form.
const CIDBytes = 4 + sha256.Size

// cidPrefix precedes the digest: version 1, dag-cbor, sha2-256, 32 bytes.
const cidPrefix = "\x01\x71\x12\x20"

var cidText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// cidTextBytes is the length of the text form: the multibase letter and the base32 of CIDBytes.
const cidTextBytes = 1 + (CIDBytes*8+4)/5

// HashCID is the CID of a block of dag-cbor bytes.
func HashCID(block []byte) CID { return sha256.Sum256(block) }

// ParseCIDBytes reads the binary form, without the 0x00 that precedes it in a CBOR link.
func ParseCIDBytes(b []byte) (CID, error) {
	if len(b) != CIDBytes || string(b[:len(cidPrefix)]) != cidPrefix {
		return CID{}, fmt.Errorf("CID %x is not v1 dag-cbor sha2-256: %w",
			b[:min(len(b), CIDBytes)], ErrInvalid)
	}
	return CID(b[len(cidPrefix):]), nil
}

// ParseCID reads the text form ("bafyrei…").
func ParseCID(s string) (CID, error) {
	if len(s) != cidTextBytes || s[0] != 'b' {
		return CID{}, fmt.Errorf("CID %.80q is not v1 dag-cbor sha2-256 in base32: %w", s, ErrInvalid)
	}
	b, err := cidText.DecodeString(s[1:])
	if err != nil {
		return CID{}, fmt.Errorf("CID %q: %w", s, ErrInvalid)
	}
	c, err := ParseCIDBytes(b)
	if err == nil && c.String() != s {
		err = fmt.Errorf("CID %q is not canonical: %w", s, ErrInvalid)
	}
	return c, err
}

// Defined reports whether c is not the zero CID.
func (c CID) Defined() bool { return c != CID{} }

// AppendBytes appends the binary form.
func (c CID) AppendBytes(dst []byte) []byte { return append(append(dst, cidPrefix...), c[:]...) }

// AppendText appends the text form ("bafyrei…").
func (c CID) AppendText(dst []byte) []byte {
	var b [CIDBytes]byte
	copy(b[:], cidPrefix)
	copy(b[len(cidPrefix):], c[:])
	return cidText.AppendEncode(append(dst, 'b'), b[:])
}

// String is the text form ("bafyrei…").
func (c CID) String() string { return string(c.AppendText(make([]byte, 0, cidTextBytes))) }
