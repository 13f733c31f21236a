package firehose_test

import (
	"net/url"
	"strings"
	"testing"

	"cistern/ingest/firehose"
)

func TestParseSource(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"wss://relay.example":      "wss://relay.example",
		"https://relay.example":    "wss://relay.example",
		"http://relay.example/":    "ws://relay.example",
		"ws://relay.example:80":    "ws://relay.example",
		"wss://relay.example:443/": "wss://relay.example",
		// the other scheme's port
		"wss://relay.example:80":                                         "wss://relay.example:80",
		"https://relay.example:08080":                                    "wss://relay.example:8080",
		"HTTPS://Relay.EXAMPLE.":                                         "wss://relay.example",
		"wss://relay.example/xrpc/com.atproto.sync.subscribeRepos":       "wss://relay.example",
		"wss://relay.example/xrpc/com.atproto.sync.subscribeRepos/":      "wss://relay.example",
		"wss://relay.example/base/":                                      "wss://relay.example/base",
		"https://relay.example/a/b/xrpc/com.atproto.sync.subscribeRepos": "wss://relay.example/a/b",
		"http://127.0.0.1:2583":                                          "ws://127.0.0.1:2583",
		"ws://[2001:DB8:0:0::1]:2583":                                    "ws://[2001:db8::1]:2583",
		"ws://my_host-1/":                                                "ws://my_host-1",
	} {
		src, err := firehose.ParseSource(in, true)
		if err != nil || src.URL != want || !src.PDS {
			t.Errorf("ParseSource(%q) = %+v, %v, want %s", in, src, err, want)
		}
	}
}

func TestParseSourceRefuses(t *testing.T) {
	t.Parallel()
	for in, word := range map[string]string{
		"":                                    "http, https",
		"relay.example":                       "put https:// before it",
		"localhost:12583":                     "http:// if it speaks no TLS",
		"127.0.0.1:12583":                     "http:// if it speaks no TLS",
		"me:secret@relay.example":             "put https:// before it",
		"ftp://relay.example":                 "http, https",
		"wss://":                              "host",
		"wss:///path":                         "host",
		"wss:relay.example":                   "host",
		"wss://.":                             "host",
		"wss://a..b":                          "host",
		"wss://bücher.example":                "letters", // two spellings for one host
		"wss://a%20b":                         "",
		"wss://relay.example:":                "port",
		"wss://relay.example:0":               "port",
		"wss://relay.example:65536":           "port",
		"wss://[::1%25lo]":                    "IPv6",
		"wss://[::1":                          "parse",
		"wss://me:secret@relay.example":       "more than",
		"wss://relay.example?cursor=0":        "more than", // we set it
		"wss://relay.example?":                "more than",
		"wss://relay.example#x":               "more than",
		"wss://relay.example/#":               "more than",
		"wss://relay.example/a/../b":          "path",
		"wss://relay.example/a/%2e%2e/b":      "path",
		"wss://relay.example/a//b":            "path",
		"wss://" + strings.Repeat("a", 64):    "host",
		"wss://" + strings.Repeat("a.", 150):  "253",
		"wss://a/" + strings.Repeat("a", 600): "bytes",
		"wss://relay.example\n":               "parse",
		"wss://a/xrpc/com.atproto.sync.subscribeRepos/xrpc/com.atproto.sync.subscribeRepos": "twice",
	} {
		src, err := firehose.ParseSource(in, false)
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("ParseSource(%.80q) = %+v, %v, want an error about %q", in, src, err, word)
		}
	}
}

func TestSourceNames(t *testing.T) {
	t.Parallel()
	const source = "wss://relay.example:8443/base"
	for got, want := range map[string]string{
		firehose.Subscribe(source, -1): "wss://relay.example:8443/base/xrpc/com.atproto.sync.subscribeRepos",
		firehose.Subscribe(source, 0):  "wss://relay.example:8443/base/xrpc/com.atproto.sync.subscribeRepos?cursor=0",
		firehose.Listing(source):       "https://relay.example:8443/base",
		firehose.Listing("ws://a"):     "http://a",
		firehose.HostOf(source):        "relay.example:8443",
		firehose.HostOf("ws://a"):      "a",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// FuzzParseSource wants one spelling for each source, that can be dialled.
func FuzzParseSource(f *testing.F) {
	for _, s := range []string{"wss://relay.example", "http://127.0.0.1:2583/base/", "ws://[::1]:1", "https://A.b.:443/xrpc/com.atproto.sync.subscribeRepos", "ws://a/%2F"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		src, err := firehose.ParseSource(in, false)
		if err != nil {
			return
		}
		again, err := firehose.ParseSource(src.URL, false)
		if err != nil || again != src {
			t.Fatalf("%q became %q, and that %q, %v", in, src.URL, again.URL, err)
		}
		if full, err := firehose.ParseSource(firehose.Subscribe(src.URL, -1), false); err != nil || full != src {
			t.Fatalf("%q became %q with the path of subscribeRepos, %v", src.URL, full.URL, err)
		}
		if len(src.URL) > firehose.URLBytesMax || strings.HasSuffix(src.URL, "/") {
			t.Fatalf("%q became %q", in, src.URL)
		}
		u, err := url.Parse(firehose.Subscribe(src.URL, 7))
		if err != nil || u.Query().Get("cursor") != "7" || u.Host != firehose.HostOf(src.URL) || (u.Scheme != "ws" && u.Scheme != "wss") {
			t.Fatalf("%q is dialled as %v, %v", src.URL, u, err)
		}
	})
}
