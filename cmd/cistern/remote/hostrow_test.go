package remote_test

import (
	"strings"
	"testing"
	"time"

	"cistern/cmd/cistern/remote"
)

// TestHostRow: the row of a host has its limits, those that an operator set, and its last error with
// its age, so that a host that has recovered does not look as if it failed.
func TestHostRow(t *testing.T) {
	t.Parallel()
	line := `{"host":"a.test","state":"ok","accounts":1234,"queued":5678,"in_flight":2,"last_error":"503 Unavailable","last_error_at":"` +
		time.Now().Add(-3*time.Hour).Format(time.RFC3339) + `","bytes":3221225472,"limits":{"concurrency":4,"concurrency_min":1,"concurrency_max":10,"per_second":7,` +
		`"opens_at":"` + time.Now().Add(90*time.Second).Format(time.RFC3339Nano) + `","told":[{"limit":3000,"remaining":12,"reset":"` + time.Now().Add(5*time.Minute).Format(time.RFC3339) + `"}]},` +
		`"override":{"per_second":7}}`
	cells, facts, err := remote.HostRow([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(cells, "|"), "a.test|ok|5,678|2 of 4|7|:7||1,234|3 hours ago: 503 Unavailable"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got := map[string]string{}
	for _, fact := range facts {
		got[fact[0]] = fact[1]
	}
	for name, want := range map[string]string{"received": "3.0 GiB", "next request": "1 minute from now", "in flight": "2 of 4 (from 1 to 10)",
		"quota": "12 of 3,000 requests left, renewed 4 minutes from now", "override": ":7"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}
