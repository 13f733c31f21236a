package recordjson_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"

	"cistern/ingest/repo"
	"cistern/ingest/repo/recordjson"
)

// decodeJSON decodes with numbers as they are written.
func decodeJSON(t testing.TB, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	if d.More() {
		t.Fatalf("more than one value: %s", b)
	}
	return v
}

// atdataJSON is indigo's way from DAG-CBOR to JSON.
func atdataJSON(block []byte) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	v, err := atdata.UnmarshalCBOR(block)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// fixture is a file of the interop tests, which are not part of this project.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("CISTERN_FIXTURES")
	if dir == "" {
		dir = "../../../../shared"
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Skipf("fixture absent, set CISTERN_FIXTURES: %v", err)
	}
	return b
}

func TestAppendFixtures(t *testing.T) {
	t.Parallel()
	var cases []struct {
		JSON json.RawMessage
		CBOR string `json:"cbor_base64"`
		CID  string
	}
	if err := json.Unmarshal(fixture(t, "interop/data-model/data-model-fixtures.json"), &cases); err != nil {
		t.Fatal(err)
	}
	for _, f := range cases {
		block, err := base64.RawStdEncoding.DecodeString(f.CBOR)
		if err != nil {
			t.Fatal(err)
		}
		if got := repo.HashCID(block).String(); got != f.CID {
			t.Errorf("CID %s, want %s", got, f.CID)
		}
		got, err := recordjson.Append(nil, block)
		if err != nil || !reflect.DeepEqual(decodeJSON(t, got), decodeJSON(t, f.JSON)) {
			t.Errorf("%s, %v; want %s", got, err, f.JSON)
		}
	}
}

// Every record of a real repository has a JSON form.
func TestAppendCorpus(t *testing.T) {
	t.Parallel()
	c, err := repo.ReadCAR(bytes.NewReader(fixture(t, "corpus/repo.car")), repo.CAROptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	b, ok, err := c.Block(c.Root())
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	commit, err := repo.ParseCommit(b)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = c.Walk(commit.Data, func(l repo.Leaf) error {
		n++
		if _, err := recordjson.Append(nil, l.Record); err != nil {
			t.Errorf("record %q: %v", l.Key, err)
		}
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("%d records: %v", n, err)
	}
}

// cborLink appends a link.
func cborLink(dst []byte, c repo.CID) []byte {
	return c.AppendBytes(append(dst, 0xd8, 0x2a, 0x58, 0x25, 0x00))
}

// cborHead appends a head.
func cborHead(dst []byte, major byte, n uint64) []byte {
	head, err := cbor.Marshal(n)
	if err != nil {
		panic(err)
	}
	head[0] |= major << 5
	return append(dst, head...)
}

// cborText appends a string.
func cborText(dst []byte, s string) []byte { return append(cborHead(dst, 3, uint64(len(s))), s...) }

// one wraps a value into a record with one field.
func one(value string) string { return "\xa1\x61a" + value }

func TestAppend(t *testing.T) {
	t.Parallel()
	raw := "\x01\x55\x12\x20" + strings.Repeat("\x07", 32)
	v0 := "\x12\x20" + strings.Repeat("\x07", 32)
	tests := map[string]struct{ in, want string }{
		"empty record":                      {"\xa0", `{}`},
		"simple values":                     {one("\x83\xf4\xf5\xf6"), `{"a":[false,true,null]}`},
		"small integers":                    {one("\x82\x17\x18\x18"), `{"a":[23,24]}`},
		"greatest and least integer":        {one("\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x3b\x7f\xff\xff\xff\xff\xff\xff\xff"), `{"a":[9223372036854775807,-9223372036854775808]}`},
		"minus one":                         {one("\x20"), `{"a":-1}`},
		"bytes":                             {one("\x44\xfb\xff\x00\x01"), `{"a":{"$bytes":"+/8AAQ"}}`},
		"no bytes":                          {one("\x40"), `{"a":{"$bytes":""}}`},
		"link to a record":                  {one(string(cborLink(nil, repo.CID{}))), `{"a":{"$link":"` + repo.CID{}.String() + `"}}`},
		"link to a blob, raw":               {one("\xd8\x2a\x58\x25\x00" + raw), `{"a":{"$link":"` + cid.MustParse([]byte(raw)).String() + `"}}`},
		"link with a CID of version 0":      {one("\xd8\x2a\x58\x23\x00" + v0), `{"a":{"$link":"` + cid.MustParse([]byte(v0)).String() + `"}}`},
		"escapes":                           {one("\x67\"\\\n\r\t\x01\x1f"), `{"a":"\"\\\n\r\t\u0001\u001f"}`},
		"what HTML would want escaped":      {one("\x65<&>\x7f/"), `{"a":"<&>` + "\x7f" + `/"}`},
		"line separators and emoji":         {one("\x6a\u2028\u2029😀"), `{"a":"` + "\u2028\u2029😀" + `"}`},
		"key that needs escapes":            {"\xa1\x63\"\n\x00\x01", `{"\"\n\u0000":1}`},
		"empty key":                         {"\xa1\x60\x01", `{"":1}`},
		"keys stay in order":                {"\xa3\x61b\x01\x61c\x02\x62aa\x03", `{"b":1,"c":2,"aa":3}`},
		"keys out of order are kept so":     {"\xa3\x62aa\x01\x61c\x02\x61b\x03", `{"aa":1,"c":2,"b":3}`},
		"map that imitates a link":          {one("\xa1\x65$link\x61x"), `{"a":{"$link":"x"}}`},
		"$type of another type than text":   {"\xa1\x65$type\x01", `{"$type":1}`},
		"blob with a field too few":         {one("\xa1\x65$type\x64blob"), `{"a":{"$type":"blob"}}`},
		"empty list and map within":         {one("\x82\x80\xa0"), `{"a":[[],{}]}`},
		"as deep as nesting may go":         {one(strings.Repeat("\x81", 126) + "\x80"), `{"a":` + strings.Repeat("[", 127) + strings.Repeat("]", 127) + `}`},
		"map of 64 with keys out of order":  {unsortedMap(64), unsortedMapJSON(64)},
		"$bytes within imitates no padding": {one("\xa1\x66$bytes\x64AA=="), `{"a":{"$bytes":"AA=="}}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := recordjson.Append([]byte("before"), []byte(test.in))
			if err != nil || string(got) != "before"+test.want {
				t.Fatalf("%s, %v; want %s", got, err, test.want)
			}
			decodeJSON(t, got[len("before"):])
		})
	}
}

// TestAppendEscapes: each ASCII character at each place of a string, among letters that are not escaped.
func TestAppendEscapes(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 20; n++ {
		for at := range n {
			for b := range byte(utf8.RuneSelf) {
				text := bytes.Repeat([]byte("~"), n)
				text[at] = b
				got, err := recordjson.Append(nil, cborText([]byte("\xa1\x61a"), string(text)))
				if err != nil {
					t.Fatalf("%q: %v", text, err)
				}
				var back struct{ A string }
				if err := json.Unmarshal(got, &back); err != nil || back.A != string(text) {
					t.Fatalf("%q becomes %s, %v", text, got, err)
				}
			}
		}
	}
}

// unsortedMap has n keys of two letters, the first two swapped.
func unsortedMap(n int) string {
	out := cborHead(nil, 5, uint64(n))
	for i := range n {
		out = append(cborText(out, unsortedKey(i)), 0)
	}
	return string(out)
}

func unsortedMapJSON(n int) string {
	var fields []string
	for i := range n {
		fields = append(fields, `"`+unsortedKey(i)+`":0`)
	}
	return "{" + strings.Join(fields, ",") + "}"
}

func unsortedKey(i int) string {
	if i < 2 {
		i = 1 - i
	}
	return string([]byte{'a' + byte(i/26), 'a' + byte(i%26)})
}

func TestAppendInvalid(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"nothing":                              "",
		"a value that is no map":               "\x80",
		"text at the top":                      "\x61a",
		"bytes after the record":               "\xa0\x00",
		"float of 16 bits, though integral":    one("\xf9\x3c\x00"),
		"float of 32 bits":                     one("\xfa\x3f\x80\x00\x00"),
		"float of 64 bits":                     one("\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
		"not a number":                         one("\xf9\x7e\x00"),
		"undefined":                            one("\xf7"),
		"simple value 32":                      one("\xf8\x20"),
		"break without a beginning":            one("\xff"),
		"list of indefinite length":            one("\x9f\xff"),
		"map of indefinite length":             one("\xbf\xff"),
		"text of indefinite length":            one("\x7f\xff"),
		"bytes of indefinite length":           one("\x5f\xff"),
		"23 in two bytes":                      one("\x18\x17"),
		"255 in three bytes":                   one("\x19\x00\xff"),
		"65535 in five bytes":                  one("\x1a\x00\x00\xff\xff"),
		"2^32-1 in nine bytes":                 one("\x1b\x00\x00\x00\x00\xff\xff\xff\xff"),
		"reserved head":                        one("\x1c"),
		"text length in two bytes":             one("\x78\x01a"),
		"2^63":                                 one("\x1b\x80\x00\x00\x00\x00\x00\x00\x00"),
		"-2^63-1":                              one("\x3b\x80\x00\x00\x00\x00\x00\x00\x00"),
		"tag 0, a date":                        one("\xc0\x61a"),
		"tag 2, a big number":                  one("\xc2\x41\x01"),
		"link that is text":                    one("\xd8\x2a\x61a"),
		"link of no bytes":                     one("\xd8\x2a\x40"),
		"link without the zero byte":           one("\xd8\x2a\x58\x24\x01\x71\x12\x20" + strings.Repeat("\x07", 32)),
		"link with a short digest":             one("\xd8\x2a\x58\x24\x00\x01\x71\x12\x20" + strings.Repeat("\x07", 31)),
		"link with a byte too many":            one("\xd8\x2a\x58\x26\x00\x01\x71\x12\x20" + strings.Repeat("\x07", 33)),
		"link of 101 bytes":                    one("\xd8\x2a\x58\x66\x00" + "\x01\x55\x00\x61" + strings.Repeat("\x07", 97)),
		"integer as a key":                     "\xa1\x01\x01",
		"bytes as a key":                       "\xa1\x41a\x01",
		"key without a value":                  "\xa1\x61a",
		"key twice, one after the other":       "\xa2\x61a\x01\x61a\x02",
		"key twice, apart":                     "\xa3\x61a\x01\x61b\x02\x61a\x02",
		"key twice behind one out of order":    "\xa4\x61b\x01\x61a\x02\x61c\x03\x61b\x04",
		"map of 65 with keys out of order":     "\xb8\x41" + sortedThenOne(64),
		"invalid UTF-8":                        one("\x61\xff"),
		"half of a character":                  one("\x62\xe2\x82"),
		"surrogate":                            one("\x63\xed\xa0\x80"),
		"overlong slash":                       one("\x62\xc0\xaf"),
		"invalid UTF-8 in a key":               "\xa1\x61\xff\x01",
		"text longer than the record":          one("\x7b\x7f\xff\xff\xff\xff\xff\xff\xff"),
		"bytes longer than the record":         one("\x5b\xff\xff\xff\xff\xff\xff\xff\xff"),
		"list longer than the record":          one("\x9b\xff\xff\xff\xff\xff\xff\xff\xff"),
		"map longer than the record":           "\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
		"lists nested one too deep":            one(strings.Repeat("\x81", 127) + "\x80"),
		"maps nested without end":              strings.Repeat("\xa1\x60", 100_000),
		"more than 1 MiB, though nothing else": one("\x5a\x00\x10\x00\x00" + strings.Repeat("a", 1<<20)),
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := recordjson.Append([]byte("before"), []byte(in))
			var why *recordjson.Error
			if !errors.Is(err, repo.ErrInvalid) || !errors.As(err, &why) || why.Reason() == "" || string(got) != "before" {
				t.Fatalf("%.100s, %v", got, err)
			}
		})
	}
}

// sortedThenOne is n keys in order and one that should have come first.
func sortedThenOne(n int) string {
	var out []byte
	for i := range n {
		out = append(cborText(out, string([]byte{'b' + byte(i/26), 'a' + byte(i%26)})), 0)
	}
	return string(append(cborText(out, "aa"), 0))
}

func TestAppendCut(t *testing.T) {
	t.Parallel()
	block := sampleRecord()
	for cut := range len(block) {
		if _, err := recordjson.Append(nil, block[:cut]); !errors.Is(err, repo.ErrInvalid) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
}

func TestAppendAllocates(t *testing.T) {
	block, dst := sampleRecord(), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := recordjson.Append(dst, block); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// sampleRecord is a post of about 300 bytes with a link, as most records are.
func sampleRecord() []byte {
	b := cborText([]byte{0xa5}, "text")
	b = cborText(b, "The quick brown fox — \"jumps\" over the lazy dog, and then some more of it 🦊")
	b = cborText(cborText(b, "$type"), "app.bsky.feed.post")
	b = cborText(b, "langs")
	b = cborText(append(b, 0x81), "en")
	b = cborText(append(cborText(b, "reply"), 0xa2), "root")
	b = cborText(append(b, 0xa2), "cid")
	b = cborText(b, repo.HashCID([]byte("root")).String())
	b = cborText(cborText(b, "uri"), "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3jzfcijpj2z2a")
	b = cborLink(cborText(b, "parent"), repo.HashCID([]byte("parent")))
	return cborText(cborText(b, "createdAt"), "2026-01-02T03:04:05.678Z")
}

// stricter are the words of the errors for what atdata accepts and Append refuses on purpose.
var stricter = []string{
	"is not a map",      // atdata reads null, alone, as an empty map
	"integer exceeds",   // atdata wraps negative ones around
	"float",             // atdata takes integral ones; the data model has none
	"not UTF-8",         // atdata's JSON replaces what is invalid
	"shortest form",     // DAG-CBOR has one form; indefinite lengths as well
	"stands twice",      // atdata takes the last
	"out of order",      // in large maps only
	"nested more",       // atdata has no limit
	"holds no CID",      // CIDs of more than 100 bytes
	"after the record",  // atdata does not look there
	"tag is not a link", // atdata ignores other tags
	"key is not text",   // the same before a key
}

// laxer are the words of atdata's errors for what Append accepts on purpose.
var laxer = []string{
	"nil $bytes", // atdata cannot write bytes of length 0
}

// imitates reports whether the record holds a map that atdata takes for a link, bytes or a blob,
// and writes in its own form or refuses.
func imitates(t *testing.T, block []byte) bool {
	t.Helper()
	mode, err := cbor.DecOptions{MaxNestedLevels: 200}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := mode.Unmarshal(block, &v); err != nil {
		t.Fatalf("%v in %x", err, block)
	}
	return imitation(v)
}

func imitation(v any) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, imitation)
	case map[any]any:
		for _, k := range []string{"$link", "$bytes", "$type", "cid"} {
			if _, ok := v[k]; ok && k != "$type" || ok && !plainType(v[k]) {
				return true
			}
		}
		for _, e := range v {
			if imitation(e) {
				return true
			}
		}
	}
	return false
}

// plainType reports whether a $type names a type that atdata does not look into.
func plainType(v any) bool {
	s, ok := v.(string)
	return ok && s != "" && s != "blob"
}

func FuzzAppend(f *testing.F) {
	f.Add(sampleRecord())
	f.Add([]byte(unsortedMap(30)))
	f.Add([]byte(one("\x83\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x44\xfb\xff\x00\x01\xd8\x2a\x58\x23\x00\x12\x20" + strings.Repeat("\x07", 32))))
	f.Add([]byte(one("\xa4\x63ref" + string(cborLink(nil, repo.CID{1})) + "\x64size\x01\x65$type\x64blob\x68mimeType\x69image/png")))
	f.Add([]byte(one("\xf9\x3c\x00")))
	f.Fuzz(func(t *testing.T, block []byte) {
		got, err := recordjson.Append(nil, block)
		want, wantErr := atdataJSON(block)
		if err != nil {
			deliberate := slices.ContainsFunc(stricter, func(s string) bool { return strings.Contains(err.Error(), s) })
			if !errors.Is(err, repo.ErrInvalid) || wantErr == nil && !deliberate {
				t.Fatalf("refused: %v; atdata has %s", err, want)
			}
			return
		}
		v := decodeJSON(t, got)
		if imitates(t, block) {
			return
		}
		if wantErr != nil {
			if slices.ContainsFunc(laxer, func(s string) bool { return strings.Contains(wantErr.Error(), s) }) {
				return
			}
			t.Fatalf("%s; atdata refuses: %v", got, wantErr)
		}
		if !reflect.DeepEqual(v, decodeJSON(t, want)) {
			t.Fatalf("%s; atdata has %s", got, want)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	block, dst := sampleRecord(), make([]byte, 0, 4096)
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := recordjson.Append(dst, block); err != nil {
			b.Fatal(err)
		}
	}
}
