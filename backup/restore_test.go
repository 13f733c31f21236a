package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"cistern/backup"
	"cistern/objects"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// filled returns an open store with repositories, in a directory of the test.
func filled(t *testing.T) *store.Store {
	t.Helper()
	s := storetest.Open(t, store.Options{Dir: filepath.Join(t.TempDir(), "data"), FS: vfs.Default,
		MemTableBytes: 64 << 10, SmallBytes: 4 << 10})
	grow(t, s, 1, 20)
	return s
}

// grow imports repositories with the numbers from first on.
func grow(t *testing.T, s *store.Store, first, n int) {
	t.Helper()
	rng := seeded(t)
	for i := first; i < first+n; i++ {
		did := storetest.DID(i)
		unlock := s.Lock(did)
		r, err := s.RepoOrNew(did)
		if err != nil {
			t.Fatal(err)
		}
		b := s.NewBatch()
		storetest.Reach(b, &r, store.StatePending)
		b.PutRepo(&r)
		err = b.CommitSync()
		unlock()
		if err != nil {
			t.Fatal(err)
		}
		im := storetest.Random(rng, 100).Import(r, storetest.Rev(i))
		im.Done = func(_ store.Repo, err error) {
			if err != nil {
				t.Error(err)
			}
		}
		if err := s.Import(t.Context(), im); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
}

// backUp makes a backup of a store.
func backUp(t *testing.T, s *store.Store, d objects.Destination) backup.Result {
	t.Helper()
	c, err := s.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	res := mustRun(t, backup.Options{Destination: d, Source: backup.Source{Dir: c.Dir, Epoch: c.Epoch, Head: c.Head,
		Format: c.Format}})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return res
}

// opened checks a restored store.
func opened(t *testing.T, dir string, g backup.Generation, repos int64) {
	t.Helper()
	s := storetest.Open(t, store.Options{Dir: dir, FS: vfs.Default})
	if s.Head() != g.Head || s.Epoch() == g.Epoch || s.Counts()["repos"] != repos {
		t.Errorf("restored: head %d, epoch %s, %d repositories; the generation has %d, %s, and %d",
			s.Head(), s.Epoch(), s.Counts()["repos"], g.Head, g.Epoch, repos)
	}
}

// TestRestoreStore restores generations of a store that grows.
func TestRestoreStore(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, at place) {
		s := filled(t)
		first := backUp(t, s, at).Generation
		grow(t, s, 21, 5)
		second := backUp(t, s, at)
		if second.Uploaded*2 > second.Generation.Bytes {
			t.Errorf("the second backup stored %d of %d bytes", second.Uploaded, second.Generation.Bytes)
		}
		for _, row := range []struct {
			name  string
			g     backup.Generation
			repos int64
		}{{first.Name, first, 20}, {"", second.Generation, 25}} {
			dir := filepath.Join(t.TempDir(), "restored")
			if _, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: dir,
				Generation: row.name}); err != nil {
				t.Fatal(err)
			}
			opened(t, dir, row.g, row.repos)
		}
	})
}

// counting counts the bytes of tables that are fetched.
type counting struct {
	objects.Destination
	mu      sync.Mutex
	fetched int64
}

func (d *counting) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := d.Destination.Get(ctx, name)
	if err != nil || !strings.HasPrefix(name, "tables/") {
		return r, err
	}
	b, err := io.ReadAll(r)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fetched += int64(len(b))
	return io.NopCloser(bytes.NewReader(b)), errors.Join(err, r.Close())
}

// TestRestoreLike restores a second backup beside the first, and fetches what is new. A damaged
// table of the first directory is fetched, and the store that is opened there keeps its files.
func TestRestoreLike(t *testing.T) {
	t.Parallel()
	s, at := filled(t), newDirectory(t)
	first := backUp(t, s, at).Generation
	one := filepath.Join(t.TempDir(), "one")
	if _, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: one}); err != nil {
		t.Fatal(err)
	}
	grow(t, s, 21, 2)
	second := backUp(t, s, at)
	damage(t, one, 1)
	tables, err := filepath.Glob(filepath.Join(one, "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	damaged, err := os.Stat(tables[1%len(tables)])
	if err != nil {
		t.Fatal(err)
	}
	d := &counting{Destination: at}
	two := filepath.Join(t.TempDir(), "two")
	if _, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: d, Dir: two, Like: one}); err != nil {
		t.Fatal(err)
	}
	if most := second.Uploaded + damaged.Size() + 8<<10; d.fetched > most || first.Bytes < damaged.Size() {
		t.Errorf("fetched %d bytes, the second backup stored %d and the damaged table has %d", d.fetched, second.Uploaded,
			damaged.Size())
	}
	for name := range files(t, two) {
		a, _ := os.Stat(filepath.Join(one, name)) // nil without such a file; SameFile is false for it
		b, err := os.Stat(filepath.Join(two, name))
		if err != nil || os.SameFile(a, b) && !strings.HasSuffix(name, ".sst") {
			t.Errorf("%s is linked, though the engine may write into it (%v)", name, err)
		}
	}
	opened(t, two, second.Generation, 22)
}

// errCrash ends a restoring.
var errCrash = errors.New("crash")

// TestRestoreCrash ends the restoring at each of its steps, with half a file left. The store
// refuses what is there, and the next call goes on.
func TestRestoreCrash(t *testing.T) {
	t.Parallel()
	s, at := filled(t), newDirectory(t)
	g := backUp(t, s, at).Generation
	ended := false
	for k := 1; !ended; k++ {
		dir, steps, last := filepath.Join(t.TempDir(), "data"), 0, ""
		o := backup.RestoreOptions{Destination: at, Dir: dir}
		o.Step = func(name string) error {
			if steps++; steps >= k {
				last = name
				return errCrash
			}
			return nil
		}
		_, err := backup.Restore(t.Context(), o)
		if ended = err == nil; ended {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		if last != "complete" {
			if _, err := store.Open(store.Options{Dir: dir}); !errors.Is(err, store.ErrHalfRestored) {
				t.Fatalf("step %d: open: %v", k, err)
			}
			damage(t, dir, k)
			o.Step = nil
			if _, err := backup.Restore(t.Context(), o); err != nil {
				t.Fatalf("step %d: %v", k, err)
			}
		}
		opened(t, dir, g, 20)
	}
}

// damage leaves in a half restored directory what a crash could, and what a disk could.
func damage(t *testing.T, dir string, k int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "000001.sst.part"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	if len(tables) == 0 {
		return
	}
	b, err := os.ReadFile(tables[k%len(tables)])
	if err != nil {
		t.Fatal(err)
	}
	if b[k%len(b)] ^= 1; k%3 == 0 {
		b = b[:len(b)/2]
	}
	write(t, tables[k%len(tables)], string(b))
}

// TestRestoreRefuses names what is in the way.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	s, at := filled(t), newDirectory(t)
	first := backUp(t, s, at).Generation
	second := backUp(t, s, at).Generation
	half := func(dir string) {
		_, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: dir, Generation: first.Name,
			Step: func(string) error { return errCrash }})
		if !errors.Is(err, errCrash) {
			t.Error(err)
		}
	}
	for name, row := range map[string]struct {
		prepare    func(dir string)
		generation string
		want       string
	}{
		"a file": {func(dir string) { write(t, filepath.Join(dir, "notes.txt"), "") }, "", "is not empty: it has notes.txt"},
		"a store": {func(dir string) {
			if _, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: dir}); err != nil {
				t.Error(err)
			}
		}, "", "already"},
		"another generation": {half, second.Name, "half restored from generation " + first.Name},
		"a stranger":         {func(dir string) { half(dir); write(t, filepath.Join(dir, "x.sst"), "") }, "", "x.sst"},
		"no such generation": {func(string) {}, "20200101T000000.000Z-00", "not found; 'cistern backup ls "},
	} {
		dir := t.TempDir()
		row.prepare(dir)
		before := files(t, dir)
		_, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: dir, Generation: row.generation})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
		if !equal(before, files(t, dir)) {
			t.Errorf("%s: files were changed", name)
		}
	}
	if _, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: newDirectory(t), Dir: t.TempDir()}); !errors.Is(err, objects.ErrNotFound) {
		t.Errorf("of a destination without a backup: %v", err)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDamaged damages each table in turn: verify and restore name it. After it was deleted, the
// next backup stores it again.
func TestDamaged(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, at place) {
		rng := seeded(t)
		m := newMade(t, rng)
		m.next()
		m.next()
		g := mustRun(t, backup.Options{Destination: at, Source: m.src}).Generation
		manifest, err := backup.ReadManifest(t.Context(), at, g)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range manifest.Files {
			name := "tables/" + f.Sum
			good := read(t, at, name)
			bad := map[string][]byte{"longer": append(slices.Clone(good), 'x'), "missing": nil}
			if len(good) > 0 {
				flipped := slices.Clone(good)
				flipped[rng.IntN(len(good))] ^= 1 << rng.IntN(8)
				bad["flipped"], bad["shorter"] = flipped, good[:len(good)-1]
			}
			for how, content := range bad {
				if err := at.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				if how != "missing" {
					if err := put(t.Context(), at, name, content); err != nil {
						t.Fatal(err)
					}
				}
				refused(t, at, g, name, how)
			}
			if err := at.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			mustRun(t, backup.Options{Destination: at, Source: m.src, Keep: 1})
			if g, err = backup.Find(t.Context(), at, ""); err != nil {
				t.Fatal(err)
			}
		}
		verified(t, at)
	})
}

// refused fails the test unless verify and restore name a damaged object.
func refused(t *testing.T, at place, g backup.Generation, name, how string) {
	t.Helper()
	var reports []string
	bad, err := backup.Verify(t.Context(), at, []backup.Generation{g}, func(backup.Progress) {},
		func(err error) { reports = append(reports, err.Error()) })
	if err != nil || bad != 1 || !strings.Contains(fmt.Sprint(reports), name) {
		t.Errorf("verify of %s %s: %d, %v, %v", how, name, bad, reports, err)
	}
	dir := t.TempDir()
	_, err = backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: dir})
	if !errors.Is(err, objects.ErrDamaged) || !strings.Contains(err.Error(), name) {
		t.Errorf("restore of %s %s: %v", how, name, err)
	}
	if _, err := store.Open(store.Options{Dir: dir}); !errors.Is(err, store.ErrHalfRestored) {
		t.Errorf("open after that: %v", err)
	}
}

func read(t *testing.T, d objects.Destination, name string) []byte {
	t.Helper()
	b, err := objects.ReadAll(t.Context(), d, name, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestManifestNames: a manifest that was made up cannot write outside of the directory.
func TestManifestNames(t *testing.T) {
	t.Parallel()
	at := newDirectory(t)
	ok := strings.Repeat("0", 64)
	for i, f := range []backup.File{
		{Name: "../x", Sum: ok}, {Name: "/etc/x", Sum: ok}, {Name: "a/b", Sum: ok}, {Name: "", Sum: ok},
		{Name: "..", Sum: ok}, {Name: ".x", Sum: ok}, {Name: "x\x00", Sum: ok}, {Name: "x.part", Sum: ok},
		{Name: strings.Repeat("x", 256), Sum: ok}, {Name: "x", Sum: "../../x"}, {Name: "x", Sum: strings.ToUpper(strings.Repeat("a", 64))},
		{Name: "x", Sum: ok, Size: -1}, {Name: "x", Sum: ok, Size: 1<<40 + 1}, {Name: `a\b`, Sum: ok}, {Name: "a\n", Sum: ok},
		{Name: "C:x", Sum: ok}, {Name: "RESTORED", Sum: ok}, {Name: "restored", Sum: ok}, {Name: "x.PART", Sum: ok},
	} {
		forge(t, at, i, backup.Manifest{Format: store.FormatVersion, Files: []backup.File{f}})
		_, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: t.TempDir()})
		if !errors.Is(err, objects.ErrDamaged) {
			t.Errorf("file %+v: %v", f, err)
		}
	}
	for i, other := range []backup.File{{Name: "x", Sum: ok}, {Name: "X", Sum: strings.Repeat("1", 64)}} { // the same name to some file systems
		forge(t, at, 97+i, backup.Manifest{Format: store.FormatVersion, Files: []backup.File{{Name: "x", Sum: ok}, other}})
		if _, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: t.TempDir()}); !errors.Is(err, objects.ErrDamaged) {
			t.Errorf("a file twice: %v", err)
		}
	}
	forge(t, at, 99, backup.Manifest{Format: store.FormatVersion + 1})
	_, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("format %d", store.FormatVersion+1)) {
		t.Errorf("another format: %v", err)
	}
}

// forge writes a generation with a manifest that no backup wrote.
func forge(t *testing.T, d objects.Destination, i int, m backup.Manifest) {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	marker, err := json.Marshal(backup.Generation{Manifest: objects.Sum(sha256.Sum256(text)).String(), Epoch: "0a"})
	if err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("generations/202601%02dT000000.000Z-0a", i)
	err = errors.Join(put(t.Context(), d, dir+"/manifest", text), put(t.Context(), d, dir+"/complete", marker))
	if err != nil {
		t.Fatal(err)
	}
}

// TestMarkers: a generation whose marker is not whole does not exist.
func TestMarkers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, at place) {
		m := newMade(t, seeded(t))
		m.next()
		g := mustRun(t, backup.Options{Destination: at, Source: m.src}).Generation
		name := "generations/" + g.Name + "/complete"
		whole := read(t, at, name)
		for n := range whole {
			if err := put(t.Context(), at, name, whole[:n]); err != nil {
				t.Fatal(err)
			}
			if all, err := backup.List(t.Context(), at); err != nil || len(all) > 0 {
				t.Fatalf("%d bytes of %d of the marker: %v, %v", n, len(whole), all, err)
			}
		}
	})
}
