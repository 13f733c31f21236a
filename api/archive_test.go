package api_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"cistern/api"
	"cistern/dump/cars/manifest"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// archived is what archives of one export have.
type archived struct {
	files map[string][]byte
	all   manifest.Manifest // the zero value: the last archive has none
	next  string            // the token of the last archive
}

// add reads an archive.
func (a *archived) add(t testing.TB, text []byte) {
	t.Helper()
	a.all, a.next = manifest.Manifest{}, ""
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil || a.all.Format != "" {
			t.Fatalf("%s: %v, behind the manifest: %v", h.Name, err, a.all.Format != "")
		}
		switch h.Name {
		case "manifest.json":
			err = json.Unmarshal(body, &a.all)
		case "resume.json":
			var next struct{ Resume string }
			err = json.Unmarshal(body, &next)
			a.next = next.Resume
		default:
			if a.files[h.Name] != nil {
				t.Errorf("%s comes twice", h.Name)
			}
			a.files[h.Name] = body
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// lines reads the parts of the manifest, whose sums those of the last archive must have.
func (a *archived) lines(t testing.TB) map[string]manifest.Line {
	t.Helper()
	for _, p := range a.all.Parts {
		text := a.files[p.Name]
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != p.SHA || int64(len(text)) != p.Bytes {
			t.Errorf("part %+v has %d bytes", p, len(text))
		}
	}
	lines := map[string]manifest.Line{}
	for _, name := range slices.Sorted(maps.Keys(a.files)) {
		if !strings.HasPrefix(name, "manifest-") {
			continue
		}
		for d := json.NewDecoder(bytes.NewReader(a.files[name])); d.More(); {
			var l manifest.Line
			if err := d.Decode(&l); err != nil {
				t.Fatal(err)
			}
			if _, twice := lines[l.DID]; twice {
				t.Errorf("%s has two lines", l.DID)
			}
			lines[l.DID] = l
		}
	}
	return lines
}

// archivedWorld is a world of repositories, one of which is larger than what is held in memory, and the
// reasons why some of them have no CAR.
func archivedWorld(t testing.TB) (w *world, held map[string]storetest.Records, left map[string]string) {
	t.Helper()
	w, held = newWorld(t, api.Options{}), map[string]storetest.Records{}
	rng := rand.New(rand.NewPCG(3, 1))
	for n := range 12 {
		m := storetest.Random(rng, rng.IntN(40))
		if n == 4 {
			for i := range 14 {
				m[fmt.Sprintf("app.test.large/%02d", i)] = storetest.Text(strings.Repeat("x", 400_000))
			}
		}
		held[storetest.DID(n)] = m
		w.hold(t, storetest.DID(n), m)
	}
	left = map[string]string{storetest.DID(2): "takendown", storetest.DID(7): "not all of its records",
		storetest.DID(8): "does not agree"}
	w.update(t, storetest.DID(2), func(b *store.Batch, r *store.Repo) {
		b.Hide(r, store.StatusTakendown, store.OriginHost, store.Retry{})
	})
	w.update(t, storetest.DID(7), func(b *store.Batch, r *store.Repo) {
		b.Enqueue(r, store.PriorityRetry)
		r.Lacks = true
	})
	var other repo.CID
	restore := func(_ *store.Batch, r *store.Repo) { r.Data, other = other, r.Data }
	other = repo.HashCID([]byte("other"))
	w.update(t, storetest.DID(8), restore)
	t.Cleanup(func() { w.update(t, storetest.DID(8), restore) })
	w.add(t, storetest.DID(50)) // has no copy
	storetest.Head(t, w.store)
	return w, held, left
}

// wantArchived checks what archives have of some accounts.
func (w *world) wantArchived(t testing.TB, a *archived, held map[string]storetest.Records, left map[string]string) {
	t.Helper()
	lines, files := a.lines(t), 0
	for _, did := range slices.Sorted(maps.Keys(held)) {
		l := lines[did]
		if why := left[did]; why != "" {
			if !strings.Contains(l.LeftOut, why) || l.Path != "" {
				t.Errorf("%+v, want %q", l, why)
			}
			continue
		}
		files++
		row, body := w.row(t, did), a.files[l.Path]
		sum := sha256.Sum256(body)
		if l.SHA != hex.EncodeToString(sum[:]) || l.Bytes != int64(len(body)) || l.Records != row.Records || l.Rev != row.Rev {
			t.Errorf("%+v for %d bytes of %s", l, len(body), row.Rev)
			continue
		}
		if got := w.carRecords(t, body, &row); !maps.EqualFunc(held[did], got, bytes.Equal) {
			t.Errorf("%s: %d records, want %d", did, len(got), len(held[did]))
		}
	}
	if len(lines) != len(held) {
		t.Errorf("%d lines for %d accounts", len(lines), len(held))
	}
	cars := slices.DeleteFunc(slices.Collect(maps.Keys(a.files)), func(name string) bool { return !strings.HasSuffix(name, ".car") })
	if len(cars) != files {
		t.Errorf("%d CARs, want %d", len(cars), files)
	}
}

// TestExportCARs exports all repositories as an archive, whole and in pieces of any size, while others
// are imported: each repository of the head comes once, or has the reason why it does not.
func TestExportCARs(t *testing.T) {
	t.Parallel()
	w, held, left := archivedWorld(t)
	for _, limit := range []int{1, 3, 5, 12, 100} {
		a := archived{files: map[string][]byte{}}
		q := url.Values{"format": {"car"}, "limit": {fmt.Sprint(limit)}}
		known := maps.Clone(held)
		for pieces := 1; ; pieces++ {
			var text string
			res := call(t, "GET", w.public.URL+"/export?"+q.Encode(), "", nil, &text)
			if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/x-tar" {
				t.Fatalf("%v: %d %s %.200s", q, res.StatusCode, res.Header.Get("Content-Type"), text)
			}
			a.add(t, []byte(text))
			if a.next == "" || pieces > 20 {
				break
			}
			q.Set("resume", a.next)
			if limit == 5 { // this one is left to the log
				did := storetest.DID(100 + pieces)
				held[did] = storetest.Records{"app.test.a/x": storetest.Text(did)}
				w.hold(t, did, held[did])
				storetest.Head(t, w.store)
			}
		}
		if a.all.Format != "car" || a.all.Resumed != (limit < len(known)) {
			t.Errorf("limit %d: manifest %+v", limit, a.all)
		}
		w.wantArchived(t, &a, known, left)
	}
}

// TestExportCARsOfSome exports the repositories that are asked for, also compressed.
func TestExportCARsOfSome(t *testing.T) {
	t.Parallel()
	w, held, left := archivedWorld(t)
	some := map[string]storetest.Records{}
	for _, n := range []int{2, 4, 9} {
		some[storetest.DID(n)] = held[storetest.DID(n)]
	}
	some[storetest.DID(50)], some[storetest.DID(51)] = nil, nil
	left[storetest.DID(50)], left[storetest.DID(51)] = "not fetched yet", "unknown"
	for _, coding := range []string{"identity", "gzip", "zstd"} {
		for _, limit := range []string{"2", "9"} {
			q := url.Values{"format": {"car"}, "dids": slices.Collect(maps.Keys(some)), "limit": {limit}}
			a := archived{files: map[string][]byte{}}
			for a.all.Format == "" {
				res, text := w.export(t, q, map[string]string{"Accept-Encoding": coding})
				a.add(t, decoded(t, res.Header.Get("Content-Encoding"), text))
				q.Set("resume", a.next)
			}
			w.wantArchived(t, &a, some, left)
		}
	}
	for _, c := range []struct{ query, says string }{
		{"collections=app.test.a", "neither collections nor include"},
		{"include=cbor", "neither collections nor include"},
		{"resume=x", "resume"},
	} {
		var e refused
		res := call(t, "GET", w.public.URL+"/export?format=car&"+c.query, "", nil, &e)
		if res.StatusCode != 400 || e.Error != "InvalidRequest" || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %d %+v", c.query, res.StatusCode, e)
		}
	}
}

// decoded returns the bytes of an answer without its coding.
func decoded(t testing.TB, coding string, text []byte) []byte {
	t.Helper()
	var r io.Reader = bytes.NewReader(text)
	var err error
	switch coding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "zstd":
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if text, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	return text
}

// TestExportCARsBreaksOff: an archive breaks off within a large CAR when its account is hidden, and what
// follows from its last token is complete.
func TestExportCARsBreaksOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	large := storetest.Records{}
	for i := range 14 {
		large[fmt.Sprintf("app.test.large/%02d", i)] = storetest.Text(strings.Repeat("x", 400_000))
	}
	w.hold(t, alice, large)
	w.hold(t, bob, storetest.Records{"app.test.a/x": storetest.Text("x")})
	storetest.Head(t, w.store)
	s := &scriptedWriter{ResponseRecorder: httptest.NewRecorder(), piece: func(n int) error {
		if n == 3 {
			w.update(t, alice, func(b *store.Batch, r *store.Repo) {
				b.Hide(r, store.StatusTakendown, store.OriginHost, store.Retry{})
			})
		}
		return nil
	}}
	broken := w.serve(t.Context(), s, "/export?format=car", "192.0.2.1")
	if want := 3 * 64 << 10; !broken || s.Body.Len() != want {
		t.Errorf("broken %v after %d bytes, want %d", broken, s.Body.Len(), want)
	}
	a := archived{files: map[string][]byte{}}
	_, text := w.export(t, url.Values{"format": {"car"}}, nil)
	a.add(t, text)
	w.wantArchived(t, &a, map[string]storetest.Records{alice: nil, bob: {"app.test.a/x": storetest.Text("x")}},
		map[string]string{alice: "takendown"})
}
