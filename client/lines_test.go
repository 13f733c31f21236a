package client_test

import (
	"encoding/json"
	"io"
	"strings"
	"testing"

	"cistern/client"
	"cistern/console"
)

func event(t *testing.T, text string) *client.Event {
	t.Helper()
	e := client.Event{}
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		t.Fatal(err)
	}
	e.JSON = []byte(text)
	return &e
}

// post returns an event of a record.
func post(record string) string {
	return `{"id":7,"type":"record","record":{"live":true,"did":"did:plc:ewvi7nxzyoun6zhxrhs64oiz","rev":"3k","collection":"app.bsky.feed.post","rkey":"3kabc","action":"create","record":` + record + `,"cid":"b"}}`
}

// TestLines shows events where there is no terminal: DIDs and paths whole, and no colours.
func TestLines(t *testing.T) {
	t.Parallel()
	lines := client.NewLines(console.New(io.Discard, nil))
	const head = "     7 did:plc:ewvi7nxzyoun6zhxrhs64oiz create   app.bsky.feed.post/3kabc"
	long := strings.Repeat("long ", 100)
	for _, row := range []struct{ event, want string }{
		{post(`{"$type":"app.bsky.feed.post","text":"one\n\t two","createdAt":"2026"}`), head + " one two"},
		{post(`{"subject":{"uri":"at://a/b/c","cid":"x"}}`), head + " at://a/b/c"},
		{post(`{"subject":"did:web:b"}`), head + " did:web:b"},
		{post(`{"text":7,"subject":[],"name":"List"}`), head + " List"},
		{post(`{"$type":"a.b","createdAt":"2026","b":[1, 2],"a":"<"}`), head + ` {"a":"<","b":[1,2]}`},
		{post(`{"$type":"a.b"}`), head},
		{post(`{"text":"a\u001b[2J\u009b2Jb\u202ec\u0007"}`), head + " a·[2J·2Jb·c·"},
		{post(`{"text":"` + long + `"}`), head + " " + strings.TrimSpace(long)},
		{`{"id":12345678,"type":"record","record":{"did":"did:web:a","collection":"a.b\u001b[31m","rkey":"\u001b]0;x\u0007","action":"del\u001bete"}}`,
			"12345678 did:web:a        del·ete  a.b·[31m/·]0;x·"},
		{`{"id":8,"type":"record","record":{"did":"did:web:a","collection":"a.b.c","rkey":"k","action":"update","unrepresentable":"it has a float"}}`,
			"       8 did:web:a        update   a.b.c/k it has a float"},
		{`{"id":9,"type":"account","account":{"did":"did:web:a","active":false,"status":"deleted"}}`, "       9 did:web:a        account  inactive deleted"},
		{`{"id":9,"type":"account","account":{"did":"did:web:a","active":true}}`, "       9 did:web:a        account  active"},
		{`{"id":9,"type":"identity","identity":{"did":"did:web:a","handle":"a.test","pds":"https://b"}}`, "       9 did:web:a        identity a.test https://b"},
		{`{"id":9,"type":"repo","repo":{"did":"did:web:a","state":"synced","rev":"3k"}}`,
			"       9 did:web:a        repo     synced 3k"},
		{`{"id":9,"type":"repo","repo":{"did":"did:web:a","state":"failing","rev":"3k","reason":"transport","since":"2026-01-02T15:04:05Z","next_look":"2026-01-02T15:05:05Z"}}`,
			"       9 did:web:a        repo     failing transport, since 2026-01-02T15:04:05Z, next look 2026-01-02T15:05:05Z"},
		{`{"id":9,"type":"repo","repo":{"did":"did:web:a","state":"gone","reason":"deleted"}}`,
			"       9 did:web:a        repo     gone deleted"},
		{`{"id":9,"type":"of the future"}`, "       9                  of the future"},
	} {
		if got := lines.Line(event(t, row.event)); got != row.want {
			t.Errorf("%s\n got %q\nwant %q", row.event, got, row.want)
		}
	}
}

// TestRows gives rows byte for byte where there is no terminal.
func TestRows(t *testing.T) {
	t.Parallel()
	lines := client.NewLines(console.New(io.Discard, nil))
	text := post("{\"text\":\"a\u009b2J\\u001b<\u202e\"}")
	if got := lines.Row(event(t, text)); got != text {
		t.Errorf("%q became %q", text, got)
	}
}
