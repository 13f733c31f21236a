package links_test

import (
	"strings"
	"testing"

	"cistern/links"
)

func TestNormalise(t *testing.T) {
	t.Parallel()
	tests := []struct{ why, in, want string }{
		{"at-uri of a record", "at://did:plc:abc/app.bsky.feed.post/3k", "at://did:plc:abc/app.bsky.feed.post/3k"},
		{"at-uri of a repository", "at://did:plc:abc", "at://did:plc:abc"},
		{"its scheme is not case-sensitive", "AT://did:plc:abc", "at://did:plc:abc"},
		{"a handle stays as it is", "at://Alice.Example/x", "at://Alice.Example/x"},
		{"escaped letters are unescaped", "at://did:plc:abc/%63/%7e", "at://did:plc:abc/c/~"},
		{"other escapes get upper case", "at://did:web:localhost%3a80/x%2fy", "at://did:web:localhost%3A80/x%2Fy"},
		{"dot segments of an at-uri stay", "at://did:plc:abc/./x/..", "at://did:plc:abc/./x/.."},
		{"query and fragment stay", "at://did:plc:abc/x?a=b#c", "at://did:plc:abc/x?a=b#c"},
		{"no authority: another URI", "at:///x/../y", "at:///y"},
		{"a user: another URI", "at://a@B/x", "at://a@b/x"},

		{"DID", "did:plc:abc", "did:plc:abc"},
		{"DIDs do not change", "did:web:localhost%3a80", "did:web:localhost%3a80"},
		{"a DID with a fragment is another URI", "did:plc:abc#atproto", "did:plc:abc#atproto"},
		{"a DID is lower-case, else another URI", "DID:plc:abc", "did:plc:abc"},
		{"a DID does not end with a colon", "did:plc:abc:", "did:plc:abc:"},

		{"scheme and host", "HTTPS://User@Example.COM:443/Path?Q#F", "https://User@example.com:443/Path?Q#F"},
		{"escapes in a host", "http://a%42%c3%a9.example", "http://ab%C3%A9.example"},
		{"dot segments (RFC 3986, 5.2.4)", "http://h/a/b/c/./../../g", "http://h/a/g"},
		{"escaped dot segments", "http://h/a/%2e%2E/b", "http://h/b"},
		{"dot segments above the root", "http://h/../../g", "http://h/g"},
		{"a dot segment at the end", "http://h/a/b/..", "http://h/a/"},
		{"a single dot at the end", "http://h/a/.", "http://h/a/"},
		{"dots in names are no segments", "http://h/.a/..b/c.", "http://h/.a/..b/c."},
		{"empty segments stay", "http://h//a//../b", "http://h//a/b"},
		{"no path is another target than the root", "https://example.com", "https://example.com"},
		{"no authority", "mailto:A@Example.com", "mailto:A@Example.com"},
		{"no hierarchy: dots stay", "urn:a/../b", "urn:a/../b"},
		{"a path never becomes an authority", "x:/a/..//b", "x:/.//b"},
		{"an empty host", "file:///etc/../x", "file:///x"},
		{"IPv6", "http://[2001:DB8::1]:80/", "http://[2001:db8::1]:80/"},
		{"an address of a later version", "http://[v1.A:b]/", "http://[v1.a:b]/"},
		{"a scheme with digits and signs", "web+AP2.x-y:z", "web+ap2.x-y:z"},
		{"nothing behind the scheme", "x:", "x:"},
	}
	for _, tt := range tests {
		got, ok := links.Normalise(tt.in)
		if !ok || got != tt.want {
			t.Errorf("%s: %q becomes %q, %v; want %q", tt.why, tt.in, got, ok, tt.want)
		}
		if again, ok := links.Normalise(got); !ok || again != got {
			t.Errorf("%s: %q becomes %q, %v: not normal", tt.why, got, again, ok)
		}
	}
}

func TestNormaliseRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ why, in string }{
		{"empty", ""},
		{"a handle", "alice.example"},
		{"a relative reference", "/path"},
		{"a time", "2026-12-01T11:00:00.000Z"},
		{"prose", "Note: this is no URI"},
		{"no scheme", ":x"},
		{"a scheme begins with a letter", "1x:y"},
		{"a space", "https://example.com/a b"},
		{"a letter beyond ASCII", "https://example.com/é"},
		{"a host beyond ASCII", "https://é.example/"},
		{"an at-uri beyond ASCII", "at://did:plc:abc/é"},
		{"half of an escape", "https://example.com/%4"},
		{"no escape", "https://example.com/%zz"},
		{"two fragments", "https://example.com/#a#b"},
		{"two users", "https://a@b@c/"},
		{"a port of letters", "https://example.com:x/"},
		{"a bracket in a path", "https://example.com/[1]"},
		{"an open bracket", "http://[::1/"},
		{"a zone", "http://[fe80::1%25eth0]/"},
		{"no address", "http://[12]/"},
		{"no version", "http://[v.a]/"},
		{"control byte", "https://example.com/\x00"},
		{"8,193 bytes", "https://example.com/" + strings.Repeat("a", 8173)},
		{"an at-uri of 8,193 bytes", "at://did:plc:abc/" + strings.Repeat("a", 8176)},
	}
	for _, tt := range tests {
		if got, ok := links.Normalise(tt.in); ok {
			t.Errorf("%s: %q becomes %q", tt.why, tt.in, got)
		}
	}
	longest := "https://example.com/" + strings.Repeat("a", 8172)
	if got, ok := links.Normalise(longest); !ok || got != longest {
		t.Error("a URI of 8,192 bytes is refused")
	}
}

func FuzzNormalise(f *testing.F) {
	for _, s := range []string{"at://did:plc:abc/%63", "did:web:a%3a8", "HTTP://u@H:1/a/../%2e/b?q#f", "x:/.//b", "http://[::1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, ok := links.Normalise(in)
		if !ok {
			return
		}
		again, ok := links.Normalise(got)
		if !ok || again != got || len(got) > len(in) {
			t.Fatalf("%q becomes %q, and that %q, %v", in, got, again, ok)
		}
		for _, b := range []byte(got) {
			if b <= ' ' || b >= 0x7f {
				t.Fatalf("%q has byte %#x", got, b)
			}
		}
	})
}
