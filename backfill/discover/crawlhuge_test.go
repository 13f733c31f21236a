package discover_test

import (
	"runtime"
	"strings"
	"testing"

	"cistern/backfill/discover"
)

// TestCrawlHugePages: a page of nothing but commas takes no more memory than its bytes. Not
// parallel: it measures the allocations of the process.
func TestCrawlHugePages(t *testing.T) {
	for _, key := range []string{"repos", "hosts"} {
		for _, entry := range []string{"{}", "null"} {
			text := []byte(`{"` + key + `":[` + strings.Repeat(entry+",", 800_000) + entry + `]}`)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			n, err := discover.DecodePage(key, text)
			runtime.ReadMemStats(&after)
			if grew := after.TotalAlloc - before.TotalAlloc; err == nil || n != 0 || grew > uint64(len(text)) {
				t.Errorf("%s of %s: %d entries, error %v, and %d bytes were allocated", key, entry, n, err, grew)
			}
		}
		text := []byte(`{"cursor":"x","` + key + `":[` + strings.Repeat(`{"did":"did:web:x","head":"y","rev":"z","active":true,"status":""},`, 999) + `{}]}`)
		if n, err := discover.DecodePage(key, text); n != 1000 || err != nil {
			t.Errorf("%s: %d entries, error %v", key, n, err)
		}
	}
}
