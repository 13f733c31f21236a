package backfill_test

import (
	"testing"
	"time"

	"cistern/backfill"
	"cistern/store"
)

// TestMarksOnDisk pins what stands in the store under the names of crawl cursors: a change here is a change of the
// store's format.
func TestMarksOnDisk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ what, got, want string }{
		{"a list under way", backfill.MarkText(3, 0, 12, 345, 67, 2, "page 7 of 9"), "3 0 12 345 67 2 page 7 of 9"},
		{"a list read to its end", backfill.MarkText(4_294_967_295, 1_700_000_000, 1, 0, 9, 1, ""), "4294967295 1700000000 1 0 9 1 "},
		{"a list before its first page", backfill.MarkText(0, 0, 0, 0, 0, 0, ""), ""},
		{"an account to be asked about later", backfill.LaterText(time.Unix(1_700_000_000, 0), 2), "1700000000 2"},
		{"the prefix of these", backfill.LaterPrefix, "later::"},
		{"the prefix of reconciliations", backfill.ReconcilePrefix, "reconcile::"},
		{"a reconciliation at its first page", backfill.FirstPage, "\x00"},
		{"a reconciliation whose listing was read", backfill.ListedPage, "\x01"},
		{"a gap of a relay", store.ReconcileCursor, "reconcile"},
		{"the pass of a changed filter", store.RefilterCursor, "refilter"},
	} {
		if c.got != c.want {
			t.Errorf("%s is %q on disk, want %q", c.what, c.got, c.want)
		}
	}
	for _, text := range []string{"3 0 12 345 67 2 page 7 of 9", "4294967295 1700000000 1 0 9 1 ", ""} {
		if got := backfill.SameMark(text); got != text {
			t.Errorf("mark %q is read as %q", text, got)
		}
	}
	for _, text := range []string{"3 0 12 345 67 2", "x 0 12 345 67 2 p", "4294967296 0 0 0 0 0 p", "3 -1 0 0 0 0 p", "3 0 0 0 0 999 p"} {
		if got := backfill.SameMark(text); got != "" {
			t.Errorf("mark %q, which is not valid, is read as %q", text, got)
		}
	}
	if due, tries := backfill.ParseLater("1700000000 2"); due.Unix() != 1_700_000_000 || tries != 2 {
		t.Errorf("later is read as %v, %d", due, tries)
	}
}
