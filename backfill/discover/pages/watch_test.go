package pages_test

import (
	"fmt"
	"strings"
	"testing"

	"cistern/backfill/discover/pages"
)

// TestEndings: what ends a listing, and what does not.
func TestEndings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what  string
		pages int64  // how many pages there are
		read  int64  // counted before the first of them
		names string // of the account on each page, with the number of the page; "" for an empty page
		last  string // the cursor that the last page answers
		want  pages.Ending
	}{
		{what: "no further cursor", pages: 3, names: "did:web:%.test", want: pages.EndReached},
		{what: "the cursor of the page", pages: 3, names: "did:web:%.test", last: "2", want: pages.EndReached},
		{what: "more pages", pages: 3, names: "did:web:%.test", last: "3", want: ""},
		{what: "nine empty pages", pages: 9, last: "9", want: ""},
		{what: "ten empty pages", pages: 10, last: "10", want: pages.EndEmpty},
		{what: "the same account on every page", pages: 4, names: "did:web:a.test", last: "4", want: pages.EndRepeats},
		{what: "a page too many", pages: 1, read: 1<<20 - 1, names: "did:web:%.test", last: "1", want: pages.EndNever},
	} {
		var watch pages.Watch
		for i := range c.pages {
			cursor, following := fmt.Sprint(i), fmt.Sprint(i+1)
			if i == 0 {
				cursor = ""
			}
			if i == c.pages-1 {
				following = c.last
			}
			var names []string
			if c.names != "" {
				names = append(names, strings.Replace(c.names, "%", fmt.Sprint(i), 1))
			}
			next, end := watch.Page(cursor, names, len(names), c.read+i+1, following)
			want, wantNext := pages.Ending(""), following
			if i == c.pages-1 {
				want = c.want
			}
			if want != "" {
				wantNext = ""
			}
			if end != want || next != wantNext {
				t.Errorf("%s: page %d of %d ends it by %q, want %q; next %q", c.what, i+1, c.pages, end, want, next)
			}
		}
		if watch.Named() != (c.names != "") {
			t.Errorf("%s: named %v", c.what, watch.Named())
		}
	}
}

// TestEmptyPagesOfTwoPasses: empty pages of a pass that was cut short do not count in the next.
func TestEmptyPagesOfTwoPasses(t *testing.T) {
	t.Parallel()
	var watch pages.Watch
	for range 3 {
		for i := range 7 {
			cursor := fmt.Sprint(i)
			if i == 0 {
				cursor = ""
			}
			if _, end := watch.Page(cursor, nil, 0, int64(i)+1, fmt.Sprint(i+1)); end != "" {
				t.Fatalf("page %d ends it: %s", i, end)
			}
		}
	}
}
