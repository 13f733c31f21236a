package discover_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/store"
)

// TestDescribeRetries: accounts are returned in order of their due times, each once. A full list
// accepts no more, and a due time from a clock that was years ahead is due at once. The cost of
// adding one does not depend on their number.
func TestDescribeRetries(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	l := discover.NewDescribeRetries()
	for i := range discover.DescribeRetriesMax {
		if !l.Put(fmt.Sprint(i), now.Add(time.Duration(i%7)*time.Minute)) || !l.Put(fmt.Sprint(i), now) {
			t.Fatalf("account %d was not taken", i)
		}
	}
	if l.Put("one more", now) {
		t.Error("a full list took another")
	}
	taken := 0
	for minute := range 7 {
		at := now.Add(time.Duration(minute) * time.Minute)
		names := l.Take(at)
		if taken += len(names); len(names) < discover.DescribeRetriesMax/7 {
			t.Errorf("minute %d: %d accounts", minute, len(names))
		}
		if again := l.Take(at); len(again) != 0 {
			t.Errorf("minute %d: %d accounts were given twice", minute, len(again))
		}
	}
	if taken != discover.DescribeRetriesMax {
		t.Errorf("%d accounts were given of %d", taken, discover.DescribeRetriesMax)
	}
	l = discover.NewDescribeRetries()
	l.Put("ahead", now.AddDate(10, 0, 0))
	if names := l.Take(now); len(names) != 1 {
		t.Errorf("due now: %v", names)
	}
}

// TestDescribeRetriesOnDisk: a describe retry of an account is unchanged after it was written and
// read. The golden file of store pins its bytes.
func TestDescribeRetriesOnDisk(t *testing.T) {
	t.Parallel()
	row := store.DescribeRetry{Due: 1_700_000_000, Tries: 2}
	if got := discover.SameLater("did:web:a.test", row); got != row {
		t.Errorf("an account to be asked about again is %+v on disk, want %+v", got, row)
	}
}
