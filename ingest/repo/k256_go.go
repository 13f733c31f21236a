//go:build !cgo

package repo

import "github.com/bluesky-social/indigo/atproto/atcrypto"

// k256Key is a key of K-256 for the library in Go, which takes more than twice as long as
// libsecp256k1.
type k256Key struct {
	public *atcrypto.PublicKeyK256
}

// parseK256 parses a compressed point.
func parseK256(compressed []byte) (*k256Key, error) {
	public, err := atcrypto.ParsePublicBytesK256(compressed)
	if err != nil {
		return nil, err
	}
	return &k256Key{public}, nil
}

// verify reports whether sig is the signature of content, with a low s.
func (k *k256Key) verify(content, sig []byte) bool {
	return k.public.HashAndVerify(content, sig) == nil
}

func (k *k256Key) compressed() []byte { return k.public.Bytes() }
