package repo_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/mr-tron/base58"

	"cistern/ingest/repo"
)

// k256Order is the order n of the group of K-256.
var k256Order, _ = new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)

// verifies fails the test unless repo's verdict on a signature is that of atcrypto, which verifies in Go.
func verifies(t *testing.T, why, didKey string, content, sig []byte) (valid bool) {
	t.Helper()
	key, err := repo.ParseKey(didKey)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := atcrypto.ParsePublicDIDKey(didKey)
	if err != nil {
		t.Fatal(err)
	}
	valid = theirs.HashAndVerify(content, sig) == nil
	if got := key.Verify(content, sig); got != valid {
		t.Errorf("%s: %s with signature %x: valid is %v, in Go %v", why, didKey, sig, got, valid)
	}
	return valid
}

// TestKeyFixtures has the protocol's own signatures: valid ones, with a high S, and in DER.
func TestKeyFixtures(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/signature-fixtures.json")
	if err != nil {
		t.Fatal(err)
	}
	var fixtures []struct {
		Comment, MessageBase64, PublicKeyDid, SignatureBase64 string
		ValidSignature                                        bool
	}
	if err := json.Unmarshal(b, &fixtures); err != nil || len(fixtures) == 0 {
		t.Fatal(len(fixtures), err)
	}
	for _, f := range fixtures {
		msg, err1 := base64.RawStdEncoding.DecodeString(f.MessageBase64)
		sig, err2 := base64.RawStdEncoding.DecodeString(f.SignatureBase64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if verifies(t, f.Comment, f.PublicKeyDid, msg, sig) != f.ValidSignature {
			t.Errorf("%s: valid is %v", f.Comment, !f.ValidSignature)
		}
		commit := encodeCommit(testDID, testRev, repo.CID{1}, sig) // other content: not even a valid one fits
		c, err := repo.ParseCommit(commit)
		if err != nil {
			t.Fatal(err)
		}
		key, err := repo.ParseKey(f.PublicKeyDid)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Verify(commit, key); !errors.Is(err, repo.ErrSignature) {
			t.Errorf("%s: %v", f.Comment, err)
		}
	}
}

// TestKeyMalleated signs at random and changes the signatures: only the original, with its low S, is valid.
func TestKeyMalleated(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	fill := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	var other string
	for range 50 {
		secret, err := atcrypto.ParsePrivateBytesK256(fill(32))
		if err != nil {
			t.Fatal(err)
		}
		public, err := secret.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		content := fill(random.IntN(300))
		sig, err := secret.HashAndSign(content)
		if err != nil {
			t.Fatal(err)
		}
		key := public.DIDKey()
		if !verifies(t, "as signed", key, content, sig) {
			t.Fatal("a fresh signature is not valid")
		}
		r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
		pair := func(r, s *big.Int) []byte {
			b := make([]byte, 64)
			r.FillBytes(b[:32])
			s.FillBytes(b[32:])
			return b
		}
		zero, one, all := new(big.Int), big.NewInt(1), new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
		half := new(big.Int).Rsh(k256Order, 1)
		bad := map[string][]byte{
			"high S":              pair(r, new(big.Int).Sub(k256Order, s)),
			"r is 0":              pair(zero, s),
			"s is 0":              pair(r, zero),
			"both are 0":          pair(zero, zero),
			"r is n":              pair(k256Order, s),
			"s is n":              pair(r, k256Order),
			"r is n+1":            pair(new(big.Int).Add(k256Order, one), s),
			"s is n+1":            pair(r, new(big.Int).Add(k256Order, one)),
			"r is 2^256-1":        pair(all, s),
			"s is 2^256-1":        pair(r, all),
			"s is n-1":            pair(r, new(big.Int).Sub(k256Order, one)),
			"s is n/2":            pair(r, half),
			"s is n/2+1":          pair(r, new(big.Int).Add(half, one)),
			"r and s are swapped": pair(s, r),
			"empty":               nil,
			"one byte":            sig[:1],
			"a byte short":        sig[:63],
			"a byte more":         append(bytes.Clone(sig), 0),
			"a byte before":       append([]byte{0}, sig...),
			"with recovery id":    append(bytes.Clone(sig), 1),
			"twice":               append(bytes.Clone(sig), sig...),
			"random":              fill(64),
		}
		flipped := bytes.Clone(sig)
		flipped[random.IntN(64)] ^= 1 << random.IntN(8)
		bad["one bit flipped"] = flipped
		for why, sig := range bad {
			if verifies(t, why, key, content, sig) {
				t.Errorf("%s: valid", why)
			}
		}
		if verifies(t, "other content", key, append(bytes.Clone(content), 0), sig) {
			t.Error("signs other content, too")
		}
		if other != "" && verifies(t, "other key", other, content, sig) {
			t.Error("is another key's, too")
		}
		other = key
	}
}

// didKey is the did:key of a point in some form, valid or not.
func didKey(codec string, point []byte) string {
	return "did:key:z" + base58.Encode(append([]byte(codec), point...))
}

// FuzzParseKey: what we take for a key, atcrypto does, and what it does not, we do not.
func FuzzParseKey(f *testing.F) {
	for _, key := range testKeys(f) {
		f.Add(publicKey(f, key).DIDKey())
	}
	generator := publicKey(f, testKeys(f)["K-256"]).DIDKey()
	data, err := base58.Decode(strings.TrimPrefix(generator, "did:key:z"))
	if err != nil {
		f.Fatal(err)
	}
	point := data[2:]
	const k256, p256 = "\xe7\x01", "\x80\x24"
	for prefix := range byte(8) {
		f.Add(didKey(k256, append([]byte{prefix}, point[1:]...)))
	}
	f.Add(didKey(k256, point[:32]))
	f.Add(didKey(k256, append(bytes.Clone(point), 0)))
	f.Add(didKey(k256, append([]byte{2}, make([]byte, 32)...)))               // x = 0 is on no point
	f.Add(didKey(k256, append([]byte{2}, bytes.Repeat([]byte{0xff}, 32)...))) // x beyond the field
	f.Add(didKey(k256, append([]byte{4}, bytes.Repeat(point[1:], 2)...)))     // uncompressed
	f.Add(didKey(p256, point))                                                // of the other curve
	f.Add(didKey("\xed\x01", point[1:]))                                      // Ed25519
	f.Add(didKey(k256, nil))                                                  //
	f.Add("did:key:z")
	f.Add("did:key:z0OIl") // not base58
	f.Add("did:key:mAbc")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := repo.ParseKey(text)
		theirs, theirErr := atcrypto.ParsePublicDIDKey(text)
		if len(text) > 256 && err != nil {
			return
		}
		if (err == nil) != (theirErr == nil) || err != nil && !errors.Is(err, repo.ErrInvalid) {
			t.Fatalf("%q: %v, atcrypto %v", text, err, theirErr)
		}
		if err == nil && (key.DIDKey() != text || theirs.DIDKey() != text) {
			t.Fatalf("%q is told as %q, by atcrypto as %q", text, key.DIDKey(), theirs.DIDKey())
		}
	})
}

// BenchmarkKey has what a commit costs: a key is parsed once a document, and verifies each commit.
func BenchmarkKey(b *testing.B) {
	content := make([]byte, 200)
	for name, secret := range testKeys(b) {
		sig, err := secret.HashAndSign(content)
		if err != nil {
			b.Fatal(err)
		}
		public, err := secret.PublicKey()
		if err != nil {
			b.Fatal(err)
		}
		text, key := public.DIDKey(), publicKey(b, secret)
		b.Run(name+"/parse", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := repo.ParseKey(text); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/verify", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !key.Verify(content, sig) {
					b.Fatal("not valid")
				}
			}
		})
		b.Run(name+"/atcrypto", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if public.HashAndVerify(content, sig) != nil {
					b.Fatal("not valid")
				}
			}
		})
	}
}
