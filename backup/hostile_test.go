package backup_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/backup"
	"cistern/objects"
	"cistern/objects/lease"
	"cistern/objects/objectstest"
	"cistern/store"
)

// name is a generation's, of the epoch 0a.
const name = "20260101T000000.000Z-0a"

// TestHostileManifests: a manifest that was made up is refused with a short error, and cannot become
// much larger in memory than it is.
func TestHostileManifests(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("0", 64)
	file := func(size string) string { return fmt.Sprintf(`{"name":"x","sum":"%s","size":%s}`, sum, size) }
	for text, want := range map[string]string{
		`{"files":[` + strings.Repeat(`{},`, backup.FilesMax) + `{},7]}`: fmt.Sprintf("more than %d files", backup.FilesMax),
		`{"files":[{},7]}`: "number",
		`{"files":{}}`:     "not a list",
		`{"files":"` + strings.Repeat("x", 1<<20) + `"}`:                      "not a list",
		`{"files":` + strings.Repeat("[", 1<<20) + strings.Repeat("]", 1<<20): "depth",
		`{"head":` + strings.Repeat("1", 1<<20) + `}`:                         "cannot unmarshal number",
		`{"created":"` + strings.Repeat("x", 1<<20) + `"}`:                    "pars",
		`{"files":[` + file(fmt.Sprint(int64(math.MaxInt64))) + `]}`:          "size 9223372036854775807 is negative or above",
		`{"files":[` + file("1e1000") + `]}`:                                  "cannot unmarshal number",
		``:                                                                    "unexpected end",
	} {
		at := newDirectory(t)
		forgeText(t, at, []byte(text))
		for what, err := range map[string]error{
			"read": func() error {
				g, err := backup.Find(t.Context(), at, "")
				if err != nil {
					t.Fatal(err)
				}
				_, err = backup.ReadManifest(t.Context(), at, g)
				return err
			}(),
			"restore": func() error {
				_, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: filepath.Join(t.TempDir(), "x")})
				return err
			}(),
		} {
			if !errors.Is(err, objects.ErrDamaged) || !strings.Contains(err.Error(), want) || len(err.Error()) > 600 {
				t.Errorf("%s of %.50s…: %.700v, want %q", what, text, err, want)
			}
		}
	}
}

// forgeText writes a generation with a text as the manifest.
func forgeText(t *testing.T, d objects.Destination, text []byte) {
	t.Helper()
	marker, err := json.Marshal(backup.Generation{Manifest: sum(text).String(), Epoch: "0a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(put(t.Context(), d, "generations/"+name+"/manifest", text),
		put(t.Context(), d, "generations/"+name+"/complete", marker)); err != nil {
		t.Fatal(err)
	}
}

// TestTotal: the sizes of the files of a manifest add up to a number that can be.
func TestTotal(t *testing.T) {
	t.Parallel()
	var m backup.Manifest
	for i := range 1025 {
		m.Files = append(m.Files, backup.File{Name: fmt.Sprint("x", i), Sum: strings.Repeat("0", 64), Size: 1 << 40})
	}
	for n, want := range map[int]string{1024: "", 1025: "1126999418470400 bytes, more than 1125899906842624"} {
		text, err := json.Marshal(backup.Manifest{Files: m.Files[:n]})
		if err != nil {
			t.Fatal(err)
		}
		_, err = backup.ParseManifest(text)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%d files of 1 TiB: %v", n, err)
		}
	}
}

// TestHostileMarkers: a marker that is not of its generation, or impossible, makes no generation, and
// neither does a name of another form.
func TestHostileMarkers(t *testing.T) {
	t.Parallel()
	good := backup.Generation{Manifest: strings.Repeat("0", 64), Epoch: "0a", Head: math.MaxUint64, Created: time.Now()}
	change := func(f func(g *backup.Generation)) backup.Generation {
		g := good
		f(&g)
		return g
	}
	for what, row := range map[string]struct {
		name string
		g    backup.Generation
		ok   bool
	}{
		"the greatest head":        {name, good, true},
		"a time to come":           {"99991231T235959.999Z-0a", change(func(g *backup.Generation) { g.Created = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC) }), true},
		"another epoch":            {name, change(func(g *backup.Generation) { g.Epoch = "0b" }), false},
		"a part of the epoch":      {name, change(func(g *backup.Generation) { g.Epoch = "a" }), false},
		"no epoch":                 {name, change(func(g *backup.Generation) { g.Epoch = "" }), false},
		"an epoch with an escape":  {name, change(func(g *backup.Generation) { g.Epoch = "\x1b[2J" }), false},
		"a negative size":          {name, change(func(g *backup.Generation) { g.Size = -1 }), false},
		"a size above the limit":   {name, change(func(g *backup.Generation) { g.Size = math.MaxInt64 }), false},
		"too many files":           {name, change(func(g *backup.Generation) { g.Files = math.MaxInt32 }), false},
		"too many bytes":           {name, change(func(g *backup.Generation) { g.Bytes = math.MaxInt64 }), false},
		"no sum":                   {name, change(func(g *backup.Generation) { g.Manifest = "../.." }), false},
		"a long marker":            {name, change(func(g *backup.Generation) { g.Manifest = strings.Repeat("0", 1<<20) }), false},
		"a name with another form": {"2026-0a", good, false},
		"a longer name":            {name + "/x", good, false},
	} {
		text, err := json.Marshal(row.g)
		if err != nil {
			t.Fatal(err)
		}
		at := newDirectory(t)
		if err := put(t.Context(), at, "generations/"+row.name+"/complete", text); err != nil {
			t.Fatal(err)
		}
		all, err := backup.List(t.Context(), at)
		if err != nil || len(all) == 1 != row.ok || row.ok && (all[0].Name != row.name || all[0].Head != math.MaxUint64) {
			t.Errorf("%s: %+v, %v", what, all, err)
		}
		if _, err := backup.Find(t.Context(), at, ""); err == nil != row.ok {
			t.Errorf("%s: the newest: %v", what, err)
		}
	}
}

// TestAfterTheLast: a generation with the last possible name keeps all later ones out, and the error
// says which it is. One in the future does not.
func TestAfterTheLast(t *testing.T) {
	t.Parallel()
	for last, want := range map[string]string{"99991231T235959.999Z-0a": "no generation can come after 99991231T235959.999Z-0a: delete it",
		"99991231T235959.998Z-0a": ""} {
		m, at := newMade(t, seeded(t)), newDirectory(t)
		m.next()
		marker, err := json.Marshal(backup.Generation{Manifest: strings.Repeat("0", 64), Epoch: "0a"})
		if err != nil {
			t.Fatal(err)
		}
		if err := put(t.Context(), at, "generations/"+last+"/complete", marker); err != nil {
			t.Fatal(err)
		}
		_, err = backup.Run(t.Context(), backup.Options{Destination: at, Source: m.src})
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), ": "+want)) {
			t.Errorf("after %s: %v", last, err)
		}
		if names := listed(t, at); want == "" && (len(names) != 2 || names[1] != "99991231T235959.999Z-"+m.src.Epoch) {
			t.Errorf("generations %v", names)
		}
	}
}

// listed returns the names of the complete generations.
func listed(t *testing.T, d objects.Destination) (names []string) {
	t.Helper()
	all, err := backup.List(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range all {
		names = append(names, g.Name)
	}
	return names
}

// ahead is a destination with a lock in the future, which is renewed so many times.
type ahead struct {
	objects.Destination
	by      time.Duration
	renewed int
}

const aheadLock = "locks/ABCDEFGHIJKLMNOPQRSTUVWXYZ"

func (d *ahead) List(ctx context.Context, prefix string, fn func(objects.Object) error) error {
	if prefix == "locks/" {
		at := time.Now().Round(time.Hour).Add(d.by)
		if d.renewed > 0 {
			d.renewed--
			at = time.Now().Add(d.by)
		}
		if err := fn(objects.Object{Name: aheadLock, Modified: at}); err != nil {
			return err
		}
	}
	return d.Destination.List(ctx, prefix, fn)
}

// TestLockAhead: a lock that lies in the future keeps backups out if it is renewed, and otherwise
// not for longer than a lock lasts.
func TestLockAhead(t *testing.T) {
	t.Parallel()
	m := newMade(t, seeded(t))
	m.next()
	for _, row := range []struct {
		by      time.Duration
		renewed int
		locked  bool
	}{{100 * 365 * 24 * time.Hour, 0, false}, {100 * 365 * 24 * time.Hour, 2, true}, {20 * time.Hour, 0, false}} {
		_, err := backup.Run(t.Context(), backup.Options{Destination: &ahead{newDirectory(t).Destination, row.by, row.renewed},
			Source: m.src, Lease: 5 * time.Second})
		if errors.Is(err, lease.ErrLocked) != row.locked || !row.locked && err != nil {
			t.Errorf("%s ahead, renewed %d times: %v", row.by, row.renewed, err)
		}
	}
}

// TestHostileLocks: what is no lock is passed over, and too many locks are refused.
func TestHostileLocks(t *testing.T) {
	t.Parallel()
	m, at := newMade(t, seeded(t)), newDirectory(t)
	m.next()
	for _, name := range []string{"locks/x", "locks/\x1b[2J", "locks/" + strings.Repeat("A", 41), "locks/a/" + strings.Repeat("A", 26)} {
		if err := put(t.Context(), at, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	mustRun(t, backup.Options{Destination: at, Source: m.src})
	for i := range lease.LocksMax + 1 {
		lock := filepath.Join(at.String(), "locks", strings.Repeat("A", 22)+string(rune('A'+i/676%26))+string(rune('A'+i/26%26))+string(rune('A'+i%26)))
		write(t, lock, "")
	}
	if _, err := backup.Run(t.Context(), backup.Options{Destination: at, Source: m.src}); err == nil || !strings.Contains(err.Error(), "more than 1000 locks") {
		t.Errorf("%v", err)
	}
}

// TestStrangersStay: what no backup wrote is not deleted.
func TestStrangersStay(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, at place) {
		m := newMade(t, seeded(t))
		strangers := []string{"generations/notes.txt", "generations/old/manifest", "generations/" + name + "/other", "tables/notes.txt",
			"tables/" + strings.Repeat("F", 64), "tables/a/" + strings.Repeat("0", 64)}
		for _, name := range append(strangers, "generations/"+name+"/manifest", "tables/"+strings.Repeat("0", 64)) {
			if err := put(t.Context(), at, name, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		m.next()
		mustRun(t, backup.Options{Destination: at, Source: m.src, Keep: 1})
		verified(t, at)
		left := map[string]bool{}
		if err := at.List(t.Context(), "", func(o objects.Object) error { left[o.Name] = true; return nil }); err != nil {
			t.Fatal(err)
		}
		for _, name := range strangers {
			if !left[name] {
				t.Errorf("%s was deleted", name)
			}
		}
		if left["generations/"+name+"/manifest"] || left["tables/"+strings.Repeat("0", 64)] {
			t.Errorf("left %v", slices.Collect(maps.Keys(left)))
		}
	})
}

// swelling is a destination whose tables have more bytes than they should, without an end.
type swelling struct{ objects.Destination }

func (d swelling) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := d.Destination.Get(ctx, name)
	if err != nil || !strings.HasPrefix(name, "tables/") {
		return r, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(r, zeros{}), r}, nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestSwellingTables: of a table that grows while it is read, one byte more than is stated is read.
func TestSwellingTables(t *testing.T) {
	t.Parallel()
	m, at := newMade(t, seeded(t)), newDirectory(t)
	m.next()
	g := mustRun(t, backup.Options{Destination: at, Source: m.src}).Generation
	bad, err := backup.Verify(t.Context(), swelling{at}, []backup.Generation{g}, func(backup.Progress) {}, func(error) {})
	if bad == 0 || err != nil {
		t.Errorf("verify: %d damaged, %v", bad, err)
	}
	dir := t.TempDir()
	if _, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: swelling{at}, Dir: dir}); !errors.Is(err, objects.ErrDamaged) {
		t.Errorf("restore: %v", err)
	}
	for name, text := range files(t, dir) {
		if int64(len(text)) > g.Bytes {
			t.Errorf("%s has %d bytes", name, len(text))
		}
	}
}

// TestSizesOfOneSum: a manifest that states two sizes for one content is damaged.
func TestSizesOfOneSum(t *testing.T) {
	t.Parallel()
	at := newDirectory(t)
	content := []byte("content")
	if err := put(t.Context(), at, "tables/"+sum(content).String(), content); err != nil {
		t.Fatal(err)
	}
	forge(t, at, 1, backup.Manifest{Format: store.FormatVersion, Files: []backup.File{{Name: "a", Sum: sum(content).String(), Size: 6},
		{Name: "b", Sum: sum(content).String(), Size: 7}}})
	all, err := backup.List(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	if bad, err := backup.Verify(t.Context(), at, all, func(backup.Progress) {}, func(error) {}); bad != 1 || err != nil {
		t.Errorf("%d damaged, %v", bad, err)
	}
}

// TestLinksInDestination: a directory that leads elsewhere by links is not read, and nothing is
// restored from there.
func TestLinksInDestination(t *testing.T) {
	t.Parallel()
	m, at := newMade(t, seeded(t)), newDirectory(t)
	m.next()
	mustRun(t, backup.Options{Destination: at, Source: m.src})
	for _, part := range []string{"tables", "generations"} {
		outside := filepath.Join(t.TempDir(), part)
		inside := filepath.Join(at.String(), part)
		if err := errors.Join(os.Rename(inside, outside), os.Symlink(outside, inside)); err != nil {
			t.Fatal(err)
		}
		before := t.TempDir()
		if _, err := backup.Restore(t.Context(), backup.RestoreOptions{Destination: at, Dir: before}); err == nil {
			t.Errorf("%s is a link: it was restored", part)
		}
		if _, err := backup.Run(t.Context(), backup.Options{Destination: at, Source: m.src, Keep: 1}); err == nil {
			t.Errorf("%s is a link: it was written", part)
		}
		if err := errors.Join(os.Remove(inside), os.Rename(outside, inside)); err != nil {
			t.Fatal(err)
		}
	}
	verified(t, at)
}

// FuzzManifest parses texts of a destination.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"epoch":"0a","head":18446744073709551615,"format":1,"version":"v1","created":"2026-01-01T00:00:00Z","files":[{"name":"000001.sst","size":7,"sum":"` +
		strings.Repeat("0", 64) + `","modified":1}]}`))
	f.Add([]byte(`{"files":null}`))
	d, _ := objectstest.Directory(f)
	root := d.String()
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := backup.ParseManifest(text)
		if err != nil {
			return
		}
		total := int64(0)
		for _, f := range m.Files {
			if filepath.Dir(filepath.Join(root, f.Name)) != root || f.Size < 0 || !filepath.IsLocal(f.Name) {
				t.Errorf("%+v", f)
			}
			if total += f.Size; total < 0 {
				t.Errorf("%d bytes", total)
			}
		}
	})
}

// FuzzMarker parses markers of generations.
func FuzzMarker(f *testing.F) {
	f.Add([]byte(`{"manifest":"` + strings.Repeat("0", 64) + `","size":7,"created":"2026-01-01T00:00:00Z","epoch":"0a","head":1,"files":1,"bytes":7}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := backup.ParseMarker(name, text)
		if err != nil {
			return
		}
		if _, err := objects.ParseSum(g.Manifest); err != nil || g.Name != name || g.Epoch != "0a" || g.Files < 0 || g.Bytes < 0 {
			t.Errorf("%+v", g)
		}
		text, err = json.Marshal(g)
		if again, aerr := backup.ParseMarker(name, text); err != nil || aerr != nil || !again.Created.Equal(g.Created) {
			t.Errorf("%s: %+v, then %+v, %v, %v", text, g, again, err, aerr)
		}
	})
}
