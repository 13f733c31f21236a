package store_test

import (
	"fmt"
	"testing"

	"cistern/store"
	"cistern/store/storetest"
)

// BenchmarkRelist lists a repository again, as when its account is shown after it was hidden. That
// happens under the DID's lock: events of this one account wait for it.
func BenchmarkRelist(b *testing.B) {
	for _, records := range []int{20_000, 1_000_000} {
		b.Run(fmt.Sprint("records=", records), func(b *testing.B) {
			s := storetest.Open(b, store.Options{Dir: b.TempDir()})
			did := storetest.DID(1)
			m := make(storetest.Records, records)
			for i := range records {
				m["app.test.post/"+storetest.Rev(i)] = storetest.Text("one of many")
			}
			imported(b, s, did, m)
			for b.Loop() {
				setStatus(b, s, did, store.StatusDeactivated)
				setStatus(b, s, did, store.StatusActive)
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/relist")
		})
	}
}
