package remote_test

import (
	"testing"

	"cistern/cmd/cistern/remote"
)

// TestPeriod: a period is shown as an operator would write it.
func TestPeriod(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{0: "", 604800: "7d", 43200: "12h", 60: "1m", 90: "1m30s"} {
		if got := remote.Period(seconds); got != want {
			t.Errorf("%g seconds are %q, want %q", seconds, got, want)
		}
	}
}
