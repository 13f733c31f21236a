package repo

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/mr-tron/base58"
)

// Key is a public key that signs commits, parsed once. It verifies signatures of K-256 with
// libsecp256k1 when cgo is on (k256_cgo.go) and in Go otherwise (k256_go.go), and those of P-256
// with the standard library.
type Key struct {
	k256 *k256Key
	p256 *atcrypto.PublicKeyP256 // nil for a key of K-256
}

const (
	// didKeyPrefix starts a did:key. The z names base58btc, the only encoding in use.
	didKeyPrefix = "did:key:z"

	// didKeyBytesMax bounds a did:key; those of the two curves take 57 bytes.
	didKeyBytesMax = 256

	// The multicodecs of compressed public keys, as varints.
	codecK256 = "\xe7\x01"
	codecP256 = "\x80\x24"
)

// ParseKey parses a did:key of K-256 or P-256. The error is ErrInvalid.
func ParseKey(text string) (*Key, error) {
	k, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("key %.80q: %w: %w", text, err, ErrInvalid)
	}
	return k, nil
}

func parseKey(text string) (*Key, error) {
	encoded, ok := strings.CutPrefix(text, didKeyPrefix)
	if !ok || len(text) > didKeyBytesMax {
		return nil, errors.New("not a did:key in base58btc")
	}
	data, err := base58.Decode(encoded)
	if err != nil {
		return nil, err
	}
	k := new(Key)
	if point, ok := strings.CutPrefix(string(data), codecK256); ok {
		k.k256, err = parseK256([]byte(point))
	} else if point, ok := strings.CutPrefix(string(data), codecP256); ok {
		k.p256, err = atcrypto.ParsePublicBytesP256([]byte(point))
	} else {
		err = errors.New("neither K-256 nor P-256")
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// Verify reports whether sig is the signature of content: 64 bytes, r and s, with a low s.
func (k *Key) Verify(content, sig []byte) bool {
	if k.p256 != nil {
		return k.p256.HashAndVerify(content, sig) == nil
	}
	return k.k256.verify(content, sig)
}

// DIDKey is the key as a did:key.
func (k *Key) DIDKey() string {
	if k.p256 != nil {
		return k.p256.DIDKey()
	}
	return didKeyPrefix + base58.Encode(append([]byte(codecK256), k.k256.compressed()...))
}
