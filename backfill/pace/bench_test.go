package pace_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/backfill/pace"
)

// BenchmarkPick takes and returns a permit, among 5,000 hosts with work, half of it for one host.
func BenchmarkPick(b *testing.B) {
	for _, queued := range []int{10_000, 100_000, 1_000_000, 5_000_000} {
		b.Run(fmt.Sprintf("queued=%d", queued), func(b *testing.B) {
			s, now := pace.NewScheduler(32), epoch
			hosts := make([]*pace.Host, 5000)
			work := make([]int, len(hosts))
			for i := range hosts {
				hosts[i] = &pace.Host{ID: uint32(i)}
				hosts[i].Configure(usual, false)
				work[i] = queued / 2 / len(hosts)
				s.Offer(hosts[i], now)
			}
			work[0] += queued / 2
			b.ResetTimer()
			for range b.N {
				h := s.Pick(now)
				p := s.Begin(h, now)
				now = now.Add(time.Millisecond)
				h.Heard(pace.Fetch, time.Millisecond, pace.Quota{}, p, now)
				h.Note(pace.Outcome{Answered: true}, p, now)
				s.Leave(h, now)
				s.Return(h, p, now)
				work[h.ID] = max(work[h.ID]-1, 1) // no host runs out of work, so that each round finds as many
				s.Offer(h, now)
			}
		})
	}
}
