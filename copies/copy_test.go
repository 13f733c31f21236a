package copies_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"cistern/copies"
)

// TestStatements: what a command states is checked (invariant 4).
func TestStatements(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		kind copies.Kind
		to   string
		want string // in the error; "": valid
	}{
		{"backup", "/mnt/backups", ""},
		{"export", "s3://bucket/a prefix/ü", ""},
		{"backup", "/mail@host/b", ""},
		{"backup", "s3://bucket/at@prefix", ""},
		{"backup", strings.Repeat("a", copies.DestinationMax), ""},
		{"backup", strings.Repeat("a", copies.DestinationMax+1), "1025 bytes: want at most 1024"},
		{"", "/b", `kind "": want backup or export`},
		{"restore", "/b", `kind "restore": want backup or export`},
		{"backup", "", "needs a destination"},
		{"backup", "s3://key:hunter22@bucket/b", "without credentials"},
		{"backup", "https://bucket?key=hunter22", "without credentials"},
		{"backup", "/b\n", "U+000A"},
		{"backup", "/b\x1b[2J", "U+001B"},
		{"backup", "/b\u202e", "U+202E"},
		{"backup", "/b\xff", "not UTF-8"},
	} {
		err := copies.Statement{Kind: row.kind, Destination: row.to}.Validate()
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q to %.60q: %v, want %q", row.kind, row.to, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter22") {
			t.Errorf("the error has the secret: %v", err)
		}
	}
}

// TestResultsAreChecked: a result that a command reports is whole and bounded (invariant 4).
func TestResultsAreChecked(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		result copies.Result
		want   string // in the error; "": valid
	}{
		{copies.Result{Complete: true}, ""},
		{copies.Result{Complete: true, Generation: "g", Bytes: 1 << 62, Error: "not deleted"}, ""},
		{copies.Result{Error: strings.Repeat("e", copies.ErrorMax)}, ""},
		{copies.Result{}, "needs an error"},
		{copies.Result{Error: "e", Generation: "g"}, "neither a generation nor bytes"},
		{copies.Result{Error: "e", Bytes: 1}, "neither a generation nor bytes"},
		{copies.Result{Complete: true, Bytes: -1}, "bytes -1"},
		{copies.Result{Complete: true, Generation: strings.Repeat("g", copies.GenerationMax+1)}, "generation has 129 bytes"},
		{copies.Result{Complete: true, Generation: "g\x00"}, "generation has the character U+0000"},
		{copies.Result{Error: strings.Repeat("e", copies.ErrorMax+1)}, "error has 1025 bytes"},
		{copies.Result{Error: "two\nlines"}, "error has the character U+000A"},
	} {
		err := row.result.Validate()
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+.60v: %v, want %q", row.result, err, row.want)
		}
	}
}

// FuzzLine: Line makes of any text one that a result may have.
func FuzzLine(f *testing.F) {
	for _, text := range []string{"", "a", "a\nb\r\nc", "\x1b[31m", "\xff\xfe", "a\u202eb", strings.Repeat("€", 400), strings.Repeat("€", 400) + "\n"} {
		f.Add(text, 64)
	}
	f.Fuzz(func(t *testing.T, text string, most int) {
		if most < 3 || most > copies.ErrorMax {
			return
		}
		line := copies.Line(text, most)
		if len(line) > most || !utf8.ValidString(line) {
			t.Fatalf("%q of at most %d bytes is %q", text, most, line)
		}
		if err := (copies.Result{Complete: true, Error: line}).Validate(); err != nil {
			t.Fatalf("%q is %q: %v", text, line, err)
		}
	})
}

// TestLine: the causes of an error are kept, and what is cut is shown.
func TestLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"no space":          "no space",
		"first\nsecond\n":   "first; second",
		"a\tb":              "a·b",
		"longer than it is": "longer tha…",
		"ääääääääää":        "äääää…",
	} {
		if got := copies.Line(text, 13); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
