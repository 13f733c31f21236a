package admin

import (
	"slices"
	"testing"
	"time"

	"cistern/copies"
)

// rows is a keeper of fixed rows.
type rows []copies.Row

func (r rows) Load() ([]copies.Row, error) { return r, nil }

func (rows) Save([]copies.Row) error { return nil }

// TestFailingBackups: a backup that failed is noted, for a day only if none was ever complete at its
// destination. A complete backup and an export are not noted.
func TestFailingBackups(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	row := func(kind copies.Kind, destination string, hours, failures int, complete bool) copies.Row {
		r := copies.Row{Statement: copies.Statement{Kind: kind, Destination: destination},
			Ended: now.Add(-time.Duration(hours) * time.Hour), Failures: failures}
		if complete {
			r.Succeeded = r.Ended.Add(-time.Hour)
		}
		return r
	}
	registry, err := copies.New(copies.Options{Keeper: rows{
		row(copies.Backup, "/fails", 100, 2, true),
		row(copies.Backup, "/never", 23, 1, false),
		row(copies.Backup, "/mistyped", 25, 1, false),
		row(copies.Backup, "/good", 1, 0, true),
		row(copies.Export, "/export", 1, 1, true),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range (copyRoutes{registry}).failing(now) {
		got = append(got, b.Destination)
	}
	slices.Sort(got)
	if want := []string{"/fails", "/never"}; !slices.Equal(got, want) {
		t.Errorf("noted are %q, want %q", got, want)
	}
}
