package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"golang.org/x/sync/errgroup"
)

// exported is a line of an export, or a row of Parquet.
type exported struct {
	DID        string `json:"did" parquet:"did"`
	Collection string `json:"collection" parquet:"collection"`
	Rkey       string `json:"rkey" parquet:"rkey"`
	CID        string `json:"cid" parquet:"cid"`

	Resume   string `json:"resume" parquet:"-"`
	Complete bool   `json:"complete" parquet:"-"`
	Rows     int    `json:"rows" parquet:"-"`
	Head     uint64 `json:"head" parquet:"-"`
	Epoch    string `json:"epoch" parquet:"-"`
}

// exportLines returns the records of NDJSON, URI → CID, and its other lines.
func exportLines(t testing.TB, text []byte) (records map[string]string, others []exported) {
	t.Helper()
	records = map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var e exported
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.DID == "" {
			others = append(others, e)
			continue
		}
		if uri := e.DID + "/" + e.Collection + "/" + e.Rkey; records[uri] != "" {
			t.Errorf("%s comes twice", uri)
		} else {
			records[uri] = e.CID
		}
	}
	return records, others
}

// exportWorld is a world of three accounts, and what it has.
func exportWorld(t testing.TB) (w *world, all map[string]string) {
	t.Helper()
	w, all = newWorld(t, api.Options{}), map[string]string{}
	rng := rand.New(rand.NewPCG(1, 1))
	for _, did := range []string{alice, bob, carol} {
		m := storetest.Random(rng, 500)
		w.hold(t, did, m)
		for path, body := range m {
			if repo.ValidPath([]byte(path)) {
				all[did+"/"+path] = repo.HashCID(body).String()
			}
		}
	}
	storetest.Head(t, w.store)
	return w, all
}

// export asks for a file.
func (w *world) export(t testing.TB, q url.Values, header map[string]string) (*http.Response, []byte) {
	t.Helper()
	var text string
	res := call(t, "GET", w.public.URL+"/export?"+q.Encode(), "", header, &text)
	if res.StatusCode != 200 || res.Header.Get("Cistern-Head") != fmt.Sprint(w.store.Head()) ||
		res.Header.Get("Cistern-Epoch") != w.store.Epoch() {
		t.Fatalf("%v: %d %v %.300s", q, res.StatusCode, res.Header, text)
	}
	return res, []byte(text)
}

// TestExport: all forms of an export have exactly the records of the store that are asked for.
func TestExport(t *testing.T) {
	t.Parallel()
	w, all := exportWorld(t)
	want := func(keep func(uri string) bool) map[string]string {
		m := map[string]string{}
		for uri, cid := range all {
			if keep(uri) {
				m[uri] = cid
			}
		}
		return m
	}
	for what, c := range map[string]struct {
		q    url.Values
		want map[string]string
	}{
		"all": {nil, all},
		"collections": {url.Values{"collections": {"app.test.c1,app.test.c2", "app.none.*"}}, want(func(uri string) bool {
			return strings.Contains(uri, "/app.test.c1/") || strings.Contains(uri, "/app.test.c2/")
		})},
		"accounts": {url.Values{"dids": {alice, carol}}, want(func(uri string) bool { return !strings.HasPrefix(uri, bob) })},
		"both": {url.Values{"dids": {bob}, "collections": {"app.test.c3"}}, want(func(uri string) bool {
			return strings.HasPrefix(uri, bob+"/app.test.c3/")
		})},
	} {
		for coding, decode := range map[string]func(io.Reader) (io.Reader, error){
			"identity":           func(r io.Reader) (io.Reader, error) { return r, nil },
			"gzip":               func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
			"br, gzip;q=0, zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
		} {
			res, text := w.export(t, c.q, map[string]string{"Accept-Encoding": coding})
			if got := res.Header.Get("Content-Encoding"); coding != "identity" && (got == "" || !strings.Contains(coding, got)) {
				t.Errorf("%s: coding %q", coding, got)
			}
			r, err := decode(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			got, others := exportLines(t, plain)
			if diff := cmp.Diff(c.want, got); diff != "" || len(others) > 0 || res.Header.Get("Content-Type") != "application/x-ndjson" {
				t.Errorf("%s, %s: %d other lines, %s", what, coding, len(others), diff)
			}
		}
		q := url.Values{"format": {"parquet"}, "collections": c.q["collections"], "dids": c.q["dids"]}
		res, text := w.export(t, q, map[string]string{"Accept-Encoding": "gzip"})
		rows, err := parquet.Read[exported](bytes.NewReader(text), int64(len(text)))
		if err != nil || res.Header.Get("Content-Type") != "application/vnd.apache.parquet" || res.Header.Get("Content-Encoding") != "" {
			t.Fatalf("%v, %v", err, res.Header)
		}
		got := map[string]string{}
		for _, e := range rows {
			got[e.DID+"/"+e.Collection+"/"+e.Rkey] = e.CID
		}
		if diff := cmp.Diff(c.want, got); diff != "" || len(got) != len(rows) {
			t.Errorf("%s as Parquet: %s", what, diff)
		}
	}
	var text string
	if res := call(t, "HEAD", w.public.URL+"/export", "", nil, &text); res.StatusCode != 200 || text != "" || res.Header.Get("Cistern-Head") == "" {
		t.Errorf("HEAD: %d, %q, %v", res.StatusCode, text, res.Header)
	}
}

// TestExportResumes: an export in pieces has every record once, by tokens in lines and in footers.
func TestExportResumes(t *testing.T) {
	t.Parallel()
	w, all := exportWorld(t)
	for _, format := range []string{"ndjson", "parquet"} {
		got, resume := map[string]string{}, ""
		for pieces := 0; ; pieces++ {
			q := url.Values{"format": {format}, "tokens": {"true"}, "limit": {"97"}}
			if resume != "" {
				q.Set("resume", resume)
			}
			_, text := w.export(t, q, nil)
			before := resume
			resume = ""
			if format == "ndjson" {
				records, others := exportLines(t, text)
				for uri, cid := range records {
					got[uri] = cid
				}
				last := others[len(others)-1]
				if resume = last.Resume; resume == "" && (!last.Complete || last.Rows != len(records) || last.Head != w.store.Head() || last.Epoch != w.store.Epoch()) {
					t.Fatalf("the last line is %+v of %d records", last, len(records))
				}
			} else {
				f, err := parquet.OpenFile(bytes.NewReader(text), int64(len(text)))
				if err != nil {
					t.Fatal(err)
				}
				rows, err := parquet.Read[exported](bytes.NewReader(text), int64(len(text)))
				if err != nil || len(rows) > 97 {
					t.Fatal(len(rows), err)
				}
				for _, e := range rows {
					got[e.DID+"/"+e.Collection+"/"+e.Rkey] = e.CID
				}
				resume, _ = f.Lookup("cistern.resume")
				if head, _ := f.Lookup("cistern.head"); head != strconv.FormatUint(w.store.Head(), 10) {
					t.Errorf("head %q", head)
				}
			}
			if resume == "" {
				break
			}
			if resume == before || pieces > len(all) {
				t.Fatal("no end")
			}
		}
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
	}
}

func TestExportRefusals(t *testing.T) {
	t.Parallel()
	w, _ := exportWorld(t)
	_, text := w.export(t, url.Values{"tokens": {"true"}, "limit": {"1"}}, nil)
	_, others := exportLines(t, text)
	token := others[0].Resume
	for _, c := range []struct {
		q    url.Values
		says string
	}{
		{url.Values{"format": {"csv"}}, `"csv"`},
		{url.Values{"format": {"ndjson", "parquet"}}, "2 times"},
		{url.Values{"collections": {"posts"}}, "posts"},
		{url.Values{"dids": {"alice.test"}}, "alice.test"},
		{url.Values{"limit": {"0"}}, "limit 0"},
		{url.Values{"limit": {"-1"}}, "limit"},
		{url.Values{"limit": {"1000000001"}}, "limit 1000000001"},
		{url.Values{"include": {"car"}}, `"car"`},
		{url.Values{"tokens": {"yes"}}, "tokens"},
		{url.Values{"resume": {"x"}}, "not a token"},
		{url.Values{"resume": {token}, "dids": {alice}}, "other collections or dids"},
	} {
		var e refused
		res := call(t, "GET", w.public.URL+"/export?"+c.q.Encode(), "", map[string]string{"Accept-Encoding": "zstd"}, &e)
		if res.StatusCode != 400 || e.Error != "InvalidRequest" || !strings.Contains(e.Message, c.says) || res.Header.Get("Content-Encoding") != "" {
			t.Errorf("%v: %d %+v %v", c.q, res.StatusCode, e, res.Header)
		}
	}
	empty := newWorldOn(t, storetest.Open(t, store.Options{Ephemeral: true, Retention: time.Hour}), api.Options{})
	var e refused
	if res := call(t, "GET", empty.public.URL+"/export", "", nil, &e); res.StatusCode != 501 || e.Error != "EventsOnly" {
		t.Errorf("%d %+v", res.StatusCode, e)
	}
}

// largeWorld has an account with records of 300 characters.
func largeWorld(t testing.TB, records int) *world {
	t.Helper()
	w, m := newWorld(t, api.Options{}), storetest.Records{}
	for i := range records {
		m["app.test.a/"+storetest.Rev(i)] = storetest.Text(fmt.Sprint(strings.Repeat("x", 300), i))
	}
	w.hold(t, alice, m)
	return w
}

// TestExportStops: a file is broken off when its client goes away or does not read, and the time
// for which the server waits for the client is bounded.
func TestExportStops(t *testing.T) {
	t.Parallel()
	for what, stop := range map[string]func(cancel func()) error{
		"gone":     func(cancel func()) error { cancel(); return nil },
		"not read": func(func()) error { return os.ErrDeadlineExceeded },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := largeWorld(t, 2000)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := &scriptedWriter{ResponseRecorder: httptest.NewRecorder(), piece: func(n int) error {
				if n == 3 {
					return stop(cancel)
				}
				return nil
			}}
			begun := time.Now()
			if broken := w.serve(ctx, s, "/export", "192.0.2.1"); !broken || s.Body.Len() > 3*64<<10 {
				t.Errorf("broken %v after %d bytes", broken, s.Body.Len())
			}
			for i, d := range s.deadlines {
				most := time.Minute + time.Duration(i)*250*time.Millisecond
				if left := d.Sub(begun); left < most-time.Since(begun) || left > most+time.Since(begun) {
					t.Errorf("piece %d has %s, want %s", i, left, most)
				}
			}
			s = &scriptedWriter{ResponseRecorder: httptest.NewRecorder()} // the turn is free again
			if w.serve(t.Context(), s, "/export?tokens=true", "192.0.2.1") || !strings.HasSuffix(s.Body.String(), `"rows":2000}`+"\n") {
				t.Errorf("status %d", s.Code)
			}
		})
	}
}

// FuzzExport: no query fails, and what is answered is whole.
func FuzzExport(f *testing.F) {
	w := newWorld(f, api.Options{})
	w.hold(f, alice, storetest.Random(rand.New(rand.NewPCG(1, 1)), 50))
	for _, q := range []string{"", "format=parquet", "limit=3&tokens=true", "collections=app.test.c1,app.test.*", "dids=" + alice,
		"resume=AQEA", "include=cbor&format=parquet", "limit=%31&limit=2", "a=%zz", "collections=,,&dids=,"} {
		f.Add(q, "gzip;q=0.5, zstd")
	}
	f.Fuzz(func(t *testing.T, query, accepts string) {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/export", nil)
		r.URL.RawQuery = query
		r.Header.Set("Accept-Encoding", accepts)
		s := &scriptedWriter{ResponseRecorder: httptest.NewRecorder()}
		w.server.Public().ServeHTTP(s, r)
		if s.Code >= 500 || s.Code != 200 && s.Header().Get("Content-Encoding") != "" {
			t.Errorf("%q: %d %v %s", query, s.Code, s.Header(), s.Body)
		}
		if s.Code == 200 && s.Header().Get("Content-Type") == "application/x-ndjson" && s.Header().Get("Content-Encoding") == "" {
			exportLines(t, s.Body.Bytes())
		}
	})
}

// BenchmarkExport sends all records of a store over loopback TCP to a client that discards them.
// CISTERN_BENCH_RECORDS sets the number of records (default 200,000).
func BenchmarkExport(b *testing.B) {
	records := 200_000
	if v := os.Getenv("CISTERN_BENCH_RECORDS"); v != "" {
		var err error
		if records, err = strconv.Atoi(v); err != nil {
			b.Fatal(err)
		}
	}
	w, rng := newWorld(b, api.Options{}), rand.New(rand.NewPCG(1, 2))
	const each = 1000
	for n := range records / each {
		m := storetest.Records{}
		for i := range each {
			m["app.test.a/"+storetest.Rev(i)] = storetest.Text(fmt.Sprintf("%x", rng.Perm(60)))
		}
		w.hold(b, storetest.DID(n+1), m)
	}
	for _, c := range []struct{ query, accepts string }{{"", "identity"}, {"", "gzip"}, {"", "zstd"}, {"format=parquet", ""}} {
		b.Run(c.query+c.accepts, func(b *testing.B) {
			var bytes int64
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), "GET", w.public.URL+"/export?"+c.query, nil)
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Accept-Encoding", c.accepts)
				res, err := http.DefaultClient.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, res.Body)
				if err := firstOf(err, res.Body.Close()); err != nil || res.StatusCode != 200 {
					b.Fatal(res.StatusCode, err)
				}
				bytes = n
			}
			b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(bytes)/float64(records), "bytes/record")
		})
	}
}

// TestExportTurns: one client gets three files at a time, or one of Parquet and one of NDJSON, and
// leaves a place to others.
func TestExportTurns(t *testing.T) {
	t.Parallel()
	for what, held := range map[string][]string{
		"lines": {"/export", "/export", "/export"},
		"table": {"/export?format=parquet", "/export"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := largeWorld(t, 10)
			begun, end := make(chan struct{}), make(chan struct{})
			var g errgroup.Group
			for _, path := range held {
				s := &scriptedWriter{ResponseRecorder: httptest.NewRecorder(), piece: func(int) error {
					begun <- struct{}{}
					<-end
					return nil
				}}
				g.Go(func() error {
					if w.serve(t.Context(), s, path, "192.0.2.1") || s.Code != 200 {
						return fmt.Errorf("%s: %d", path, s.Code)
					}
					return nil
				})
				<-begun
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			s := &scriptedWriter{ResponseRecorder: httptest.NewRecorder()}
			if w.serve(ctx, s, "/export", "192.0.2.1"); s.Code != 503 || !strings.Contains(s.Body.String(), "too many exports") {
				t.Errorf("one more: %d %s", s.Code, s.Body)
			}
			s = &scriptedWriter{ResponseRecorder: httptest.NewRecorder()}
			if w.serve(t.Context(), s, "/export", "192.0.2.2"); s.Code != 200 {
				t.Errorf("another client: %d %s", s.Code, s.Body)
			}
			close(end)
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
