package ingest_test

import (
	"fmt"
	"testing"
)

// BenchmarkCommits measures a commit from the whole message to the durable batch, signature
// included.
func BenchmarkCommits(b *testing.B) {
	for _, skip := range []bool{false, true} {
		b.Run(fmt.Sprintf("skip=%t", skip), func(b *testing.B) {
			w := newWorld(b, func(w *world) { w.opts.SkipSignatures, w.opts.Shards = skip, 8 })
			accounts := w.net.Accounts()
			w.hold(accounts...)
			w.skip()
			for i := range b.N {
				w.put(accounts[i%len(accounts)], fmt.Sprintf("app.test.x/%d", i), "some text of a post that is neither long nor short")
			}
			messages := w.net.RelayHost().Messages(w.sent)
			b.ReportAllocs()
			b.ResetTimer()
			for _, m := range messages {
				if err := w.feed.Send(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
			w.settle()
			b.StopTimer()
			for _, a := range accounts {
				w.equal(a)
			}
		})
	}
}
