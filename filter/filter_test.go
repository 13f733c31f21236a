package filter_test

import (
	"strings"
	"testing"

	"cistern/filter"
)

func TestSignal(t *testing.T) {
	t.Parallel()
	f, err := filter.Compile(filter.Config{Signals: []string{"app.bsky.feed.post", "app.bsky.graph.*", "net.*", "app.bsky.feed.post"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		collection string
		want       bool
		why        string
	}{
		{"app.bsky.feed.post", true, "named"},
		{"app.bsky.feed.posts", false, "longer than what is named"},
		{"app.bsky.feed.pos", false, "shorter"},
		{"app.bsky.feed.post.reply", false, "below what is named"},
		{"app.bsky.feed.Post", false, "names of records keep their case"},
		{"app.bsky.graph.follow", true, "one below a prefix"},
		{"app.bsky.graph.list.item", true, "two below a prefix"},
		{"app.bsky.graph", false, "the prefix without its dot"},
		{"app.bsky.graph.", false, "the prefix and nothing"},
		{"app.bsky.graphs.follow", false, "a prefix ends at its dot"},
		{"app.bsky", false, "above a prefix"},
		{"net.example.thing", true, "a prefix of one segment"},
		{"network.example.thing", false, "which ends at its dot too"},
		{"", false, "nothing"},
		{".", false, "a dot"},
	} {
		if got := f.Signal([]byte(c.collection)); got != c.want {
			t.Errorf("%s (%q): %v", c.why, c.collection, got)
		}
	}
	if f.Full() {
		t.Error("full without having been told")
	}
}

func TestFullAndNone(t *testing.T) {
	t.Parallel()
	full, err := filter.Compile(filter.Config{Mode: filter.ModeFull})
	if err != nil {
		t.Fatal(err)
	}
	var zero filter.Filter
	if !full.Full() || zero.Full() {
		t.Errorf("full %v, zero value %v", full.Full(), zero.Full())
	}
	if full.Signal([]byte("app.bsky.feed.post")) || zero.Signal([]byte("app.bsky.feed.post")) {
		t.Error("a signal that was not set")
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(strings.Repeat("a", 62)+".", 5) // 315 bytes
	for _, c := range []struct{ signal, why string }{
		{"", "nothing"},
		{"*", "everything, which is what full is for"},
		{".*", "a dot"},
		{"app", "no NSID"},
		{"app.bsky", "an authority"},
		{"app.bsky*", "not at a dot"},
		{"app.bsky.feed.po*", "not at a dot"},
		{"app.*.post", "a star in the middle"},
		{"app.bsky.**", "two stars"},
		{"app..*", "an empty segment"},
		{"app.bsky.feed.post ", "a blank"},
		{"app.bsky.feed.*.", "a dot behind the star"},
		{"1app.bsky.*", "an authority that begins with a digit"},
		{"app.bsky.föö", "not ASCII"},
		{long + "aaa", "too long"},
		{long + "aa.*", "a prefix too long to have anything below"},
	} {
		if _, err := filter.Compile(filter.Config{Signals: []string{"app.bsky.feed.post", c.signal}}); err == nil {
			t.Errorf("%s: %q was taken", c.why, c.signal)
		}
	}
	_, err := filter.Compile(filter.Config{Mode: filter.ModeFull, Signals: []string{"first", "app.bsky.*", "second"}})
	if err == nil || !strings.Contains(err.Error(), `"first"`) || !strings.Contains(err.Error(), `"second"`) {
		t.Errorf("every bad signal is named: %v", err)
	}
	for _, signal := range []string{long + "aa", long + "*", "A-b.C.*"} {
		if _, err := filter.Compile(filter.Config{Signals: []string{signal}}); err != nil {
			t.Errorf("%q: %v", signal, err)
		}
	}
}

func TestSignalAllocatesNothing(t *testing.T) {
	f, err := filter.Compile(filter.Config{Signals: []string{"app.bsky.feed.post", "app.bsky.graph.*"}})
	if err != nil {
		t.Fatal(err)
	}
	in, out := []byte("app.bsky.graph.follow"), []byte("com.example.other.thing")
	if n := testing.AllocsPerRun(100, func() { _ = f.Signal(in) || f.Signal(out) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestKeeps(t *testing.T) {
	t.Parallel()
	f, err := filter.Compile(filter.Config{Collections: []string{"app.bsky.feed.post", "app.bsky.graph.*"}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := filter.Compile(filter.Config{Collections: []string{"app.bsky.feed.post"}, Store: filter.StoreAll})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]bool{
		"app.bsky.feed.post/3kabc":    true,
		"app.bsky.graph.follow/a":     true,
		"app.bsky.feed.like/a":        false,
		"app.bsky.feed.post/a b":      false, // invalid record key
		"app.bsky.feed.post/a/b":      false,
		"app.bsky.feed.post/":         false,
		"app.bsky.graph.1-/a":         false, // invalid collection
		"app.bsky.feed.post":          false,
		"app.bsky.feed.post/..":       false,
		"app.bsky.graph.list.item/~x": true,
	} {
		if got := f.Keeps([]byte(key)); got != want {
			t.Errorf("%q: %v", key, got)
		}
		if !all.Keeps([]byte(key)) {
			t.Errorf("%q: what is stored as a whole is kept", key)
		}
	}
}

// TestDiscovers: a filter discovers what another passes over if it follows everything, or has a
// signal that the other lacks.
func TestDiscovers(t *testing.T) {
	t.Parallel()
	full := filter.Config{Mode: filter.ModeFull}
	by := func(signals ...string) filter.Config { return filter.Config{Signals: signals} }
	for _, c := range []struct {
		why  string
		f, g filter.Config
		want bool
	}{
		{"the same", full, full, false},
		{"everything", full, by("app.test.a"), true},
		{"less than everything", by("app.test.a"), full, false},
		{"the same signals", by("app.test.a", "app.test.b"), by("app.test.b", "app.test.a"), false},
		{"one signal more", by("app.test.a", "app.test.b"), by("app.test.a"), true},
		{"one signal less", by("app.test.a"), by("app.test.a", "app.test.b"), false},
		{"another signal", by("app.test.a"), by("app.test.b"), true},
		{"a prefix is another signal", by("app.test.a"), by("app.test.*"), true},
		{"a list without a choice", by(), by("app.test.a"), true},
		{"a choice after none", by("app.test.a"), by(), true},
		{"no choice after none", by(), by(), false},
		{"the collections do not matter", by(), filter.Config{Collections: []string{"app.test.a"}}, false},
	} {
		f, err := filter.Compile(c.f)
		if err != nil {
			t.Fatal(err)
		}
		g, err := filter.Compile(c.g)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Discovers(g); got != c.want {
			t.Errorf("%s: %v", c.why, got)
		}
	}
}
