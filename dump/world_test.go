package dump_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"cistern/dump"
	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/objects"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
)

// line is a row as a reader of an export has it.
type line struct {
	DID             string          `json:"did" parquet:"did"`
	Collection      string          `json:"collection" parquet:"collection"`
	Rkey            string          `json:"rkey" parquet:"rkey"`
	CID             string          `json:"cid" parquet:"cid"`
	Rev             string          `json:"rev" parquet:"rev"`
	IndexedAt       *time.Time      `json:"indexed_at" parquet:"indexed_at,timestamp(microsecond)"`
	CreatedAt       *time.Time      `json:"created_at" parquet:"created_at,timestamp(microsecond)"`
	Record          json.RawMessage `json:"record" parquet:"record,optional,json"`
	Unrepresentable string          `json:"unrepresentable" parquet:"unrepresentable,optional"`
	CBOR            []byte          `json:"-" parquet:"cbor,optional"`
	Base64          string          `json:"cbor" parquet:"-"`

	// of other lines
	Resume   string `json:"resume" parquet:"-"`
	Complete bool   `json:"complete" parquet:"-"`
	Rows     int64  `json:"rows" parquet:"-"`
	Head     uint64 `json:"head" parquet:"-"`
}

func (l *line) uri() string { return l.DID + "/" + l.Collection + "/" + l.Rkey }

func format(t testing.TB, name string) dump.Format {
	t.Helper()
	f, err := dump.ParseFormat(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func events(t testing.TB, collections, dids []string) *filter.Events {
	t.Helper()
	f, err := filter.CompileEvents(filter.EventsConfig{Collections: collections, DIDs: dids})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// read reads a file of a format, as it comes from WriteFile.
func read(t testing.TB, name string, text []byte) (rows, marks []line) {
	t.Helper()
	if name == "parquet" {
		rows, err := parquet.Read[line](bytes.NewReader(text), int64(len(text)))
		if err != nil {
			t.Fatal(err)
		}
		return rows, nil
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 32<<20)
	for lines.Scan() {
		var l line
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		var epoch struct{ Epoch string }
		if err := json.Unmarshal(lines.Bytes(), &epoch); err != nil {
			t.Fatalf("%v in %s", err, lines.Bytes())
		}
		if epoch.Epoch != "" {
			d = json.NewDecoder(bytes.NewReader(lines.Bytes()))
		}
		if err := d.Decode(&l); err != nil {
			t.Fatalf("%v in %s", err, lines.Bytes())
		}
		if l.DID == "" {
			marks = append(marks, l)
			continue
		}
		if len(marks) > 0 && marks[len(marks)-1].Complete {
			t.Fatal("a row follows the end")
		}
		l.CBOR, _ = base64.StdEncoding.DecodeString(l.Base64)
		rows = append(rows, l)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return rows, marks
}

// readParts reads the rows of all parts of an export.
func readParts(t testing.TB, d objects.Destination, prefix string, m dump.Manifest) (rows []line) {
	t.Helper()
	for _, p := range m.Parts {
		r, err := d.Get(t.Context(), prefix+p.Name)
		if err != nil {
			t.Fatal(err)
		}
		c := objects.NewChecked(t.Context(), r)
		text, err := io.ReadAll(c)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		sum, err := objects.ParseSum(p.SHA)
		if err := errors.Join(err, c.Is(p.Bytes, sum)); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if m.Format == "ndjson" {
			z, err := zstd.NewReader(nil)
			if err != nil {
				t.Fatal(err)
			}
			if text, err = z.DecodeAll(text, nil); err != nil {
				t.Fatal(err)
			}
			z.Close()
		}
		got, _ := read(t, m.Format, text)
		if int64(len(got)) != p.Rows {
			t.Errorf("%s has %d rows, not %d", p.Name, len(got), p.Rows)
		}
		if p.Rows > 0 && (p.First != "at://"+got[0].uri() || p.Last != "at://"+got[len(got)-1].uri()) {
			t.Errorf("%s begins with %s and ends with %s", p.Name, p.First, p.Last)
		}
		rows = append(rows, got...)
	}
	return rows
}

// manifest returns the manifest of a complete export.
func manifest(t testing.TB, d objects.Destination, prefix string) (m dump.Manifest) {
	t.Helper()
	text, err := objects.ReadAll(t.Context(), d, prefix+"manifest.json", 1<<20)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fold puts rows into a map, each of which must be there once.
func fold(t testing.TB, rows []line) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, l := range rows {
		if m[l.uri()] != "" {
			t.Errorf("%s comes twice", l.uri())
		}
		m[l.uri()] = l.CID + " " + l.Rev
	}
	return m
}

// shown returns what the store shows of repositories 1 to n: URI → CID and rev.
func shown(t testing.TB, s *store.Store, n int, wants *filter.Events) map[string]string {
	t.Helper()
	m := map[string]string{}
	for i := 1; i <= n; i++ {
		r, err := s.RepoOrNew(storetest.DID(i))
		if err != nil {
			t.Fatal(err)
		}
		if r.Ordinal == 0 || r.Status.Hidden() || !wants.DID(r.DID) {
			continue
		}
		collections, err := s.Collections(&r)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range collections {
			if !wants.Collection([]byte(c)) {
				continue
			}
			for _, rec := range storetest.List(t, s, &r, c, "", 1<<20, false) {
				m[r.DID+"/"+c+"/"+rec.Rkey] = rec.CID.String() + " " + rec.Rev
			}
		}
	}
	return m
}

// follow applies the log after a head to what an export has.
func follow(t testing.TB, s *store.Store, head uint64, wants *filter.Events, m map[string]string) {
	t.Helper()
	to := storetest.Head(t, s)
	for at := head + 1; at <= to; {
		next, err := s.ReadLog(t.Context(), at, 1000, func(e *store.Event) error {
			if !wants.DID(e.DID) {
				return nil
			}
			key := e.DID + "/" + string(e.Collection) + "/" + string(e.Rkey)
			switch {
			case e.Kind == store.KindAccount && e.Status.Hidden():
				maps.DeleteFunc(m, func(k, _ string) bool { return len(k) > len(e.DID) && k[:len(e.DID)+1] == e.DID+"/" })
			case e.Kind != store.KindRecord || !wants.Collection(e.Collection):
			case e.Action == store.Delete:
				delete(m, key)
			default:
				m[key] = e.CID.String() + " " + e.Rev
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		at = next
	}
}

// hold gives a repository its first copy.
func hold(t testing.TB, s *store.Store, did, rev string, m storetest.Records) {
	t.Helper()
	importRepo(t, s, did, rev, m)
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
}

// importRepo gives a repository its first copy, visible after FlushImports.
func importRepo(t testing.TB, s *store.Store, did, rev string, m storetest.Records) {
	t.Helper()
	var im store.Import
	wait, err := s.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
		b.Track(r, store.ByOperator, store.PriorityOperator)
		im = m.Import(*r, rev)
		b.PutRepo(r)
		return nil
	})
	if err == nil {
		err = wait()
	}
	if err != nil {
		t.Fatal(err)
	}
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Errorf("import of %s: %v", did, err)
		}
	}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
}

const authored = 8 // repositories

func author(t testing.TB, seed uint64) *storetest.Author {
	return &storetest.Author{T: t, Store: storetest.Open(t, store.Options{}),
		Rand: rand.New(rand.NewPCG(seed, 3)), Repos: authored}
}

// busy is a source whose store changes between pages, and which fails on demand.
type busy struct {
	*store.Store
	page   func()
	fail   func() error
	onlyAt int // rows a page examines; 0: as asked
}

func (b *busy) ReadRecords(ctx context.Context, p *store.Pass, at store.RecordPosition, rowsMax int,
	fn func(*store.Event, store.RecordPosition) bool,
) (store.RecordPosition, bool, error) {
	if b.page != nil {
		b.page()
	}
	if b.fail != nil {
		if err := b.fail(); err != nil {
			return at, false, err
		}
	}
	if b.onlyAt > 0 {
		rowsMax = b.onlyAt
	}
	return b.Store.ReadRecords(ctx, p, at, rowsMax, fn)
}

func wantEqual(t testing.TB, want, got map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// cborMap makes a record of keys and raw values.
func cborMap(fields ...string) []byte {
	b := []byte{0xa0 | byte(len(fields)/2)}
	for i := 0; i < len(fields); i += 2 {
		b = append(append(b, 0x60|byte(len(fields[i]))), fields[i]...)
		b = append(b, fields[i+1]...)
	}
	return b
}

func cborText(s string) string {
	if len(s) > 23 {
		return string([]byte{0x78, byte(len(s))}) + s
	}
	return string([]byte{0x60 | byte(len(s))}) + s
}

var formats = []string{"ndjson", "parquet"}

func rev(at time.Time) string {
	v := uint64(at.UnixMicro()) << 10
	const letters = "234567abcdefghijklmnopqrstuvwxyz"
	var b [13]byte
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = letters[v&31]
		v >>= 5
	}
	if _, err := repo.ParseTID(string(b[:])); err != nil {
		panic(fmt.Sprint(err))
	}
	return string(b[:])
}
