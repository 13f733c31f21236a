package identity_test

import (
	"net/url"
	"strings"
	"testing"

	"cistern/ingest/identity"
)

func TestParseOrigin(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		// One host, however it is written.
		"https://h":          "https://h",
		"wss://H:443":        "https://h",
		"h.":                 "https://h",
		"h":                  "https://h",
		"H:443":              "https://h",
		"HTTPS://h.:0443/":   "https://h",
		"wss://h":            "https://h",
		"ws://h:80":          "http://h",
		"http://h":           "http://h",
		"http://h:443":       "http://h:443", // the other scheme's port
		"h:80":               "https://h:80",
		"localhost:2583":     "https://localhost:2583",
		"pds.Example.com.:1": "https://pds.example.com:1",
		"my_host-1":          "https://my_host-1",
		"XN--BCHER-KVA.DE":   "https://xn--bcher-kva.de",
		"1e100.net":          "https://1e100.net",
		"0xh.example":        "https://0xh.example",
		// Addresses.
		"1.2.3.4":                  "https://1.2.3.4",
		"1.2.3.4.":                 "https://1.2.3.4",
		"http://[2001:DB8:0::1]":   "http://[2001:db8::1]",
		"2001:DB8:0::1":            "https://[2001:db8::1]",
		"[2001:db8::1]:443":        "https://[2001:db8::1]",
		"ws://[::1]:81":            "http://[::1]:81",
		"https://[::ffff:1.2.3.4]": "https://1.2.3.4", // the same machine
		"::ffff:102:304":           "https://1.2.3.4",
	} {
		got, err := identity.ParseOrigin(in)
		if err != nil || got != want {
			t.Errorf("ParseOrigin(%q) = %q, %v, want %q", in, got, err, want)
		}
		if host := strings.TrimPrefix(strings.TrimPrefix(want, "https://"), "http://"); identity.HostOf(got) != host {
			t.Errorf("HostOf(%q) = %q, want %q", got, identity.HostOf(got), host)
		}
	}
	if host := identity.HostOf("wss://relay.example:8443/base"); host != "relay.example:8443" {
		t.Errorf("HostOf with a path: %q", host)
	}
}

func TestParseOriginRefuses(t *testing.T) {
	t.Parallel()
	for in, word := range map[string]string{
		"":                                "host",
		"https://":                        "host",
		".":                               "host",
		"a..b":                            "host",
		".a":                              "host",
		"ftp://h":                         "http, https",
		"://h":                            "parse",
		"bücher.example":                  "letters", // many spellings of one name
		"h。example":                       "letters", // an ideographic full stop
		"a b":                             "parse",
		"a%2eb":                           "",
		"h:":                              "port",
		"h:0":                             "port",
		"h:65536":                         "port",
		"h:http":                          "parse",
		"https://me:secret@h":             "more than",
		"me@h":                            "more than",
		"h/path":                          "more than",
		"h//":                             "more than",
		"h?q":                             "more than",
		"h?":                              "more than",
		"h#f":                             "more than",
		"h#":                              "more than",
		"h\n":                             "parse",
		`h\x`:                             "parse",
		"127.1":                           "number", // resolvers read these as addresses
		"2130706433":                      "number",
		"0x7f000001":                      "number",
		"0x7f.1":                          "number",
		"0177.0.0.1":                      "number",
		"1.2.3.4.5":                       "number",
		"1.2.3.256":                       "number",
		"https://[1.2.3.4]":               "parse",
		"https://[fe80::1%25eth0]":        "IPv6",
		"fe80::1%eth0":                    "",
		"https://[::1":                    "parse",
		"https://1::1:80":                 "",
		strings.Repeat("a", 64):           "host",
		strings.Repeat("a.", 150) + "com": "253",
		strings.Repeat("a", 9999):         "bytes",
	} {
		got, err := identity.ParseOrigin(in)
		if err == nil || !strings.Contains(err.Error(), word) || len(err.Error()) > 300 {
			t.Errorf("ParseOrigin(%.80q) = %q, %v, want an error about %q", in, got, err, word)
		}
	}
}

// FuzzParseOrigin holds that an origin is its own origin, that each way to write it comes to the same, and that net/http
// sees in it what we do.
func FuzzParseOrigin(f *testing.F) {
	for _, s := range []string{"https://A.example:443/", "http://[::ABCD%25x]:80", "http://1.2.3.4:8080", "https://[::1]", "h.:80", "::ffff:1.2.3.4", "wss://0x7f.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		origin, err := identity.ParseOrigin(s)
		if err != nil {
			return
		}
		scheme, host, _ := strings.Cut(origin, "://")
		ways := []string{origin, origin + "/", strings.ToUpper(origin), map[string]string{"https": "wss://", "http": "ws://"}[scheme] + host}
		if scheme == "https" {
			ways = append(ways, host)
		}
		for _, way := range ways {
			if again, err := identity.ParseOrigin(way); err != nil || again != origin {
				t.Errorf("%q → %q, but %q → %q, %v", s, origin, way, again, err)
			}
		}
		u, err := url.Parse(origin)
		if err != nil || u.Host != identity.HostOf(origin) || host != u.Host || u.Scheme != scheme {
			t.Errorf("%q → %q → %+v, %v", s, origin, u, err)
		}
	})
}
