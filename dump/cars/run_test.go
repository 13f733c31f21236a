package cars_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/dump/cars"
	"cistern/dump/cars/manifest"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/objects"
	"cistern/objects/lease"
	"cistern/store"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// newWorld returns a world whose store has all repositories of its network.
func newWorld(t *testing.T, o simnet.Options) *backfilltest.World {
	t.Helper()
	w := backfilltest.New(t, backfilltest.Options{Net: o})
	w.Make(backfill.Options{})
	w.Go()
	w.Add(w.Net.DIDs()...)
	w.Settle(w.Net.DIDs()...)
	w.Stop()
	return w
}

// read returns the files of a directory.
func read(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		files[rel], err = os.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// want checks the files of an export of a world: all accounts are in the manifest once, those of
// left without a CAR, and the others with the CAR that their host would send.
func want(t *testing.T, w *backfilltest.World, files map[string][]byte, left map[string]string) {
	t.Helper()
	var m manifest.Manifest
	if err := json.Unmarshal(files["manifest.json"], &m); err != nil {
		t.Fatal(err)
	}
	seen, found := map[string]bool{}, len(m.Parts)+1
	for _, p := range m.Parts {
		text := files[p.Name]
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != p.SHA || int64(len(text)) != p.Bytes ||
			int64(bytes.Count(text, []byte("\n"))) != p.Lines {
			t.Errorf("part %+v has %d bytes", p, len(text))
		}
		d := json.NewDecoder(bytes.NewReader(text))
		for d.More() {
			var l manifest.Line
			if err := d.Decode(&l); err != nil {
				t.Fatal(err)
			}
			if seen[l.DID] {
				t.Errorf("%s is in the manifest twice", l.DID)
			}
			seen[l.DID] = true
			if why, ok := left[l.DID]; ok {
				if !strings.Contains(l.LeftOut, why) || l.Path != "" {
					t.Errorf("%+v, want %q", l, why)
				}
				continue
			}
			found++
			wantCAR(t, w.Net.Account(l.DID).Truth(), l, files[l.Path])
		}
	}
	if len(seen) != len(w.Net.DIDs()) || int64(len(seen)-len(left)) != m.Repositories || int64(len(left)) != m.LeftOut {
		t.Errorf("%d accounts in %+v", len(seen), m)
	}
	if len(files) != found {
		t.Errorf("%d files, want %d: %v", len(files), found, slices.Sorted(maps.Keys(files)))
	}
}

func wantCAR(t *testing.T, truth simnet.Truth, l manifest.Line, body []byte) {
	t.Helper()
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != l.SHA || int64(len(body)) != l.Bytes ||
		l.Rev != truth.Rev || l.Records != int64(len(truth.Records)) || l.LeftOut != "" {
		t.Errorf("%+v for %d bytes, rev %s, %d records", l, len(body), truth.Rev, len(truth.Records))
	}
	car, err := repo.ReadCAR(bytes.NewReader(body), repo.CAROptions{})
	if err != nil {
		t.Errorf("%s: %v", l.DID, err)
		return
	}
	defer car.Close()
	records := map[string]repo.CID{}
	err = car.Walk(truth.Data, func(leaf repo.Leaf) error {
		records[string(leaf.Key)] = leaf.CID
		return nil
	})
	if err != nil || car.Root() != truth.Commit || !maps.Equal(records, truth.Records) {
		t.Errorf("%s: %d records under %s, %v; want %d under %s", l.DID, len(records), car.Root(), err,
			len(truth.Records), truth.Commit)
	}
}

// TestRun exports a world with accounts that are left out, for each reason.
func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 31, Repos: 30, Empty: 2, OddKeys: 1})
	dids := w.Net.DIDs()
	left := map[string]string{dids[3]: "takendown", dids[4]: "not all of its records", dids[5]: "does not agree"}
	restore := damage(w, dids)
	dir := filepath.Join(t.TempDir(), "export")
	m, err := cars.Run(t.Context(), cars.Options{Source: w.Store, Destination: objects.NewDirectory(dir),
		PageRepos: 7, TempDir: t.TempDir()})
	if err != nil || m.Damaged != 1 || m.Head != w.Store.Head() {
		t.Fatalf("%+v, %v", m, err)
	}
	want(t, w, read(t, dir), left)
	if _, err := cars.Run(t.Context(), cars.Options{Source: w.Store, Destination: objects.NewDirectory(dir)}); !errors.Is(err, cars.ErrComplete) {
		t.Errorf("again: %v", err)
	}
	restore()
}

// damage hides one account, has records of another one missing, and gives a third another tree.
func damage(w *backfilltest.World, dids []string) (restore func()) {
	var data repo.CID
	change := func(status store.Status, lacks bool, other repo.CID) {
		w.Change(dids[3], func(r *store.Repo) { r.Status = status })
		w.Change(dids[4], func(r *store.Repo) { r.Lacks = lacks })
		w.Change(dids[5], func(r *store.Repo) { data, r.Data = r.Data, other })
	}
	change(store.StatusTakendown, true, repo.HashCID([]byte("other")))
	return func() { change(store.StatusActive, false, data) }
}

// TestOneAtATime: while an export runs, another one into the same destination or archive is refused before
// it writes anything.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 35, Repos: 6})
	dir := filepath.Join(t.TempDir(), "export")
	other := func(cars.Progress) {
		_, err := cars.Run(t.Context(), cars.Options{Source: w.Store, Destination: objects.NewDirectory(dir)})
		if !errors.Is(err, lease.ErrLocked) {
			t.Errorf("a second export: %v", err)
		}
	}
	_, err := cars.Run(t.Context(), cars.Options{Source: w.Store, Destination: objects.NewDirectory(dir), Progress: other})
	if err != nil {
		t.Fatal(err)
	}
	want(t, w, read(t, dir), nil)
	name := filepath.Join(t.TempDir(), "x.tar")
	first, err := cars.CreateArchive(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cars.CreateArchive(name); !errors.Is(err, objects.ErrInUse) {
		t.Errorf("a second archive: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(name)); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestDIDs exports some accounts, one of which is unknown.
func TestDIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 32, Repos: 5})
	dids := append(w.Net.DIDs()[1:4], "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	dir := t.TempDir()
	m, err := cars.Run(t.Context(), cars.Options{Source: w.Store, Destination: objects.NewDirectory(dir),
		DIDs: dids, PageRepos: 3})
	if err != nil || m.Repositories != 3 || m.LeftOut != 1 || len(m.Parts) != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}

// flaky is a destination that fails after some files.
type flaky struct {
	objects.Destination
	left atomic.Int64
}

var errFlaky = errors.New("destination fails")

func (f *flaky) Put(ctx context.Context, name string, c objects.Content) error {
	if f.left.Add(-1) < 0 {
		return errFlaky
	}
	return f.Destination.Put(ctx, name, c)
}

// TestResume has each of many runs fail after some files. The last one completes the export.
func TestResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 33, Repos: 40, RecordsMedian: 5})
	dir := filepath.Join(t.TempDir(), "export")
	runs := 0
	for n := int64(1); ; n += 3 {
		to := &flaky{Destination: objects.NewDirectory(dir)}
		to.left.Store(n)
		_, err := cars.Run(t.Context(), cars.Options{Source: w.Store, Destination: to, PageRepos: 6})
		if err == nil {
			break
		}
		if !errors.Is(err, errFlaky) {
			t.Fatal(err)
		}
		if runs++; runs > 20 {
			t.Fatal("no end")
		}
		if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err == nil {
			t.Fatal("an export that failed has a manifest")
		}
	}
	want(t, w, read(t, dir), nil)
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "progress.json"), []byte(`{"epoch":"another"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := cars.Run(t.Context(), cars.Options{Source: w.Store, Destination: objects.NewDirectory(other)})
	if err == nil || !strings.Contains(err.Error(), "another export") {
		t.Errorf("a part of the export of another store: %v", err)
	}
}

// TestArchive exports into archives of each compression.
func TestArchive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Seed: 34, Repos: 12})
	for _, name := range []string{"x.tar", "x.tar.gz", "x.tgz", "x.tar.zst"} {
		at := filepath.Join(t.TempDir(), name)
		if !cars.IsArchive(at) {
			t.Errorf("%s is no archive", at)
		}
		a, err := cars.CreateArchive(at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cars.Run(t.Context(), cars.Options{Source: w.Store, Archive: a, PageRepos: 5}); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		want(t, w, unpack(t, at), nil)
		if _, err := cars.CreateArchive(at); !errors.Is(err, fs.ErrExist) {
			t.Errorf("again: %v", err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		again := filepath.Join(t.TempDir(), name)
		if a, err = cars.CreateArchive(again); err != nil {
			t.Fatal(err)
		}
		if _, err := cars.Run(cancelled, cars.Options{Source: w.Store, Archive: a}); err == nil {
			t.Error("a cancelled run has no error")
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(filepath.Dir(again)); err != nil || len(left) > 0 {
			t.Errorf("left %v, %v", left, err)
		}
	}
}

// unpack returns the files of an archive.
func unpack(t *testing.T, name string) map[string][]byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	switch {
	case strings.HasSuffix(name, "gz"):
		r, err = gzip.NewReader(f)
	case strings.HasSuffix(name, "zst"):
		z, zerr := zstd.NewReader(f)
		defer z.Close()
		r, err = z, zerr
	}
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for z := tar.NewReader(r); ; {
		h, err := z.Next()
		if err == io.EOF {
			return files
		}
		if err == nil {
			files[h.Name], err = io.ReadAll(z)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
