package filter_test

import (
	"slices"
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
	if all.Kind(4) {
		t.Error("the zero filter wants repo events, which older consumers do not know")
	}
	every, err := filter.CompileEvents(filter.EventsConfig{Kinds: filter.EventKinds})
	if err != nil || !every.All() || !every.Kind(4) || !every.Kind(1) {
		t.Errorf("a filter with all kinds is %+v (%v)", every, err)
	}
	some, err := filter.CompileEvents(filter.EventsConfig{Kinds: []string{"record", "repo"}})
	if err != nil || some.All() || !some.Kind(4) || !some.Kind(1) || some.Kind(2) {
		t.Errorf("a filter of records and repositories is %+v (%v)", some, err)
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

// TestEventsProblems: what is said about any number of invalid values is bounded.
func TestEventsProblems(t *testing.T) {
	t.Parallel()
	many := slices.Repeat([]string{strings.Repeat("\x7f", 500)}, 100_000)
	for i, c := range []filter.EventsConfig{{Collections: many}, {DIDs: many}, {Kinds: many},
		{Actions: many}, {Collections: many, DIDs: many, Kinds: many, Actions: many, Live: many[0]}} {
		_, err := filter.CompileEvents(c)
		if err == nil {
			t.Fatalf("config %d passes", i)
		}
		if n := strings.Count(err.Error(), "\n"); n != 19 || len(err.Error()) > 64<<10 {
			t.Errorf("config %d: an error of %d bytes and %d lines", i, len(err.Error()), n+1)
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

// TestEventsRanges: what a filter wants is read from ranges that hold all wanted names, and are
// disjoint and in order, as a pass over them meets each name once.
func TestEventsRanges(t *testing.T) {
	t.Parallel()
	f, err := filter.CompileEvents(filter.EventsConfig{
		Collections: []string{"app.b.post", "app.b.*", "app.a.x", "app.a.xy", "app.bb.post", "app.a.x"},
		DIDs:        []string{"did:plc:b", "did:plc:a"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range f.Ranges() {
		got = append(got, string(r.Lower)+" to "+string(r.Upper))
	}
	want := []string{"app.a.x\x00 to app.a.x\x01", "app.a.xy\x00 to app.a.xy\x01", "app.b. to app.b/", "app.bb.post\x00 to app.bb.post\x01"}
	if !slices.Equal(got, want) {
		t.Errorf("ranges %q, want %q", got, want)
	}
	if got := f.DIDs(); !slices.Equal(got, []string{"did:plc:a", "did:plc:b"}) {
		t.Errorf("DIDs %q", got)
	}
	all := new(filter.Events)
	if all.Ranges() != nil || all.DIDs() != nil {
		t.Errorf("the filter of all events has ranges %v, DIDs %v", all.Ranges(), all.DIDs())
	}
}
