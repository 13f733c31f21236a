package pages_test

import (
	"testing"
	"time"

	"cistern/backfill/discover/pages"
)

// TestThinPasses: a list that names nothing, or less than half of its previous entries, is read
// again after a minute, with doubling delays, for hours; then it is believed.
func TestThinPasses(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now := time.Unix(1_800_000_000, 0)
	var mark pages.Mark
	for _, c := range []struct {
		named int64
		again time.Duration
	}{
		// The list shrinks and recovers.
		{100, day}, {51, day}, {25, time.Minute}, {25, 2 * time.Minute}, {26, day},
		{0, time.Minute}, {0, 2 * time.Minute}, {0, 4 * time.Minute}, {0, 8 * time.Minute}, {0, 16 * time.Minute}, {0, 32 * time.Minute},
		{0, 64 * time.Minute}, {0, 128 * time.Minute}, {0, 256 * time.Minute}, {0, day}, {0, day}, {3, day}, {0, time.Minute},
	} {
		mark = mark.Again()
		mark.Named = c.named
		mark = mark.End(now)
		if due := mark.Due(day, now); !due.Equal(now.Add(c.again)) {
			t.Errorf("a pass of %d is repeated after %v, want %v", c.named, due.Sub(now), c.again)
		}
	}
}
