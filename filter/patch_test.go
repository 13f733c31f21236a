package filter_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cistern/filter"

	"github.com/google/go-cmp/cmp"
)

const (
	alice = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"
	bob   = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestPatch(t *testing.T) {
	t.Parallel()
	old := filter.Config{Mode: filter.ModeFilter, Store: filter.StoreWanted, Signals: []string{"app.bsky.feed.post"},
		Collections: []string{"app.bsky.feed.*", "app.bsky.graph.follow"}, Excludes: []string{alice}}
	with := func(change func(c *filter.Config)) filter.Config {
		c := old
		change(&c)
		return c
	}
	for _, c := range []struct {
		why, body string
		want      filter.Config
	}{
		{"nothing", `{}`, old},
		{"blanks", " \n{ } \n", old},
		{"mode", `{"mode":"full"}`, with(func(c *filter.Config) { c.Mode = filter.ModeFull })},
		{"store", `{"store":"all"}`, with(func(c *filter.Config) { c.Store = filter.StoreAll })},
		{"an array replaces", `{"signals":["net.example.b","net.example.a","net.example.b"]}`,
			with(func(c *filter.Config) { c.Signals = []string{"net.example.a", "net.example.b"} })},
		{"an empty array empties", `{"collections":[ ]}`, with(func(c *filter.Config) { c.Collections = []string{} })},
		{"an object adds and removes", `{"collections":{"app.bsky.feed.*": false ,"app.bsky.actor.profile": true}}`,
			with(func(c *filter.Config) { c.Collections = []string{"app.bsky.actor.profile", "app.bsky.graph.follow"} })},
		{"there already, not there", `{"excludes":{"` + alice + `":true,"` + bob + `":false}}`, old},
		{"an empty object", `{"excludes":{}}`, old},
		{"removing names items, not what they match", `{"collections":{"app.bsky.feed.post":false}}`, old},
		{"escapes", `{"excludes":{"did:plc:\u0061aaaaaaaaaaaaaaaaaaaaaaa":false}}`, with(func(c *filter.Config) { c.Excludes = []string{} })},
		{"all at once", `{"mode":"full","store":"all","signals":[],"collections":{"app.bsky.feed.*":false},"excludes":["` + bob + `"]}`,
			filter.Config{Mode: filter.ModeFull, Store: filter.StoreAll, Signals: []string{}, Collections: []string{"app.bsky.graph.follow"}, Excludes: []string{bob}}},
	} {
		before := with(func(c *filter.Config) { c.Collections = slices.Clone(c.Collections) })
		got, err := old.Patch([]byte(c.body))
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", c.why, err, diff)
		}
		if diff := cmp.Diff(before, old); diff != "" {
			t.Fatalf("%s: what was patched is another now: %s", c.why, diff)
		}
	}
	zero, err := filter.Config{}.Patch([]byte(`{}`))
	want := filter.Config{Mode: filter.ModeFilter, Store: filter.StoreWanted, Signals: []string{}, Collections: []string{}, Excludes: []string{}}
	if diff := cmp.Diff(want, zero); diff != "" || err != nil {
		t.Errorf("zero value: %v %s", err, diff)
	}
}

func TestPatchRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		why, body string
		says      []string
	}{
		{"nothing", ``, []string{"want a JSON object"}},
		{"null", `null`, []string{`"null"`, "want a JSON object"}},
		{"an array", `[]`, []string{`"[]"`, "want a JSON object"}},
		{"cut", `{"mode":"full"`, []string{"not JSON"}},
		{"cut in a value", `{"mode":"fu`, []string{`"mode"`, "not JSON"}},
		{"no colon", `{"mode"}`, []string{"not JSON"}},
		{"two objects", `{}{}`, []string{"goes on"}},
		{"unknown field", `{"collection":[],"Mode":"full"}`, []string{`"collection"`, `"Mode"`, "want mode, store"}},
		{"field twice", `{"mode":"full","mode":"filter"}`, []string{`"mode" twice`}},
		{"item twice", `{"signals":{"app.bsky.feed.post":true,"app.bsky.feed.post":false}}`, []string{"signals", `"app.bsky.feed.post" twice`}},
		{"mode", `{"mode":"all"}`, []string{`"all"`, "filter or full"}},
		{"empty mode", `{"mode":""}`, []string{"mode is empty"}},
		{"mode of another type", `{"mode":7,"store":null}`, []string{"mode is 7", "store is null"}},
		{"store", `{"store":"none"}`, []string{`"none"`}},
		{"set of another type", `{"signals":null,"collections":"app.bsky.feed.post","excludes":true}`, []string{"signals is null", "collections is", "excludes is true"}},
		{"items of another type", `{"signals":["app.bsky.feed.post",7,null,["x"]]}`, []string{"item 7", "item null", `item ["x"]`}},
		{"marks of another type", `{"signals":{"app.bsky.feed.post":1,"app.bsky.feed.like":null}}`, []string{`1 for "app.bsky.feed.post"`, `null for "app.bsky.feed.like"`}},
		{"lines in a value", "{\"mode\":[\n1,\n2]}", []string{"mode is [1,2]"}},
		{"no pattern", `{"signals":["app"],"collections":{"*":true}}`, []string{`signal "app"`, `collection "*"`}},
		{"no pattern, to be removed", `{"collections":{"app.bsky.feed.":false}}`, []string{`"app.bsky.feed."`}},
		{"no DID", `{"excludes":["alice.test"]}`, []string{`"alice.test"`, "DID"}},
		{"a long DID", `{"excludes":["did:web:` + strings.Repeat("a", 3000) + `"]}`, []string{"did:web:aaaa", "DID"}},
		{"every bad value", `{"mode":"x","signals":["one","app.bsky.*","two"],"excludes":{"three":true}}`, []string{`"one"`, `"two"`, `"three"`}},
	} {
		got, err := filter.Config{Mode: filter.ModeFilter}.Patch([]byte(c.body))
		if err == nil {
			t.Errorf("%s: was taken as %+v", c.why, got)
			continue
		}
		for _, says := range c.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %q does not say %q", c.why, err, says)
			}
		}
		if strings.Count(err.Error(), "\n") >= len(c.says) {
			t.Errorf("%s: more lines than mistakes: %v", c.why, err)
		}
		if len(err.Error()) > 2000 {
			t.Errorf("%s: an error of %d bytes", c.why, len(err.Error()))
		}
		if diff := cmp.Diff(filter.Config{}, got); diff != "" {
			t.Errorf("%s: gives beside the error %s", c.why, diff)
		}
	}
}

func TestSetsAreBounded(t *testing.T) {
	t.Parallel()
	items := make([]string, 10_001)
	for i := range items {
		items[i] = fmt.Sprintf("com.example.c%d", i)
	}
	body := func(items []string) []byte {
		text, err := json.Marshal(map[string][]string{"collections": items})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	full, err := filter.Config{}.Patch(body(items[:10_000]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := full.Patch([]byte(`{"collections":{"com.example.c0":true}}`)); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	for _, text := range [][]byte{[]byte(`{"collections":{"com.example.d":true}}`), body(items)} {
		if _, err := full.Patch(text); err == nil || !strings.Contains(err.Error(), "10001 collections") {
			t.Errorf("one too many: %v", err)
		}
	}
	if _, err := full.Patch([]byte(`{"collections":{"com.example.d":true,"com.example.c0":false}}`)); err != nil {
		t.Errorf("one for another: %v", err)
	}
}

// FuzzPatch: every accepted patch gives a valid filter in its normal form, and the same patch again
// changes nothing.
func FuzzPatch(f *testing.F) {
	for _, body := range []string{`{}`, `{"mode":"full","store":"all"}`, `{"signals":["app.bsky.feed.post"]}`, `{"mode":"x","mode":"y"}`,
		`{"collections":{"app.bsky.*":false,"app.bsky.graph.*":true}}`, `{"excludes":{"` + bob + `":true}}`, `{"signals":[1,{}],"x":{"a":[[]]}}`} {
		f.Add([]byte(body))
	}
	old := filter.Config{Signals: []string{"app.bsky.feed.post"}, Collections: []string{"app.bsky.*"}, Excludes: []string{alice}}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := old.Patch(body)
		if err != nil {
			return
		}
		compiled, err := filter.Compile(got)
		if err != nil {
			t.Fatalf("taken, and is no filter: %v", err)
		}
		if diff := cmp.Diff(got, compiled.Config()); diff != "" {
			t.Fatalf("not in its one form: %s", diff)
		}
		again, err := got.Patch(body)
		if diff := cmp.Diff(got, again); diff != "" || err != nil {
			t.Fatalf("asked for twice: %v %s", err, diff)
		}
		whole, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		same, err := filter.Config{}.Patch(whole)
		if diff := cmp.Diff(got, same); diff != "" || err != nil {
			t.Fatalf("what GET gives is taken by PATCH as another: %v %s", err, diff)
		}
	})
}
