package cars_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cistern/dump/cars"
	"cistern/dump/cars/manifest"
)

// TestSpool spools CARs below and above the size that is kept in memory, one after another.
func TestSpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := cars.NewSpool(dir)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 10, cars.MemoryBytes, cars.MemoryBytes + 1, 5, 3*cars.MemoryBytes + 7, 100} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		for rest := body; len(rest) > 0; {
			n := min(len(rest), 1+rng.IntN(300_000))
			if _, err := s.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		n, sum, got, err := s.Content()
		want := sha256.Sum256(body)
		if size > 0 && err != nil || n != int64(size) || sum != hex.EncodeToString(want[:]) || !bytes.Equal(got, body) {
			t.Errorf("%d bytes: %d of sum %s, %v", size, n, sum, err)
		}
		if err := s.Reset(); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestPaths names CARs of all DIDs, also of those that are longer than the name of a file.
func TestPaths(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, did := range []string{"did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:example.com", "did:web:example.com%3A80",
		"did:web:" + strings.Repeat("a", 240), "did:web:" + strings.Repeat("a", 241), "did:x:" + strings.Repeat("%2F", 600)} {
		p := manifest.PathOf(did)
		if !filepath.IsLocal(p) || len(filepath.Base(p)) > 250 || seen[p] != "" || strings.Count(p, "/") != 2 {
			t.Errorf("%s is at %s", did, p)
		}
		seen[p] = did
	}
}
