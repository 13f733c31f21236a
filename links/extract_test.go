package links_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"

	"cistern/ingest/repo"
	"cistern/ingest/repo/recordjson"
	"cistern/links"
)

// record encodes a record that is written as JSON.
func record(t testing.TB, text string) []byte {
	t.Helper()
	v, err := atdata.UnmarshalJSON([]byte(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	b, err := atdata.MarshalCBOR(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	like = `{"$type":"app.bsky.feed.like","createdAt":"2026-12-01T11:00:00.000Z","subject":{
		"uri":"at://did:plc:bob/app.bsky.feed.post/3k","cid":"bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"}}`
	post = `{"$type":"app.bsky.feed.post","createdAt":"2026-12-01T11:00:00.000Z","langs":["en"],
		"text":"Look: @bob has https://example.com",
		"facets":[
			{"index":{"byteStart":6,"byteEnd":10},
				"features":[{"$type":"app.bsky.richtext.facet#mention","did":"did:plc:bob"}]},
			{"$type":"app.bsky.richtext.facet","index":{"byteStart":15,"byteEnd":34},
				"features":[{"$type":"app.bsky.richtext.facet#link","uri":"HTTPS://Example.com"}]}],
		"reply":{"root":{"uri":"at://did:plc:bob/app.bsky.feed.post/1"},
			"parent":{"uri":"at://did:plc:eve/app.bsky.feed.post/2"}}}`
	plain = `{"$type":"app.bsky.feed.post","createdAt":"2026-12-01T11:00:00.000Z","langs":["en"],
		"text":"A post of some words, which links to nothing: most posts do so."}`
)

func TestExtract(t *testing.T) {
	t.Parallel()
	tests := []struct {
		why, record string
		want        []string // path and target, in the order of the record
	}{
		{"an object with a subject", like, []string{".subject.uri at://did:plc:bob/app.bsky.feed.post/3k"}},
		{"a subject that is a text", `{"subject":"did:plc:bob"}`, []string{".subject did:plc:bob"}},
		{"elements with and without $type, texts before and behind it", post, []string{
			".reply.root.uri at://did:plc:bob/app.bsky.feed.post/1",
			".reply.parent.uri at://did:plc:eve/app.bsky.feed.post/2",
			".facets[].features[app.bsky.richtext.facet#mention].did did:plc:bob",
			".facets[app.bsky.richtext.facet].features[app.bsky.richtext.facet#link].uri https://example.com",
		}},
		{"no link", plain, nil},
		{"an empty record", `{}`, nil},
		{"texts in arrays, and arrays in arrays", `{"a":["x:1",["x:2",[{"b":"x:3"}]]]}`,
			[]string{".a[] x:1", ".a[][] x:2", ".a[][][].b x:3"}},
		{"the $type of a map outside of arrays is in no path", `{"a":{"$type":"t","b":"x:1"}}`, []string{".a.b x:1"}},
		{"a $type that is a target", `{"a":[{"$type":"x:t","b":"y:1"}]}`, []string{".a[x:t].b y:1", ".a[x:t].$type x:t"}},
		{"the $type of a map within is not that of the element", `{"a":[{"m":{"$type":"t"},"b":"x:1"}]}`,
			[]string{".a[].b x:1"}},
		{"keys with dots are not escaped", `{"a.b":{"c":"x:1"}}`, []string{".a.b.c x:1"}},
		{"an empty key", `{"":"x:1"}`, []string{". x:1"}},
		{"equal links stay two", `{"a":["x:1","x:1"]}`, []string{".a[] x:1", ".a[] x:1"}},
		{"CIDs and blobs are no links", `{"a":{"$link":"bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"},
			"b":{"$bytes":"eDox"}}`, nil},
	}
	for _, tt := range tests {
		got, err := links.Extract(nil, record(t, tt.record))
		if err != nil {
			t.Errorf("%s: %v", tt.why, err)
		}
		lines := lines(got)
		slices.Sort(lines)
		slices.Sort(tt.want)
		if !slices.Equal(lines, tt.want) {
			t.Errorf("%s:\n got %q\nwant %q", tt.why, lines, tt.want)
		}
	}
}

func lines(found []links.Link) []string {
	var lines []string
	for _, l := range found {
		lines = append(lines, l.Path+" "+l.Target)
	}
	return lines
}

// The links of a record come in the order of its bytes, behind those that dst has.
func TestExtractOrder(t *testing.T) {
	t.Parallel()
	dst := []links.Link{{Path: ".first", Target: "x:0"}}
	got, err := links.Extract(dst, record(t, `{"b":"x:2","a":"x:1","ab":"x:3"}`))
	want := []string{".first x:0", ".a x:1", ".b x:2", ".ab x:3"}
	if err != nil || !slices.Equal(lines(got), want) {
		t.Errorf("%q, %v; want %q", lines(got), err, want)
	}
}

// text is a text of CBOR.
func text(s string) string {
	switch n := len(s); {
	case n < 24:
		return string([]byte{0x60 | byte(n)}) + s
	case n < 256:
		return string([]byte{0x78, byte(n)}) + s
	default:
		return string([]byte{0x79, byte(n >> 8), byte(n)}) + s
	}
}

func TestExtractLimits(t *testing.T) {
	t.Parallel()
	key := func(n int) string { return text(strings.Repeat("k", n)) }
	nested := func(n int) string { return "\xa1\x61a" + strings.Repeat("\x81", n) + text("x:1") }
	many := func(head string, n int) string { return "\xa1\x61a" + head + strings.Repeat(text("x:1"), n) }
	tests := []struct {
		why, record string
		links       int // -1: invalid
	}{
		{"a path of 1,024 bytes", "\xa1" + key(1023) + text("x:1"), 1},
		{"a path of 1,025 bytes has no link", "\xa1" + key(1024) + text("x:1"), 0},
		{"a target of 8,193 bytes is no link", "\xa1\x61a" + text("x:"+strings.Repeat("a", 8191)), 0},
		{"nesting of 128", nested(127), 1},
		{"nesting of 129", nested(128), -1},
		{"16,384 links", many("\x99\x40\x00", 16384), 16384},
		{"16,385 links", many("\x99\x40\x01", 16385), -1},
		{"a head that is not the shortest", many("\x9a\x00\x00\x40\x00", 16384), -1},
		{"1 MiB and a byte", "\xa1\x61a\x7a\x00\x0f\xff\xfa" + strings.Repeat("a", 1<<20-6), -1},
		{"no map", "\x61a", -1},
		{"no byte", "", -1},
		{"bytes after the record", "\xa0\xa0", -1},
		{"a key that is no text", "\xa1\x01\x01", -1},
		{"a key that is not UTF-8", "\xa1\x61\xff\x01", -1},
		{"a $type that is not UTF-8", "\xa1\x61a\x81\xa1" + text("$type") + "\x61\xff", -1},
		{"a float", "\xa1\x61a\xf9\x3c\x00", -1},
		{"undefined", "\xa1\x61a\xf7", -1},
		{"another tag than 42", "\xa1\x61a\xc1\x41a", -1},
		{"an array of 2^64-1 elements that has none", "\xa1\x61a\x9b" + strings.Repeat("\xff", 8), -1},
		{"cut off", "\xa2\x61a\x61x", -1},
	}
	for _, tt := range tests {
		dst := []links.Link{{Path: ".first"}}
		got, err := links.Extract(dst, []byte(tt.record))
		switch {
		case tt.links < 0 && (!errors.Is(err, repo.ErrInvalid) || len(got) != 1):
			t.Errorf("%s: %d links, %v; want ErrInvalid", tt.why, len(got)-1, err)
		case tt.links >= 0 && (err != nil || len(got)-1 != tt.links):
			t.Errorf("%s: %d links, %v; want %d", tt.why, len(got)-1, err, tt.links)
		}
	}
}

// The $type of each map stands behind the map within: "a" is a shorter key.
func TestExtractNested(t *testing.T) {
	t.Parallel()
	inner := `{"u":"x:1"}`
	for range 60 {
		inner = `{"a":[` + inner + `],"$type":"t"}`
	}
	got, err := links.Extract(nil, record(t, inner))
	if err != nil || len(got) != 1 || got[0].Path != strings.Repeat(".a[t]", 59)+".a[].u" {
		t.Errorf("%q, %v", lines(got), err)
	}
}

// naive finds the links in the JSON form of a record.
func naive(path string, v any) []string {
	var all []string
	switch v := v.(type) {
	case string:
		if target, ok := links.Normalise(v); ok && len(path) <= 1024 {
			all = append(all, path+" "+target)
		}
	case []any:
		for _, e := range v {
			element := ""
			if m, ok := e.(map[string]any); ok {
				element, _ = m["$type"].(string)
			}
			all = append(all, naive(fmt.Sprintf("%s[%s]", path, element), e)...)
		}
	case map[string]any:
		for k, e := range v {
			all = append(all, naive(path+"."+k, e)...)
		}
	}
	return all
}

// compare wants of Extract what naive finds in a record that has a JSON form.
func compare(t *testing.T, block []byte) int {
	t.Helper()
	got, err := links.Extract(nil, block)
	text, jsonErr := recordjson.Append(nil, block)
	if jsonErr != nil {
		return len(got)
	}
	if err != nil && strings.Contains(err.Error(), "more than 16,384 links") {
		return 0
	}
	if err != nil {
		t.Fatalf("%v; JSON %s", err, text)
	}
	var v any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	have, want := lines(got), naive("", v)
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Fatalf("got %q\nwant %q\nof %s", have, want, text)
	}
	return len(got)
}

// Every record of a real repository.
func TestExtractCorpus(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("CISTERN_FIXTURES")
	if dir == "" {
		dir = "../../shared"
	}
	b, err := os.ReadFile(filepath.Join(dir, "corpus/repo.car"))
	if err != nil {
		t.Skipf("fixture absent, set CISTERN_FIXTURES: %v", err)
	}
	c, err := repo.ReadCAR(bytes.NewReader(b), repo.CAROptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	root, ok, err := c.Block(c.Root())
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	commit, err := repo.ParseCommit(root)
	if err != nil {
		t.Fatal(err)
	}
	records, found := 0, 0
	err = c.Walk(commit.Data, func(l repo.Leaf) error {
		records++
		found += compare(t, l.Record)
		return nil
	})
	if err != nil || records == 0 || found == 0 {
		t.Errorf("%d records, %d links: %v", records, found, err)
	}
	t.Logf("%d records, %d links", records, found)
}

func FuzzExtract(f *testing.F) {
	for _, text := range []string{like, post, plain, `{"a":[{"b":["x:1",{"$type":"t","c":"did:plc:a"}]}]}`} {
		f.Add(record(f, text))
	}
	f.Add([]byte("\xa1\x61a\xf9\x3c\x00"))
	f.Add([]byte("\xa1\x61a\x82\xa1\x65$type\x01\xa2\x61b\x63x:1\x65$type\x61t"))
	f.Fuzz(func(t *testing.T, block []byte) { compare(t, block) })
}

// BenchmarkExtract takes one record an iteration.
func BenchmarkExtract(b *testing.B) {
	for name, text := range map[string]string{"like": like, "post": post, "plain": plain} {
		b.Run(name, func(b *testing.B) {
			block, dst := record(b, text), make([]links.Link, 0, 16)
			b.SetBytes(int64(len(block)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := links.Extract(dst, block); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
