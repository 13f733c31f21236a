package backup_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/backup"
	"cistern/objects"
	"cistern/objects/objectstest"
	"cistern/store"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// seeded returns a generator whose seed is printed and can be set by CISTERN_TEST_SEED.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if v := os.Getenv("CISTERN_TEST_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CISTERN_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// place is a destination of a test. age makes its locks as old as if they had been written that
// much earlier.
type place struct {
	objects.Destination
	age func(time.Duration)
}

// each runs a test with a directory and with a bucket.
func each(t *testing.T, test func(t *testing.T, at place)) {
	t.Helper()
	t.Run("directory", func(t *testing.T) {
		t.Parallel()
		test(t, newDirectory(t))
	})
	t.Run("s3", func(t *testing.T) {
		t.Parallel()
		test(t, newBucket(t))
	})
}

func newDirectory(t *testing.T) place {
	t.Helper()
	root := filepath.Join(t.TempDir(), "a", "backups")
	d, err := objects.Open(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	return place{d, func(by time.Duration) {
		locks, err := filepath.Glob(filepath.Join(root, "locks", "*"))
		if err != nil {
			t.Error(err)
		}
		for _, name := range locks {
			if err := os.Chtimes(name, time.Time{}, time.Now().Add(-by)); err != nil {
				t.Error(err)
			}
		}
	}}
}

// shifted is a clock that can be set forward.
type shifted struct {
	mu sync.Mutex
	by time.Duration
}

func (s *shifted) Now() time.Time                  { s.mu.Lock(); defer s.mu.Unlock(); return time.Now().Add(s.by) }
func (s *shifted) Since(t time.Time) time.Duration { return s.Now().Sub(t) }
func (s *shifted) set(by time.Duration)            { s.mu.Lock(); defer s.mu.Unlock(); s.by += by }

func newBucket(t *testing.T) place {
	t.Helper()
	clock := new(shifted)
	mem := s3mem.New(s3mem.WithTimeSource(clock))
	d := objectstest.Bucket(t, mem, gofakes3.WithTimeSource(clock), gofakes3.WithTimeSkewLimit(0))
	return place{d, clock.set}
}

// made is a source with files that a test made.
type made struct {
	t   *testing.T
	rng *rand.Rand
	src backup.Source
	n   int
}

func newMade(t *testing.T, rng *rand.Rand) *made {
	return &made{t: t, rng: rng, src: backup.Source{Dir: t.TempDir(), Epoch: "0123456789abcdef", Head: 1,
		Format: store.FormatVersion, Version: "v1"}}
}

// write writes a file of random bytes.
func (m *made) write(name string, size int) {
	m.t.Helper()
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, m.rng.Uint64())
	}
	b = b[:size]
	if err := os.WriteFile(filepath.Join(m.src.Dir, name), b, 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// next changes the source as a store does: new tables, some fewer, another log and manifest. It
// returns the bytes that are new.
func (m *made) next() (fresh int64) {
	m.t.Helper()
	old, err := filepath.Glob(filepath.Join(m.src.Dir, "*"))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, name := range old {
		if !strings.HasSuffix(name, ".sst") || m.rng.IntN(4) == 0 {
			if err := os.Remove(name); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"%06d.sst", "%06d.sst", "%06d.log", "MANIFEST-%06d"} {
		m.n++
		size := 1000 + m.rng.IntN(5000)
		m.write(fmt.Sprintf(name, m.n), size)
		fresh += int64(size)
	}
	for _, name := range []string{"marker.a", "marker.b"} { // of the same content
		if err := os.WriteFile(filepath.Join(m.src.Dir, name), nil, 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
	m.src.Head += 10
	return fresh
}

// files returns the files of a directory with their contents.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

func mustRun(t *testing.T, o backup.Options) backup.Result {
	t.Helper()
	res, err := backup.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// verified fails the test unless every complete generation is whole, and returns their names.
func verified(t *testing.T, d objects.Destination) (names []string) {
	t.Helper()
	all, err := backup.List(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := backup.Verify(t.Context(), d, all, func(backup.Progress) {},
		func(err error) { t.Errorf("verify: %v", err) })
	if err != nil || bad > 0 {
		t.Errorf("%d damaged, %v", bad, err)
	}
	return listed(t, d)
}

// TestIncremental makes several backups. Each stores what is new and reads no old table, and each
// is restored as it was.
func TestIncremental(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, at place) {
		m := newMade(t, seeded(t))
		var generations []string
		var want []map[string]string
		for i := range 5 {
			fresh := m.next()
			var last backup.Progress
			res := mustRun(t, backup.Options{Destination: at, Source: m.src,
				Progress: func(p backup.Progress) { last = p }})
			if res.Uploaded != fresh || res.Hashed != fresh {
				t.Errorf("backup %d: stored %d bytes and read %d, new are %d", i, res.Uploaded, res.Hashed, fresh)
			}
			if last.Files != last.FilesTotal || last.Bytes != last.BytesTotal || last.Bytes != res.Generation.Bytes {
				t.Errorf("progress ends with %+v, the generation has %d bytes", last, res.Generation.Bytes)
			}
			generations = append(generations, res.Generation.Name)
			want = append(want, files(t, m.src.Dir))
		}
		if names := verified(t, at); !slices.Equal(names, generations) {
			t.Errorf("generations %v, want %v", names, generations)
		}
		for i, g := range append(generations, "") {
			dir := filepath.Join(t.TempDir(), "new", "data")
			got, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Generation: g, Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			i = min(i, len(want)-1)
			restored := files(t, dir)
			delete(restored, "RESTORED")
			if got.Name != generations[i] || !equal(restored, want[i]) {
				t.Errorf("generation %q: restored %s with other files", g, got.Name)
			}
		}
	})
}

func equal(a, b map[string]string) bool {
	for name := range a {
		if a[name] != b[name] {
			return false
		}
	}
	return len(a) == len(b)
}

// TestTablesAreRead: what is known of a table holds for its number, size and time in its log only.
func TestTablesAreRead(t *testing.T) {
	t.Parallel()
	m, at := newMade(t, seeded(t)), newDirectory(t)
	m.write("000001.sst", 1000)
	mustRun(t, backup.Options{Destination: at, Source: m.src})
	file := filepath.Join(m.src.Dir, "000001.sst")
	for _, row := range []struct {
		change string
		do     func()
		hashed int64
	}{
		{"none", func() {}, 0},
		{"its time", func() { _ = os.Chtimes(file, time.Time{}, time.Now().Add(-time.Hour)) }, 1000},
		{"its size and content", func() { m.write("000001.sst", 1001) }, 1001},
		{"the log", func() { m.src.Epoch = "fedcba9876543210" }, 1001},
	} {
		row.do()
		if res := mustRun(t, backup.Options{Destination: at, Source: m.src}); res.Hashed != row.hashed {
			t.Errorf("change of %s: read %d bytes, want %d", row.change, res.Hashed, row.hashed)
		}
	}
	verified(t, at)
}

// errTorn is the failure of torn.
var errTorn = errors.New("torn")

// torn is a destination that fails from its operation number at on, as if the process had ended.
type torn struct {
	objects.Destination
	how string // before, half or after the operation number at

	mu sync.Mutex
	at int
}

// fails counts an operation. now reports whether it is the first one that fails.
func (d *torn) fails() (now, fails bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at--
	return d.at == 0, d.at <= 0
}

func (d *torn) Put(ctx context.Context, name string, c objects.Content) error {
	now, fails := d.fails()
	if !fails {
		return d.Destination.Put(ctx, name, c)
	}
	if now && d.how == "after" {
		_ = d.Destination.Put(ctx, name, c)
	}
	if now && d.how == "half" {
		b, err := io.ReadAll(c.Reader)
		if err != nil {
			return err
		}
		_ = put(ctx, d.Destination, name, b[:len(b)/2])
	}
	return errTorn
}

func (d *torn) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if _, fails := d.fails(); fails {
		return nil, errTorn
	}
	return d.Destination.Get(ctx, name)
}

func (d *torn) List(ctx context.Context, prefix string, fn func(objects.Object) error) error {
	if _, fails := d.fails(); fails {
		return errTorn
	}
	return d.Destination.List(ctx, prefix, fn)
}

func (d *torn) Delete(ctx context.Context, name string) error {
	now, fails := d.fails()
	if !fails || now && d.how == "after" {
		if err := d.Destination.Delete(ctx, name); err != nil || !fails {
			return err
		}
	}
	return errTorn
}

// TestTorn ends a backup at each of its operations. What is left is no backup, or a whole one; the
// generations before are whole; and the next backup succeeds.
func TestTorn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, at place) {
		m := newMade(t, seeded(t))
		m.next()
		mustRun(t, backup.Options{Destination: at, Source: m.src})
		for _, how := range []string{"before", "half", "after"} {
			ended := false
			for k := 1; !ended; k++ {
				m.next()
				before := verified(t, at)
				_, err := backup.Run(t.Context(), backup.Options{Destination: &torn{Destination: at, how: how, at: k},
					Source: m.src, Keep: 2})
				if err != nil && !errors.Is(err, errTorn) {
					t.Fatal(err)
				}
				ended = err == nil
				after := verified(t, at)
				if len(after) == 0 || !slices.Contains(after, before[len(before)-1]) && err != nil &&
					len(after) < 2 {
					t.Fatalf("%s operation %d: generations %v, then %v", how, k, before, after)
				}
				at.age(time.Hour)
				res := mustRun(t, backup.Options{Destination: at, Source: m.src, Keep: 2})
				if names := verified(t, at); len(names) != 2 || names[1] != res.Generation.Name {
					t.Fatalf("%s operation %d: generations %v after %s", how, k, names, res.Generation.Name)
				}
			}
		}
		onlyNamed(t, at)
	})
}

// onlyNamed fails the test if the destination has an object that no generation needs.
func onlyNamed(t *testing.T, d objects.Destination) {
	t.Helper()
	all, err := backup.List(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, g := range all {
		m, err := backup.ReadManifest(t.Context(), d, g)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range m.Files {
			want["tables/"+f.Sum] = true
		}
		want["generations/"+g.Name+"/manifest"], want["generations/"+g.Name+"/complete"] = true, true
	}
	err = d.List(t.Context(), "", func(o objects.Object) error {
		if !want[o.Name] {
			t.Errorf("%s is left", o.Name)
		}
		delete(want, o.Name)
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("missing %v, %v", want, err)
	}
}

// TestKeep deletes old generations and what only they need.
func TestKeep(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, at place) {
		m := newMade(t, seeded(t))
		var names []string
		for i := range 8 {
			m.next()
			res := mustRun(t, backup.Options{Destination: at, Source: m.src, Keep: 3})
			if want := min(1, max(0, i-2)); res.Deleted != want {
				t.Errorf("backup %d deleted %d generations, want %d", i, res.Deleted, want)
			}
			names = append(names, res.Generation.Name)
			got := verified(t, at)
			if want := names[max(0, len(names)-3):]; !slices.Equal(got, want) {
				t.Errorf("generations %v, want %v", got, want)
			}
			onlyNamed(t, at)
		}
	})
}

// TestKeepDamaged: as long as a manifest that is kept cannot be read, no table is deleted.
func TestKeepDamaged(t *testing.T) {
	t.Parallel()
	m, at := newMade(t, seeded(t)), newDirectory(t)
	m.next()
	first := mustRun(t, backup.Options{Destination: at, Source: m.src}).Generation
	m.next()
	second := mustRun(t, backup.Options{Destination: at, Source: m.src}).Generation
	put(t.Context(), at, "generations/"+second.Name+"/manifest", []byte(`{"files":[]}`))
	m.next()
	res, err := backup.Run(t.Context(), backup.Options{Destination: at, Source: m.src, Keep: 2})
	if !errors.Is(err, objects.ErrDamaged) || !strings.Contains(err.Error(), second.Name) || res.Generation.Name == "" {
		t.Errorf("%+v, %v", res, err)
	}
	all, err := backup.List(t.Context(), at)
	if err != nil || len(all) != 3 {
		t.Errorf("%v, %v", all, err)
	}
	if bad, err := backup.Verify(t.Context(), at, []backup.Generation{first, res.Generation}, func(backup.Progress) {},
		func(err error) { t.Error(err) }); bad > 0 || err != nil {
		t.Error(bad, err)
	}
}

func put(ctx context.Context, d objects.Destination, name string, b []byte) error {
	return d.Put(ctx, name, objects.Content{Reader: strings.NewReader(string(b)), Size: int64(len(b)), Sum: sum(b)})
}
