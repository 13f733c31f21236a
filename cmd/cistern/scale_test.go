package main

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/backfill/hosts"
	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// listedNetwork answers the listings of a network of any size. No account in it has a repository.
type listedNetwork struct {
	*httptest.Server
	sizes []int // accounts by host
	first []int // number of each host's first account
	pages atomic.Int64
	bytes atomic.Int64
}

// newListedNetwork distributes n accounts over hosts as in the real network: half of them on a few
// hosts, and a long tail.
func newListedNetwork(t *testing.T, n, hosts int) *listedNetwork {
	l := &listedNetwork{sizes: make([]int, hosts)}
	total := 0.0
	for i := range hosts {
		total += 1 / float64(i+1)
	}
	given := 0
	for i := range hosts {
		l.sizes[i] = int(float64(n) / float64(i+1) / total)
		given += l.sizes[i]
	}
	l.sizes[0] += n - given
	for i, at := 0, 0; i < hosts; i++ {
		l.first = append(l.first, at)
		at += l.sizes[i]
	}
	l.Server = httptest.NewServer(http.HandlerFunc(l.answer))
	t.Cleanup(l.Close)
	return l
}

// name returns the name of a host. It resolves nowhere: the transport connects it to the server.
func (l *listedNetwork) name(host int) string { return fmt.Sprintf("pds%d.test", host) }

// transport connects every name to the server.
func (l *listedNetwork) transport() *http.Transport {
	tr := identity.NewTransport(identity.TransportOptions{AllowPrivate: true})
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, l.Listener.Addr().String())
	}
	return tr
}

// listedDID returns the DID of account i. The DIDs of neighbours differ widely, as real ones do.
func listedDID(i int) string {
	x := uint64(i) + 1
	var b [16]byte
	for at := 0; at < len(b); at += 8 {
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.BigEndian.PutUint64(b[at:], z^z>>31)
	}
	return "did:plc:" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:15]))
}

func (l *listedNetwork) answer(w http.ResponseWriter, r *http.Request) {
	host, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(r.Host, "pds"), ".test"))
	switch {
	case strings.HasSuffix(r.URL.Path, ".listHosts"):
		l.listHosts(w, r)
		return
	case err != nil || !strings.HasSuffix(r.URL.Path, ".listRepos"):
		http.NotFound(w, r)
		return
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	b := []byte(`{"repos":[`)
	to := min(from+limit, l.sizes[host])
	for i := from; i < to; i++ {
		if i > from {
			b = append(b, ',')
		}
		b = append(b, `{"did":"`...)
		b = append(b, listedDID(l.first[host]+i)...)
		b = append(b, `","head":"bafyreihx5xvm5rlke74dfpqrj5enjatzpgnp7ezrkke3qed2o3quog6o7a","rev":"3k22222222222","active":true}`...)
	}
	b = append(b, ']')
	if to < l.sizes[host] {
		b = fmt.Appendf(b, `,"cursor":"%d"`, to)
	}
	b = append(b, '}')
	l.pages.Add(1)
	l.bytes.Add(int64(len(b)))
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

func (l *listedNetwork) listHosts(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	to := min(from+max(limit, 1), len(l.sizes))
	var hosts []string
	for i := from; i < to; i++ {
		hosts = append(hosts, fmt.Sprintf(`{"hostname":%q,"accountCount":%d,"status":"active"}`, l.name(i), l.sizes[i]))
	}
	cursor := ""
	if to < len(l.sizes) {
		cursor = fmt.Sprintf(`,"cursor":"%d"`, to)
	}
	fmt.Fprintf(w, `{"hosts":[%s]%s}`, strings.Join(hosts, ","), cursor)
}

// noDirectory knows no DID, because this test fetches nothing.
type noDirectory struct{ discover.Directory }

// TestEnumeration lists the accounts of many hosts into one store, queues each of them for a fetch,
// and logs what that costs.
//
// CISTERNTEST_DIDS=5000000 runs it at the scale of the network, which takes some minutes and 2 GB
// of disk.
func TestEnumeration(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	const count = 40
	n := int(testNumber(t, "CISTERNTEST_DIDS", 20_000))
	if n <= 20_000 {
		t.Parallel()
	}
	network := newListedNetwork(t, n, count)
	dir := t.TempDir()
	s, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.SetFilter(filter.Config{Mode: filter.ModeFull, Store: filter.StoreWanted}); err != nil {
		t.Fatal(err)
	}
	table, err := hosts.New(hosts.Options{Store: s, Transport: network.transport()})
	if err != nil {
		t.Fatal(err)
	}
	r, err := discover.New(discover.Options{
		Store: s, Hosts: table, Directory: noDirectory{}, Enqueued: func() {}, AllowPrivate: true,
		Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: "http://relay.test"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	began, spent := time.Now(), processorTime(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	g.Go(func() error { return s.Run(ctx) })
	listed := int64(0)
	for step := int64(max(n/10, 1)); listed < int64(n); time.Sleep(20 * time.Millisecond) {
		if now := s.Counts()["pending"]; now/step > listed/step || now == int64(n) {
			took := time.Since(began)
			t.Logf("%d DIDs after %s: %.0f/s, %.0f µs of processor time each, peak memory %d MiB, disk %d MiB", now, took.Round(time.Millisecond),
				float64(now)/took.Seconds(), float64((processorTime(t)-spent).Microseconds())/float64(now), peakMemory(t)>>20, diskOf(t, dir)>>20)
			listed = now
		}
		if time.Since(began) > 20*time.Minute {
			t.Fatalf("%v", s.Counts())
		}
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	counts := s.Counts()
	if counts["repos"] != int64(n) || counts["pending"] != int64(n) {
		t.Errorf("%v, want %d", counts, n)
	}
	t.Logf("%d pages, %d MB of answers, %d hosts, the largest with %d accounts", network.pages.Load(), network.bytes.Load()/1e6, count, network.sizes[0])
	began = time.Now()
	seen := 0
	err = s.ScanPending(t.Context(), 0, func(store.PendingKey, string) bool { seen++; return true })
	if err != nil || seen != n {
		t.Errorf("%d in the queue, %v", seen, err)
	}
	t.Logf("the whole queue is read in %s", time.Since(began).Round(time.Millisecond))
}

// processorTime returns the processor time that this process has used.
func processorTime(t *testing.T) time.Duration {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		t.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}

// peakMemory returns the most memory that this process has held.
func peakMemory(t *testing.T) int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Error(err)
	}
	return kib << 10
}

// diskOf returns the size of the files below dir.
func diskOf(t *testing.T, dir string) (n int64) {
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // it went while we looked
		}
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return n
}
