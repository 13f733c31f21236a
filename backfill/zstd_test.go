package backfill_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"cistern/backfill"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"

	"github.com/klauspost/compress/zstd"
)

// dispersed is a directory in which each account lives at a host of its own.
type dispersed struct {
	backfill.Directory
	hosts map[string]string
}

// Resolve names the host.
func (d dispersed) Resolve(ctx context.Context, did string) (identity.Identity, error) {
	ident, err := d.Directory.Resolve(ctx, did)
	ident.PDS = d.hosts[did]
	return ident, err
}

// TestZstdWindows: however many hosts send zstd bodies with large windows at a time, few of them are open: other requests
// do not offer zstd.
func TestZstdWindows(t *testing.T) {
	const hosts = 24
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	var text bytes.Buffer
	z, err := zstd.NewWriter(&text, zstd.WithWindowSize(8<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(noise)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var zipped, open atomic.Int64
	end := make(chan struct{})
	serve := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/vnd.ipld.car")
		if r.Header.Get("Accept-Encoding") == "zstd, gzip" {
			zipped.Add(1)
			rw.Header().Set("Content-Encoding", "zstd")
			_, _ = rw.Write(text.Bytes()[:1000]) // the window is named, and no block is whole
		}
		_ = http.NewResponseController(rw).Flush()
		open.Add(1)
		<-end
	})
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: hosts, RecordsMedian: 1}})
	w.stop()
	apart := map[string]string{}
	for _, did := range w.net.DIDs() {
		host := httptest.NewServer(serve)
		defer host.Close()
		apart[did] = host.URL
	}
	w.start(backfill.Options{Directory: dispersed{w.dir, apart}, Concurrency: 2 * hosts})
	all, _ := backfill.ZstdPermits(w.run)
	w.add(w.net.DIDs()...)
	w.until("some bodies to be open", func() bool { return open.Load() >= all })
	w.until("all requests", func() bool { return open.Load() == hosts })
	if n := zipped.Load(); n != all || all > 4 {
		t.Errorf("%d zstd bodies are open, of %d", n, all)
	}
	close(end)
	w.until("the fetches to end", func() bool { return w.run.Syncing() == 0 })
	w.stop()
	if all, free := backfill.ZstdPermits(w.run); free != all {
		t.Errorf("%d of %d permits are free after the end", free, all)
	}
}
