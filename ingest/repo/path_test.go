package repo_test

import (
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"cistern/ingest/repo"
)

// checkPath compares with indigo.
func checkPath(t *testing.T, path string) {
	t.Helper()
	nsid, key, err := syntax.ParseRepoPath(path)
	if repo.ValidPath([]byte(path)) != (err == nil) {
		t.Fatalf("ValidPath(%q) is %v, indigo says %v", path, err != nil, err)
	}
	collection, rkey, ok := repo.SplitPath([]byte(path))
	if ok != (err == nil) || string(collection) != string(nsid) || string(rkey) != string(key) {
		t.Fatalf("SplitPath(%q) = %q, %q, %v; indigo has %q, %q", path, collection, rkey, ok, nsid, key)
	}
}

var paths = []string{
	"com.example.fooBar/self", // the usual form
	"", "/", "a", "a.b.c", "a.b.c/", "/self",
	"com.example/self",                                   // two segments
	"com.example.fooBar/self/", "com.example.fooBar/a/b", // two slashes
	"com.example.fooBar/.", "com.example.fooBar/..", "com.example.fooBar/...", // the two forbidden names
	"com.example.3bar/a", "3com.example.bar/a", "com.3example.bar/a", // digits first
	"com.ex-ample.bar/a", "com.-example.bar/a", "com.example-.bar/a", "com.example.b-r/a", // hyphens
	"com..bar/a", ".com.bar/a", "com.example./a", "com.example.bar./a", // empty segments
	"com.example.bar/_~.:-", "com.example.bar/@", "com.example.bar/%41", "com.example.bar/é", "com.example.bär/a",
	"com.example.bar/a\n", "com.example.bar\n/a", // what a regular expression's $ may let through
	"com.example.bar/" + strings.Repeat("k", 512), "com.example.bar/" + strings.Repeat("k", 513),
	"com." + strings.Repeat("a", 63) + ".bar/a", "com." + strings.Repeat("a", 64) + ".bar/a",
	"com.example." + strings.Repeat("a", 63) + "/a", "com.example." + strings.Repeat("a", 64) + "/a",
	strings.Repeat("a", 63) + ".a.bar/a", strings.Repeat("a", 64) + ".a.bar/a",
	"a." + strings.Repeat("abcdefg.", 39) + "bar/a",   // 317 bytes
	"a." + strings.Repeat("abcdefg.", 39) + "barr/a",  // 318
	"a." + strings.Repeat("abcdefg.", 31) + "barro/a", // a domain longer than DNS allows
}

func TestPath(t *testing.T) {
	t.Parallel()
	for _, p := range paths {
		checkPath(t, p)
	}
}

func TestPathFixtures(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"nsid_syntax_valid", "nsid_syntax_invalid", "recordkey_syntax_valid", "recordkey_syntax_invalid"} {
		for line := range strings.Lines(string(fixture(t, "interop/syntax/"+file+".txt"))) {
			s := strings.TrimRight(line, "\n")
			if s == "" || s[0] == '#' {
				continue
			}
			path := "com.example.fooBar/" + s
			if strings.HasPrefix(file, "nsid") {
				path = s + "/self"
			}
			if want := strings.HasSuffix(file, "_valid"); repo.ValidPath([]byte(path)) != want {
				t.Errorf("%s: ValidPath(%q) is %v", file, path, !want)
			}
			checkPath(t, path)
		}
	}
}

func FuzzValidPath(f *testing.F) {
	for _, p := range paths {
		f.Add(p)
	}
	f.Fuzz(checkPath)
}
