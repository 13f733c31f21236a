package pages_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"cistern/backfill/discover/pages"
	"cistern/store/storetest"
)

// TestRepeats: a listing that repeats itself is detected before it was read four times, in whatever
// order it names accounts and however its pages are cut; a listing that names each account once, or
// some of them twice, is accepted.
func TestRepeats(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	name := func(i int) string { return storetest.DID(i) }
	for _, c := range []struct {
		what     string
		page     int                    // entries of a page
		accounts int                    // of the list
		entry    func(i int) int        // the entry at an index
		most     func(accounts int) int // entries read before detection; 0: never detected
	}{
		{what: "in order", page: 50, accounts: 1 << 20, entry: func(i int) int { return i }},
		{what: "every page begins with the last account of the page before", page: 10, accounts: 1 << 20, entry: func(i int) int { return i - i/10 }},
		{what: "a circle", page: 7, accounts: 500, entry: func(i int) int { return i % 500 }, most: func(n int) int { return 4 * n }},
		{what: "a circle of one page", page: 10, accounts: 10, entry: func(i int) int { return i % 10 }, most: func(n int) int { return 4 * n }},
		{what: "one account for ever", page: 1, accounts: 1, entry: func(int) int { return 0 }, most: func(int) int { return 10 }},
		{what: "pages of one", page: 1, accounts: 100, entry: func(i int) int { return i % 100 }, most: func(n int) int { return 8 * n }},
		{what: "accounts by chance", page: 20, accounts: 1000, entry: func(int) int { return random.IntN(1000) }, most: func(n int) int { return 8 * n }},
	} {
		var watch pages.Watch
		read := 0
		for page := 0; page < 5000; page++ {
			var names []string
			for range c.page {
				names = append(names, name(c.entry(read)))
				read++
			}
			if _, end := watch.Page(fmt.Sprint(page), names, c.page, int64(page)+1, "another"); end == pages.EndRepeats {
				if c.most == nil {
					t.Errorf("%s: said to repeat itself after %d entries", c.what, read)
				} else if read > c.most(c.accounts) {
					t.Errorf("%s: noticed after %d entries of %d accounts", c.what, read, c.accounts)
				}
				read = -1
				break
			}
		}
		if c.most != nil && read != -1 {
			t.Errorf("%s: not noticed", c.what)
		}
	}
}
