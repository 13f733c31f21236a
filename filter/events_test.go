package filter_test

import (
	"strings"
	"testing"

	"cistern/filter"
)

func TestEvents(t *testing.T) {
	t.Parallel()
	const alice, bob = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
	var all filter.Events
	if !all.All() || !all.Kind(1) || !all.DID(alice) || !all.Collection([]byte("app.test.a")) || !all.Record(3, false) {
		t.Error("the zero filter does not want everything")
	}
	f, err := filter.CompileEvents(filter.EventsConfig{
		Collections: []string{"app.test.*", "com.example.one"}, DIDs: []string{alice},
		Kinds: []string{"record", "identity"}, Actions: []string{"create", "delete"}, Live: "true",
	})
	if err != nil || f.All() {
		t.Fatal(f, err)
	}
	for _, c := range []struct {
		name      string
		got, want bool
	}{
		{"kind record", f.Kind(1), true}, {"kind account", f.Kind(2), false}, {"kind identity", f.Kind(3), true},
		{"alice", f.DID(alice), true}, {"bob", f.DID(bob), false},
		{"prefix", f.Collection([]byte("app.test.a.b")), true}, {"prefix alone", f.Collection([]byte("app.test")), false},
		{"name", f.Collection([]byte("com.example.one")), true}, {"longer name", f.Collection([]byte("com.example.one.two")), false},
		{"live create", f.Record(1, true), true}, {"live update", f.Record(2, true), false}, {"old delete", f.Record(3, false), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %t", c.name, c.got)
		}
	}
}

// An error names every invalid value.
func TestEventsRefused(t *testing.T) {
	t.Parallel()
	_, err := filter.CompileEvents(filter.EventsConfig{
		Collections: []string{"nope", "app.*bsky"}, DIDs: []string{"alice"}, Kinds: []string{"commit"}, Actions: []string{"put"}, Live: "maybe",
	})
	for _, value := range []string{"nope", "app.*bsky", "alice", "commit", "put", "maybe"} {
		if err == nil || !strings.Contains(err.Error(), value) {
			t.Errorf("%s is not named: %v", value, err)
		}
	}
	many := make([]string, 10_001)
	for i := range many {
		many[i] = "did:web:" + strings.Repeat("a", i%60+1) + "." + strings.Repeat("b", i/60%60+1) + "." + strings.Repeat("c", i/3600+1)
	}
	if _, err := filter.CompileEvents(filter.EventsConfig{DIDs: many}); err == nil {
		t.Errorf("%d DIDs pass", len(many))
	}
}
