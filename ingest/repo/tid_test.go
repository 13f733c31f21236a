package repo_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"cistern/ingest/repo"
)

// checkTID compares with indigo.
func checkTID(t *testing.T, s string) {
	t.Helper()
	want, wantErr := syntax.ParseTID(s)
	got, err := repo.ParseTID(s)
	if (err == nil) != (wantErr == nil) || err != nil && !errors.Is(err, repo.ErrInvalid) {
		t.Fatalf("ParseTID(%q): %v, indigo %v", s, err, wantErr)
	}
	if err != nil {
		if !repo.TIDTime(s).IsZero() {
			t.Fatalf("TIDTime(%q) is %v", s, repo.TIDTime(s))
		}
		return
	}
	if got != want.Integer() || !repo.TIDTime(s).Equal(want.Time()) {
		t.Fatalf("%q: %d at %v, indigo %d at %v", s, got, repo.TIDTime(s), want.Integer(), want.Time())
	}
}

var tids = []string{
	"3jzfcijpj2z2a", "2222222222222", "jzzzzzzzzzzzz", // usual, least, greatest
	"kzzzzzzzzzzzz", "zzzzzzzzzzzzz", // more than 63 bits
	"", "3jzfcijpj2z2", "3jzfcijpj2z2aa", "3JZFCIJPJ2Z2A", "3jzf-cij-pj2z-2a", "1jzfcijpj2z2a", "0000000000000", "3jzfcijpj2z2é",
	syntax.NewTIDFromTime(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), 7).String(),
}

func TestTID(t *testing.T) {
	t.Parallel()
	for _, s := range tids {
		checkTID(t, s)
	}
}

func TestTIDFixtures(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"tid_syntax_valid", "tid_syntax_invalid"} {
		for line := range strings.Lines(string(fixture(t, "interop/syntax/"+file+".txt"))) {
			s := strings.TrimRight(line, "\n")
			if s == "" || s[0] == '#' {
				continue
			}
			if _, err := repo.ParseTID(s); (err == nil) != strings.HasSuffix(file, "_valid") {
				t.Errorf("%s: ParseTID(%q): %v", file, s, err)
			}
			checkTID(t, s)
		}
	}
}

func FuzzTID(f *testing.F) {
	for _, s := range tids {
		f.Add(s)
	}
	f.Fuzz(checkTID)
}
