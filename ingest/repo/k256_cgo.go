//go:build cgo

package repo

import (
	"crypto/sha256"
	"errors"

	"github.com/ethereum/go-ethereum/crypto/secp256k1"
)

// k256Key is a key of K-256 for libsecp256k1, which takes keys as bytes: the uncompressed point, so
// that the square root is taken once a key and not once a signature.
type k256Key struct {
	point [1 + 32 + 32]byte // 0x04, x, y
}

// parseK256 parses a compressed point.
func parseK256(compressed []byte) (*k256Key, error) {
	x, y := secp256k1.DecompressPubkey(compressed)
	if x == nil {
		return nil, errors.New("not a compressed point of K-256")
	}
	k := new(k256Key)
	k.point[0] = 4
	x.FillBytes(k.point[1:33])
	y.FillBytes(k.point[33:])
	return k, nil
}

// verify reports whether sig is the signature of content. libsecp256k1 refuses what atcrypto
// refuses: a high s, and an r or s that is 0 or not below the order of the group.
func (k *k256Key) verify(content, sig []byte) bool {
	digest := sha256.Sum256(content)
	return secp256k1.VerifySignature(k.point[:], digest[:], sig)
}

func (k *k256Key) compressed() []byte {
	return append([]byte{2 + k.point[64]&1}, k.point[1:33]...)
}
