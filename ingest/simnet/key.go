package simnet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"gitlab.com/yawning/secp256k1-voi/secec"
)

// signer is a signing key of either curve. It signs with nonces from RFC 6979, so that equal
// commits have equal bytes (invariant 1); indigo's keys take theirs from the system.
type signer struct {
	public atcrypto.PublicKey
	text   string   // of public, as a multibase
	order  *big.Int // of the curve's group
	k256   *secec.PrivateKey
	p256   *ecdsa.PrivateKey
}

// newSigner derives a key from a seed. About one seed in 2^32 is out of a curve's range and is
// hashed again.
func newSigner(seed [32]byte, p256 bool) *signer {
	for {
		s, err := parseSigner(seed[:], p256)
		if err == nil {
			return s
		}
		seed = sha256.Sum256(seed[:])
	}
}

func parseSigner(secret []byte, p256 bool) (*signer, error) {
	var private atcrypto.PrivateKey
	var err error
	s := new(signer)
	if p256 {
		s.order = elliptic.P256().Params().N
		if s.p256, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), secret); err == nil {
			private, err = atcrypto.ParsePrivateBytesP256(secret)
		}
	} else {
		s.order, _ = new(big.Int).SetString(
			"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
		if s.k256, err = secec.NewPrivateKey(secret); err == nil {
			private, err = atcrypto.ParsePrivateBytesK256(secret)
		}
	}
	if err != nil {
		return nil, err
	}
	if s.public, err = private.PublicKey(); err != nil {
		return nil, err
	}
	s.text = s.public.Multibase()
	return s, nil
}

// sign returns the 64-byte signature of content with a low S, as the protocol demands.
func (s *signer) sign(content []byte) []byte {
	digest := sha256.Sum256(content)
	if s.k256 != nil {
		sig, err := s.k256.Sign(secec.RFC6979SHA256(), digest[:], &secec.ECDSAOptions{
			Hash: crypto.SHA256, Encoding: secec.EncodingCompact, RejectMalleable: true,
		})
		if err != nil {
			panic(fmt.Sprintf("simnet: sign with K-256: %v", err))
		}
		return sig
	}
	der, err := s.p256.Sign(nil, digest[:], crypto.SHA256) // no randomness: RFC 6979
	if err != nil {
		panic(fmt.Sprintf("simnet: sign with P-256: %v", err))
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		panic(fmt.Sprintf("simnet: decode P-256 signature: %v", err))
	}
	sig := make([]byte, 64)
	rs.R.FillBytes(sig[:32])
	rs.S.FillBytes(sig[32:])
	if rs.S.Cmp(new(big.Int).Rsh(s.order, 1)) > 0 {
		return s.flipS(sig)
	}
	return sig
}

// flipS returns the other valid signature of the same content: high S for low S and back.
func (s *signer) flipS(sig []byte) []byte {
	flipped := append([]byte(nil), sig...)
	v := new(big.Int).SetBytes(sig[32:])
	v.Sub(s.order, v).FillBytes(flipped[32:])
	return flipped
}
