package discover_test

import (
	"testing"

	"cistern/backfill/discover"
	"cistern/store"
)

// TestMarksOnDisk: a mark, and a describe retry of an account, are unchanged after they were
// written and read. The golden file of store pins their bytes.
func TestMarksOnDisk(t *testing.T) {
	t.Parallel()
	for what, row := range map[string]store.CrawlMark{
		"a list under way":             {Filter: 3, Pages: 12, Named: 345, Before: 67, Thin: 2, Cursor: "page 7 of 9"},
		"a list read to its end":       {Filter: 4_294_967_295, Ended: 1_700_000_000, Pages: 1, Before: 9, Thin: 1},
		"a list before its first page": {},
	} {
		if got := discover.SameMark(row); got != row {
			t.Errorf("%s is %+v on disk, want %+v", what, got, row)
		}
	}
	row := store.DescribeRetry{Due: 1_700_000_000, Tries: 2}
	if got := discover.SameLater("did:web:a.test", row); got != row {
		t.Errorf("an account to be asked about again is %+v on disk, want %+v", got, row)
	}
}
