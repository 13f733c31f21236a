package repo_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"cistern/ingest/repo"
)

// foreignSections are blocks that no repository can name, by the form of their CIDs. What they hold
// does not hash to them, which does not matter.
func foreignSections() map[string][]byte {
	const digest = "0123456789abcdef0123456789abcdef"
	sections := map[string][]byte{}
	for form, content := range map[string]string{
		"raw, as blobs are":         "\x01\x55\x12\x20" + digest + "a blob",
		"raw, of no bytes":          "\x01\x55\x12\x20" + digest,
		"dag-pb":                    "\x01\x70\x12\x20" + digest + "\x0a\x00",
		"dag-pb, of version 0":      "\x12\x20" + digest + "\x0a\x00",
		"sha2-512":                  "\x01\x71\x13\x40" + digest + digest + "\xa0",
		"a codec of two bytes":      "\x01\x81\x02\x12\x20" + digest + "{}",
		"a truncated digest":        "\x01\x71\x12\x08" + digest[:8] + "\xa0",
		"identity":                  "\x01\x71\x00\x01\xa0\xa0",
		"identity, of no bytes":     "\x01\x55\x00\x00",
		"identity, as long as ours": "\x01\x71\x00\x20" + digest + "\xa0",
		"large":                     "\x01\x55\x12\x20" + digest + strings.Repeat("x", 2<<20),
	} {
		sections[form] = append(binary.AppendUvarint(nil, uint64(len(content))), content...)
	}
	return sections
}

// TestReadCARForeignBlocks puts blocks that nothing names into the CAR of a repository: it stays the same.
func TestReadCARForeignBlocks(t *testing.T) {
	t.Parallel()
	w := newWorld(30, 7)
	var sections [][]byte
	car := carHeader(w.commit().cid)
	header := len(car)
	for _, b := range w.blocks(0) {
		sections = append(sections, appendSection(nil, b))
	}
	size := header + len(slices.Concat(sections...))
	for form, foreign := range foreignSections() {
		for name, options := range storages() {
			t.Run(form+", "+name, func(t *testing.T) {
				t.Parallel()
				for _, at := range []int{0, 1, len(sections) / 2, len(sections)} {
					body := slices.Concat(slices.Insert(slices.Clone(sections), at, foreign)...)
					c := mustRead(t, append(slices.Clone(car), body...), options())
					if c.Root() != w.commit().cid || c.Blocks() != len(sections) || c.Bytes() != int64(size+len(foreign)) {
						t.Fatalf("at %d: root %s, %d blocks, %d bytes", at, c.Root(), c.Blocks(), c.Bytes())
					}
					checkWorld(t, c, w)
				}
			})
		}
	}
}

// TestSliceForeignBlocks does so to the CAR of a message.
func TestSliceForeignBlocks(t *testing.T) {
	t.Parallel()
	a, b := newBlock([]byte("a block")), newBlock([]byte("another"))
	sections := [][]byte{appendSection(nil, a), appendSection(nil, b)}
	var s repo.Slice
	check := func(why string, between []byte) {
		t.Helper()
		for at := range len(sections) + 1 {
			body := slices.Concat(slices.Insert(slices.Clone(sections), at, between)...)
			if err := s.Read(append(carHeader(a.cid), body...)); err != nil {
				t.Errorf("%s, at %d: %v", why, at, err)
			}
			for _, want := range []block{a, b} {
				if got, ok := s.Block(want.cid); !ok || string(got) != string(want.data) || s.Root() != a.cid {
					t.Errorf("%s, at %d: block %s is %q, %v", why, at, want.cid, got, ok)
				}
			}
		}
	}
	for form, foreign := range foreignSections() {
		if len(foreign) < 2_000_000 {
			check(form, foreign)
		}
	}
	check("more than a message may have blocks", slices.Repeat(foreignSections()["identity"], 10_000))
}
