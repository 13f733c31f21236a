package format_test

import (
	"testing"

	"cistern/api/deliver/delivertest"
	"cistern/api/deliver/format"
)

// BenchmarkAppendEvent encodes posts, a page of 200 at a time.
func BenchmarkAppendEvent(b *testing.B) {
	set, err := format.NewSet("epoch1", nil)
	if err != nil {
		b.Fatal(err)
	}
	events := delivertest.Posts(200)
	for name, f := range map[string]*format.Format{
		"plain":   set.Cistern(format.Variant{}),
		"zstd":    set.Cistern(format.Variant{Compression: format.Zstd}),
		"deflate": set.Cistern(format.Variant{Compression: format.Deflate}),
	} {
		b.Run(name, func(b *testing.B) {
			var out, plain []byte
			size := 0
			for b.Loop() {
				e := f.NewEncoder()
				for i := range events {
					out, _, _ = f.AppendEvent(out[:0], e, &events[i], &plain)
					size += len(out)
				}
			}
			n := float64(b.N * len(events))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/event")
			b.ReportMetric(float64(size)/n, "B/event")
		})
	}
}
