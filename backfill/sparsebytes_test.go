package backfill_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/backfill/fetch"
	"cistern/filter"
	"cistern/ingest/simnet"
)

// bigAccount gives the only account of a network n records, of which the last are posts.
func bigAccount(t testing.TB, net *simnet.Network, n, posts int) *simnet.Account {
	t.Helper()
	a := net.Accounts()[0]
	writes := make([]simnet.Write, 0, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		collection := "app.bsky.feed.like"
		if i >= n-posts {
			collection = "app.bsky.feed.post"
		}
		record := simnet.EncodeRecord(map[string]any{
			"$type": collection, "number": int(r.Uint32()), "text": strings.Repeat("x", 80+r.IntN(200)), "createdAt": "2026-01-01T00:00:00.000Z",
		})
		writes = append(writes, simnet.Write{Path: fmt.Sprintf("%s/3l%011d", collection, i), Record: record})
	}
	if _, err := a.Commit(writes...); err != nil {
		t.Fatal(err)
	}
	return a
}

// meter counts the bytes of answers, with headers.
type meter struct {
	http.RoundTripper
	bytes atomic.Int64
}

func (m *meter) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := m.RoundTripper.RoundTrip(req)
	if err == nil {
		head, derr := httputil.DumpResponse(resp, false)
		m.bytes.Add(int64(len(head)))
		resp.Body, err = metered{resp.Body, m}, derr
	}
	return resp, err
}

type metered struct {
	io.ReadCloser
	m *meter
}

func (r metered) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.m.bytes.Add(int64(n))
	return n, err
}

// TestSparseTransfersLittle: of 250,000 records with one in a hundred wanted, less than a twentieth
// of the whole is transferred.
func TestSparseTransfersLittle(t *testing.T) {
	t.Parallel()
	n := 250_000
	if testing.Short() {
		n /= 10
	}
	all := &meter{RoundTripper: &http.Transport{DisableCompression: true}}
	w, reg := newSparseWorld(t, simnet.Options{Hosts: 1, Repos: 1, Empty: 1}, filter.Config{Collections: []string{"app.bsky.feed.post"}}, fetch.StrategyAuto,
		func(o *backfill.Options) { o.Transport = all })
	a := bigAccount(t, w.Net, n, n/100)
	begin := time.Now()
	w.Add(a.DID())
	w.Settle(a.DID())
	took := time.Since(begin)
	w.fits(a.DID())
	if r := w.Row(a.DID()); r.Records != int64(n/100) {
		t.Errorf("%d records, want %d", r.Records, n/100)
	}
	if got := ways(t, reg); got != [3]float64{0, 1, 0} {
		t.Errorf("fetched full, sparse, fallback: %v", got)
	}
	whole, got := float64(len(a.CAR())), float64(all.bytes.Load())
	if n := backfilltest.Counted(t, reg, "received_bytes_total", ""); n > got || n < got*0.9 {
		t.Errorf("%.0f bytes were counted, of %.0f with heads", n, got)
	}
	requests := w.Net.Host(0).Log().Requests
	t.Logf("%d records: %.0f bytes of %.0f, %.2f %%; %d proofs, %d getBlocks, %s", n, got, whole, 100*got/whole, requests[proofs], requests[parts], took)
	if got > whole/20 {
		t.Errorf("%.0f bytes were transferred of %.0f", got, whole)
	}
	// A stored repository costs its tree and its changes.
	if _, err := a.Put("app.bsky.feed.post/self", simnet.Post("news")); err != nil {
		t.Fatal(err)
	}
	w.Add(a.DID())
	w.Settle(a.DID())
	w.fits(a.DID())
	again := float64(all.bytes.Load()) - got
	t.Logf("after one more record: %.0f bytes", again)
	if again > got/2 {
		t.Errorf("%.0f bytes for one more record, %.0f for all", again, got)
	}
}
