package repo_test

import (
	"errors"
	"testing"

	"cistern/ingest/repo"

	"github.com/ipfs/go-cid"
)

func TestCID(t *testing.T) {
	t.Parallel()
	c := repo.HashCID([]byte("hello"))
	want, err := cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: 0x12, MhLength: 32}.Sum([]byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if c.String() != want.String() || string(c.AppendBytes(nil)) != want.KeyString() {
		t.Errorf("got %s, want %s", c, want)
	}
	if got, err := repo.ParseCID(c.String()); err != nil || got != c {
		t.Errorf("text: %v, %v", got, err)
	}
	if got, err := repo.ParseCIDBytes(c.AppendBytes(nil)); err != nil || got != c {
		t.Errorf("bytes: %v, %v", got, err)
	}
	text := c.String()
	for name, s := range map[string]string{
		"empty":             "",
		"cut":               text[:len(text)-1],
		"upper case":        "B" + text[1:],
		"raw codec":         cid.NewCidV1(cid.Raw, want.Hash()).String(),
		"version 0":         cid.NewCidV0(want.Hash()).String(),
		"not base32":        text[:10] + "1" + text[11:],
		"last bits set":     text[:len(text)-1] + string(text[len(text)-1]+1), // two texts must not mean one CID
		"another multibase": "z" + text[1:],
	} {
		if got, err := repo.ParseCID(s); !errors.Is(err, repo.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if (repo.CID{}).Defined() || !c.Defined() {
		t.Error("Defined")
	}
}

func BenchmarkHashCID(b *testing.B) {
	block := make([]byte, 300)
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		repo.HashCID(block)
	}
}
