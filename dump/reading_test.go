package dump_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"cistern/dump"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"
)

// TestRows: a row has what the store has of the record, and times where they are known. A record
// without a JSON form has the reason instead.
func TestRows(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	at := time.Date(2026, 11, 30, 12, 0, 0, 123456000, time.UTC)
	records := storetest.Records{
		"app.test.a/zulu":   cborMap("createdAt", cborText("2026-01-02T03:04:05.678Z")),
		"app.test.a/offset": cborMap("tags", "\x82\x01\xa1\x61x\x43abc", "createdAt", cborText("2026-01-02T03:04:05+01:00")),
		"app.test.b/wrong":  cborMap("createdAt", cborText("yesterday")),
		"app.test.b/early":  cborMap("createdAt", cborText("0000-01-01T00:00:00Z")),
		"app.test.b/number": cborMap("createdAt", "\x05"),
		"app.test.b/nested": cborMap("a", "\xa1"+cborText("createdAt")+cborText("2026-01-02T03:04:05Z")),
		"app.test.b/float":  cborMap("x", "\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
	}
	hold(t, s, storetest.DID(1), rev(at), records)
	created := map[string]time.Time{
		"zulu":   time.Date(2026, 1, 2, 3, 4, 5, 678000000, time.UTC),
		"offset": time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC),
	}
	for _, name := range formats {
		for _, wide := range []bool{false, true} {
			var out bytes.Buffer
			r := dump.Begin(s, events(t, nil, nil))
			w, err := r.WriteFile(t.Context(), &out, format(t, name), dump.FileOptions{CBOR: wide}, nil)
			if err != nil || w.Rows != int64(len(records)) || !r.Ended() {
				t.Fatalf("%s: %+v, %v", name, w, err)
			}
			rows, marks := read(t, name, out.Bytes())
			if len(rows) != len(records) || len(marks) > 0 {
				t.Errorf("%s: %d rows, %d other lines", name, len(rows), len(marks))
			}
			for _, l := range rows {
				body := records[l.Collection+"/"+l.Rkey]
				if l.CID != repo.HashCID(body).String() || l.Rev != rev(at) || l.DID != storetest.DID(1) {
					t.Errorf("%s: %+v", name, l)
				}
				if l.IndexedAt == nil || !l.IndexedAt.Equal(at) {
					t.Errorf("%s: %s is indexed at %v", name, l.Rkey, l.IndexedAt)
				}
				want, known := created[l.Rkey]
				if known != (l.CreatedAt != nil) || known && !l.CreatedAt.Equal(want) {
					t.Errorf("%s: %s is created at %v, want %v", name, l.Rkey, l.CreatedAt, want)
				}
				if odd := l.Rkey == "float"; odd != (l.Unrepresentable != "") || odd == (len(l.Record) > 0) {
					t.Errorf("%s: %s is %s, %q", name, l.Rkey, l.Record, l.Unrepresentable)
				}
				if wide != bytes.Equal(l.CBOR, body) {
					t.Errorf("%s: %s has the bytes %x", name, l.Rkey, l.CBOR)
				}
			}
		}
	}
}

// TestReadingEqualsStore reads stores that others change meanwhile, in files of few rows, each by a
// reading that continues from a token. The rows with the log after the head are the store.
func TestReadingEqualsStore(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(30) {
		for _, name := range formats {
			t.Run(fmt.Sprintf("seed=%d/%s", seed, name), func(t *testing.T) {
				t.Parallel()
				a := author(t, seed)
				for range 60 {
					a.Step()
				}
				var collections, dids []string
				switch seed % 3 {
				case 1:
					collections = []string{"app.test.c1", "app.test.c3"}
				case 2:
					dids = []string{storetest.DID(2), storetest.DID(5), storetest.DID(99)}
				}
				f := events(t, collections, dids)
				src := &busy{Store: a.Store, onlyAt: 1 + a.Rand.IntN(40)}
				quiet := seed%5 == 0
				if !quiet {
					src.page = func() {
						if a.Rand.IntN(3) == 0 {
							a.Step()
						}
					}
				}
				storetest.Head(t, a.Store)
				want := shown(t, a.Store, authored, f)
				r := dump.Begin(src, f)
				head := r.Head()
				var all []line
				for !r.Ended() {
					var out bytes.Buffer
					o := dump.FileOptions{Tokens: true, RowsMax: 1 + int64(a.Rand.IntN(50))}
					w, err := r.WriteFile(t.Context(), &out, format(t, name), o, nil)
					if err != nil {
						t.Fatal(err)
					}
					rows, marks := read(t, name, out.Bytes())
					if int64(len(rows)) != w.Rows || w.Rows > o.RowsMax {
						t.Fatalf("%d rows, want %d", len(rows), w.Rows)
					}
					all = append(all, rows...)
					if name == "ndjson" {
						last := marks[len(marks)-1]
						if last.Complete != r.Ended() || !last.Complete && last.Resume != r.Token() ||
							last.Complete && (last.Rows != w.Rows || last.Head != head) {
							t.Fatalf("the file ends with %+v", last)
						}
					}
					if !r.Ended() {
						if r, err = dump.Resume(src, f, r.Token()); err != nil || r.Head() != head {
							t.Fatalf("head %d, %v", r.Head(), err)
						}
					}
				}
				got := fold(t, all)
				if quiet {
					wantEqual(t, want, got)
				}
				follow(t, a.Store, head, f, got)
				wantEqual(t, shown(t, a.Store, authored, f), got)
			})
		}
	}
}

// TestResumeRefuses: a token continues no other reading.
func TestResumeRefuses(t *testing.T) {
	t.Parallel()
	a := author(t, 1)
	for range 30 {
		a.Step()
	}
	token := dump.Begin(a.Store, events(t, []string{"app.test.c1"}, nil)).Token()
	other := author(t, 1)
	for what, err := range map[string]error{
		"filter": second(dump.Resume(a.Store, events(t, []string{"app.test.c2"}, nil), token)),
		"order":  second(dump.Resume(a.Store, events(t, nil, []string{storetest.DID(1)}), token)),
		"store":  second(dump.Resume(other.Store, events(t, []string{"app.test.c1"}, nil), token)),
		"text":   second(dump.Resume(a.Store, events(t, []string{"app.test.c1"}, nil), token+"A!")),
		"empty":  second(dump.Resume(a.Store, events(t, []string{"app.test.c1"}, nil), "")),
	} {
		if !errors.Is(err, dump.ErrToken) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestWriteFails: an error of the writer or of the source ends a file.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	a := author(t, 2)
	for range 60 {
		a.Step()
	}
	bad := errors.New("disk full")
	for _, name := range formats {
		r := dump.Begin(a.Store, events(t, nil, nil))
		if _, err := r.WriteFile(t.Context(), failing{bad}, format(t, name), dump.FileOptions{Tokens: true}, nil); !errors.Is(err, bad) {
			t.Errorf("%s: %v", name, err)
		}
		n := 0
		src := &busy{Store: a.Store, onlyAt: 10, fail: func() error {
			if n++; n > 2 {
				return bad
			}
			return nil
		}}
		var out bytes.Buffer
		r = dump.Begin(src, events(t, nil, nil))
		if _, err := r.WriteFile(t.Context(), &out, format(t, name), dump.FileOptions{}, nil); !errors.Is(err, bad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
