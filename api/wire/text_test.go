package wire_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"cistern/api/wire"
)

func FuzzString(f *testing.F) {
	for _, s := range []string{"", "plain", "quote\"", "\\", "\x00\x1f\x7f", "é€😀", "\xff", "a\xc3", "\u2028"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var back string
		out := wire.AppendString([]byte("x"), s)
		if err := json.Unmarshal(out[1:], &back); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && back != s || len([]rune(back)) != len([]rune(s)) {
			t.Fatalf("%q came back as %q, want %q", s, back, want)
		}
	})
}
