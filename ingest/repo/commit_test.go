package repo_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigorepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"cistern/ingest/repo"
)

const (
	testDID = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	testRev = "3jzfcijpj2z2a"
)

func testKeys(t testing.TB) map[string]atcrypto.PrivateKey {
	t.Helper()
	seed := bytes.Repeat([]byte{7}, 32)
	k256, err := atcrypto.ParsePrivateBytesK256(seed)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := atcrypto.ParsePrivateBytesP256(seed)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]atcrypto.PrivateKey{"K-256": k256, "P-256": p256}
}

// signedCommit is made and signed by indigo.
func signedCommit(t testing.TB, key atcrypto.PrivateKey, prev bool) []byte {
	t.Helper()
	c := indigorepo.Commit{DID: testDID, Version: 3, Rev: testRev, Data: indigoCID(t, repo.HashCID([]byte("data")))}
	if prev {
		p := indigoCID(t, repo.HashCID([]byte("prev")))
		c.Prev = &p
	}
	if err := c.Sign(key); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := c.MarshalCBOR(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func publicKey(t testing.TB, key atcrypto.PrivateKey) *repo.Key {
	t.Helper()
	pub, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := repo.ParseKey(pub.DIDKey())
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestCommitVerify(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	for name, key := range keys {
		for _, prev := range []bool{false, true} {
			b := signedCommit(t, key, prev)
			c, err := repo.ParseCommit(b)
			if err != nil {
				t.Fatal(err)
			}
			if c.DID != testDID || c.Rev != testRev || c.Version != 3 || c.Data != repo.HashCID([]byte("data")) || c.Prev.Defined() != prev || len(c.Sig) != 64 {
				t.Fatalf("commit %+v", c)
			}
			if err := c.Verify(b, publicKey(t, key)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for other, k := range keys {
				if other != name {
					if err := c.Verify(b, publicKey(t, k)); !errors.Is(err, repo.ErrSignature) || !errors.Is(err, repo.ErrInvalid) {
						t.Fatalf("%s with a %s key: %v", name, other, err)
					}
				}
			}
		}
	}
}

// TestCommitVerifyChanged flips each bit of a signed commit: none of the results may verify.
func TestCommitVerifyChanged(t *testing.T) {
	t.Parallel()
	key := testKeys(t)["K-256"]
	b, pub := signedCommit(t, key, true), publicKey(t, key)
	for i := range len(b) * 8 {
		bad := slices.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		c, err := repo.ParseCommit(bad)
		if err == nil {
			err = c.Verify(bad, pub)
		}
		if !errors.Is(err, repo.ErrInvalid) {
			t.Fatalf("bit %d of byte %d: %v", i%8, i/8, err)
		}
	}
	c, err := repo.ParseCommit(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(signedCommit(t, key, false), pub); !errors.Is(err, repo.ErrInvalid) || errors.Is(err, repo.ErrSignature) {
		t.Fatalf("block of another commit: %v", err)
	}
}

func TestParseCommitInvalid(t *testing.T) {
	t.Parallel()
	good := string(encodeCommit(testDID, testRev, repo.CID{1}, bytes.Repeat([]byte{1}, 64)))
	longDID := "did:web:" + strings.Repeat("a", 2041)
	tests := map[string]string{
		"empty":                     "",
		"five fields":               strings.Replace(good, "\xa6", "\xa5", 1),
		"seven fields":              strings.Replace(good, "\xa6", "\xa7", 1) + "\x61z\x01",
		"version 2":                 strings.Replace(good, "version\x03", "version\x02", 1),
		"version 3 in two bytes":    strings.Replace(good, "version\x03", "version\x18\x03", 1),
		"bytes at the end":          good + "\x00",
		"no signature":              string(encodeCommit(testDID, testRev, repo.CID{1}, nil)),
		"empty signature":           string(encodeCommit(testDID, testRev, repo.CID{1}, []byte{})),
		"no DID":                    string(encodeCommit("", testRev, repo.CID{1}, []byte{1})),
		"handle for a DID":          string(encodeCommit("alice.example.com", testRev, repo.CID{1}, []byte{1})),
		"DID longer than 2 KiB":     string(encodeCommit(longDID, testRev, repo.CID{1}, []byte{1})),
		"rev is no TID":             string(encodeCommit(testDID, "3jzfcijpj2z2", repo.CID{1}, []byte{1})),
		"rev with the top bit set":  string(encodeCommit(testDID, "zzzzzzzzzzzzz", repo.CID{1}, []byte{1})),
		"data is null":              strings.Replace(good, "data\xd8\x2a", "data\xf6\x2a", 1),
		"data is a raw block":       strings.Replace(good, "\x01\x71\x12\x20", "\x01\x55\x12\x20", 1),
		"prev is undefined":         strings.Replace(good, "prev\xf6", "prev\xf7", 1),
		"prev is absent":            strings.Replace(strings.Replace(good, "\x64prev\xf6", "", 1), "\xa6", "\xa5", 1),
		"signature is text":         strings.Replace(good, "sig\x58", "sig\x78", 1),
		"fields in another order":   strings.Replace(strings.Replace(good, "\x64data", "\x64temp", 1), "\x64prev", "\x64data", 1),
		"more than 4 KiB":           string(encodeCommit(testDID, testRev, repo.CID{1}, make([]byte, 4096))),
		"signature of 2^63-1 bytes": strings.Replace(good, "sig\x58\x40", "sig\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", 1),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if b == good {
				t.Fatal("nothing changed")
			}
			if c, err := repo.ParseCommit([]byte(b)); !errors.Is(err, repo.ErrInvalid) {
				t.Fatalf("%+v, %v", c, err)
			}
		})
	}
	for cut := range len(good) {
		if _, err := repo.ParseCommit([]byte(good[:cut])); !errors.Is(err, repo.ErrInvalid) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

func TestCheckRev(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, test := range []struct {
		ahead time.Duration
		ok    bool
	}{
		{-50 * 365 * 24 * time.Hour, true}, // old is not our business here
		{0, true},
		{repo.RevSkewMax, true},
		{repo.RevSkewMax + time.Microsecond, false},
		{100 * 365 * 24 * time.Hour, false},
	} {
		c := repo.Commit{Rev: syntax.NewTIDFromTime(now.Add(test.ahead), 0).String()}
		if err := c.CheckRev(now); (err == nil) != test.ok || err != nil && !errors.Is(err, repo.ErrInvalid) {
			t.Errorf("rev %v ahead: %v", test.ahead, err)
		}
	}
	if err := (repo.Commit{Rev: "no TID"}).CheckRev(now); !errors.Is(err, repo.ErrInvalid) {
		t.Errorf("rev that is no TID: %v", err)
	}
}

// FuzzParseCommit: what we accept, indigo accepts with the same fields, and its re-encoding is
// the block, which is what makes splicing the signature out equal to encoding again.
func FuzzParseCommit(f *testing.F) {
	key := testKeys(f)["K-256"]
	f.Add(signedCommit(f, key, false))
	f.Add(signedCommit(f, key, true))
	f.Add(encodeCommit("did:web:example.com%3A80", "2222222222222", repo.CID{}, []byte{1}))
	pub := publicKey(f, key)
	theirs, err := key.PublicKey()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := repo.ParseCommit(b)
		if err != nil {
			if !errors.Is(err, repo.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		var want indigorepo.Commit
		if err := want.UnmarshalCBOR(bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		if err := want.VerifyStructure(); err != nil {
			t.Fatal(err)
		}
		if c.DID != want.DID || c.Rev != want.Rev || int64(c.Version) != want.Version || c.Data.String() != want.Data.String() ||
			!bytes.Equal(c.Sig, want.Sig) || c.Prev.Defined() != (want.Prev != nil) || c.Prev.Defined() && c.Prev.String() != want.Prev.String() {
			t.Fatalf("%+v, indigo %+v", c, want)
		}
		var buf bytes.Buffer
		if err := want.MarshalCBOR(&buf); err != nil || !bytes.Equal(buf.Bytes(), b) {
			t.Fatalf("indigo encodes %x (%v), block is %x", buf.Bytes(), err, b)
		}
		if err := c.Verify(b, pub); (err == nil) != (want.VerifySignature(theirs) == nil) {
			t.Fatalf("Verify: %v", err)
		}
	})
}
