package export_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"cistern/api/export"
	"cistern/store/storetest"
)

// benchRecords is the size of the repository that is exported. CISTERN_BENCH_RECORDS replaces it.
const benchRecords = 250_000

// typical makes records as a large account has them: most are likes, of some 300 bytes.
func typical(n int) storetest.Records {
	rng := rand.New(rand.NewPCG(1, 2))
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	collections := []string{"app.bsky.feed.like", "app.bsky.feed.like", "app.bsky.feed.post", "app.bsky.graph.follow"}
	m := make(storetest.Records, n)
	for len(m) < n {
		text := make([]byte, 150+rng.IntN(300))
		for i := range text {
			text[i] = letters[rng.IntN(8+i%24)]
		}
		path := fmt.Sprintf("%s/%s", collections[rng.IntN(4)], storetest.Rev(rng.IntN(1<<40)))
		m[path] = storetest.Text(string(text))
	}
	return m
}

func benchWorld(b *testing.B) (*world, storetest.Records) {
	n := benchRecords
	if v := os.Getenv("CISTERN_BENCH_RECORDS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			b.Fatal(err)
		}
	}
	m := typical(n)
	w := newWorld(b)
	w.hold(b, alice, m)
	return w, m
}

// BenchmarkExport exports a large repository whose tree is not known yet.
func BenchmarkExport(b *testing.B) {
	w, m := benchWorld(b)
	var total int64
	peak := heap()
	base, begun := peak, cpu(b)
	for b.Loop() {
		w.newExporter(b)
		v := w.view(b, alice)
		x, err := w.e.Open(b.Context(), v, export.Part{})
		if err != nil {
			b.Fatal(err)
		}
		c := counter{sample: func() { peak = max(peak, heap()) }}
		if err := x.Write(b.Context(), &c, ""); err != nil {
			b.Fatal(err)
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
		total += c.n
	}
	b.ReportMetric(float64(total)/1e6/b.Elapsed().Seconds(), "MB/s")
	b.ReportMetric(float64(total)/1e6/(cpu(b)-begun).Seconds(), "MB/cpu-s")
	b.ReportMetric(float64((cpu(b)-begun).Nanoseconds())/float64(b.N*len(m)), "cpu-ns/record")
	b.ReportMetric(float64(peak-base)/(1<<20), "MiB-more")
}

// BenchmarkExportTree makes the first pass of an export alone.
func BenchmarkExportTree(b *testing.B) {
	w, m := benchWorld(b)
	begun := cpu(b)
	for b.Loop() {
		w.newExporter(b)
		v := w.view(b, alice)
		if _, err := w.e.Open(b.Context(), v, export.Part{}); err != nil {
			b.Fatal(err)
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu(b)-begun).Nanoseconds())/float64(b.N*len(m)), "cpu-ns/record")
}

// BenchmarkProof proves records of a large repository whose tree is known.
func BenchmarkProof(b *testing.B) {
	w, m := benchWorld(b)
	paths := m.Paths()
	rng := rand.New(rand.NewPCG(1, 1))
	if _, err := w.export(b, alice, record(paths[0]), ""); err != nil {
		b.Fatal(err)
	}
	begun := cpu(b)
	for b.Loop() {
		path := paths[rng.IntN(len(paths))]
		v := w.view(b, alice)
		x, err := w.e.Open(b.Context(), v, record(path))
		if err != nil {
			b.Fatal(err)
		}
		if err := x.Write(b.Context(), io.Discard, ""); err != nil {
			b.Fatal(err)
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu(b)-begun).Nanoseconds())/1e3/float64(b.N), "cpu-µs/proof")
}

// cpu returns the processor time that the process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// counter counts bytes, and samples the heap at times.
type counter struct {
	n, sampled int64
	sample     func()
}

func (c *counter) Write(p []byte) (int, error) {
	if c.n += int64(len(p)); c.n-c.sampled > 16<<20 {
		c.sampled = c.n
		c.sample()
	}
	return len(p), nil
}

func heap() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}
