package intake_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/ingest/simnet"
	"cistern/intake"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/klauspost/compress/zstd"
)

// world is a simulated network and a store, without a daemon between them.
type world struct {
	*backfilltest.World
	refusals []intake.Refusal // of the last load
}

func newWorld(t testing.TB, net simnet.Options, o store.Options) *world {
	t.Helper()
	w := &world{World: backfilltest.New(t, backfilltest.Options{Net: net, Store: o})}
	w.Make(backfill.Options{}) // for its directory
	return w
}

// file is a CAR, or what is in its place.
type file struct {
	name string
	body []byte
}

// cars returns the CARs of accounts, as their hosts would send them now.
func (w *world) cars(accounts ...*simnet.Account) (files []file) {
	for i, a := range accounts {
		files = append(files, file{fmt.Sprintf("repos/%02d/%d.car", i%7, i), a.CAR()})
	}
	return files
}

// form writes files in one form of a source, and returns its name.
type form struct {
	name  string
	write func(t testing.TB, files []file) string
}

var forms = []form{
	{"directory", writeDirectory},
	{"tar", func(t testing.TB, files []file) string { return writeFile(t, "x.tar", archive(t, files)) }},
	{"gzip", func(t testing.TB, files []file) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(archive(t, files)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return writeFile(t, "archive", b.Bytes()) // the name does not matter
	}},
	{"zstd", func(t testing.TB, files []file) string {
		z, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return writeFile(t, "x.tar.zst", z.EncodeAll(archive(t, files), nil))
	}},
}

func writeDirectory(t testing.TB, files []file) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		at := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, f.body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func writeFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(at, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return at
}

// archive returns a tar archive of files.
func archive(t testing.TB, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	z := tar.NewWriter(&b)
	for _, f := range files {
		err := z.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.body)), Mode: 0o644})
		if err == nil {
			_, err = z.Write(f.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// loader makes a loader of a source that text names.
func (w *world) loader(text string) *intake.Loader {
	w.T.Helper()
	src, err := intake.Open(w.T.Context(), text, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { src.Close() })
	return w.loaderOf(src)
}

func (w *world) loaderOf(src intake.Source) *intake.Loader {
	w.T.Helper()
	w.refusals = nil
	var mu sync.Mutex
	l, err := intake.New(intake.Options{
		Store: w.Store, Directory: w.Dir, Source: src, SpoolDir: w.T.TempDir(), Now: w.Clock.Now,
		Refused: func(r intake.Refusal) {
			if !mu.TryLock() {
				w.T.Error("two refusals are reported at a time")
			}
			w.refusals = append(w.refusals, r)
			mu.Unlock()
		},
	})
	if err != nil {
		w.T.Fatal(err)
	}
	return l
}

// load loads a source, and requires that nothing of it ends the run.
func (w *world) load(text string) intake.Summary {
	w.T.Helper()
	sum, err := w.loader(text).Run(context.WithoutCancel(w.T.Context()))
	if err != nil {
		w.T.Fatal(err)
	}
	if int64(len(w.refusals)) != sum.Refused {
		w.T.Errorf("%d refusals are reported, %d counted", len(w.refusals), sum.Refused)
	}
	storetest.Check(w.T, w.Store)
	return sum
}

// wants checks the counts of a load.
func (w *world) wants(got intake.Summary, fresh, updated, notNewer, refused int64) {
	w.T.Helper()
	if got.New != fresh || got.Updated != updated || got.NotNewer != notNewer || got.Refused != refused {
		w.T.Errorf("loaded %+v, want %d new, %d updated, %d not newer, %d refused; %+v", got, fresh, updated,
			notNewer, refused, w.refusals)
	}
}

// equal checks that the store has the true state of accounts.
func (w *world) equal(accounts ...*simnet.Account) {
	w.T.Helper()
	for _, a := range accounts {
		w.Equal(a.DID())
	}
}
