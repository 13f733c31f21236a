package objects_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cistern/objects"
	"cistern/objects/objectstest"
)

// planted is a directory into which an attacker writes, and a file outside of it.
type planted struct {
	*testing.T
	at      objects.Destination
	root    string
	outside string // a directory with the file secret
}

func plant(t *testing.T) *planted {
	t.Helper()
	p := &planted{T: t, outside: t.TempDir()}
	p.at, p.root = objectstest.Directory(t)
	p.must(os.MkdirAll(filepath.Join(p.root, "tables"), 0o755))
	p.must(os.WriteFile(filepath.Join(p.outside, "secret"), []byte("secret"), 0o600))
	return p
}

func (p *planted) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// unharmed fails unless what is outside is as it was.
func (p *planted) unharmed() {
	p.Helper()
	all, err := os.ReadDir(p.outside)
	p.must(err)
	b, err := os.ReadFile(filepath.Join(p.outside, "secret"))
	if len(all) != 1 || string(b) != "secret" || err != nil {
		p.Errorf("outside are %v, the file has %q, %v", all, b, err)
	}
}

// names lists what has a prefix.
func (p *planted) names(prefix string) (names []string, err error) {
	return names, p.at.List(p.Context(), prefix, func(o objects.Object) error {
		names = append(names, o.Name)
		return nil
	})
}

// TestPlantedFiles: what has the name of an object and is no file is neither listed nor read, and
// an object takes its place.
func TestPlantedFiles(t *testing.T) {
	t.Parallel()
	for kind, make := range map[string]func(p *planted, file string) error{
		"a link to a file outside": func(p *planted, file string) error {
			return os.Symlink(filepath.Join(p.outside, "secret"), file)
		},
		"a relative link to a file outside": func(p *planted, file string) error {
			to, err := filepath.Rel(filepath.Dir(file), filepath.Join(p.outside, "secret"))
			return errors.Join(err, os.Symlink(to, file))
		},
		"a link to a device":        func(_ *planted, file string) error { return os.Symlink("/dev/zero", file) },
		"a link to itself":          func(_ *planted, file string) error { return os.Symlink("a", file) },
		"a pipe without a writer":   func(_ *planted, file string) error { return syscall.Mkfifo(file, 0o644) },
		"an empty directory":        func(_ *planted, file string) error { return os.Mkdir(file, 0o755) },
		"a link to a file inside":   func(_ *planted, file string) error { return os.Symlink("../b", file) },
		"a link that leads nowhere": func(_ *planted, file string) error { return os.Symlink("none", file) },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := plant(t)
			p.must(os.WriteFile(filepath.Join(p.root, "b"), []byte("b"), 0o600))
			p.must(make(p, filepath.Join(p.root, "tables", "a")))
			p.must(make(p, filepath.Join(p.root, "tables", "c"+objects.PartSuffix)))
			if _, err := p.at.Get(t.Context(), "tables/a"); !errors.Is(err, objects.ErrDamaged) {
				t.Errorf("get: %v", err)
			}
			if _, err := p.at.GetRange(t.Context(), "tables/a", 0, 1); !errors.Is(err, objects.ErrDamaged) {
				t.Errorf("get a part: %v", err)
			}
			if names, err := p.names("tables/"); len(names) > 0 || err != nil {
				t.Errorf("list: %q, %v", names, err)
			}
			err := objects.PutText(t.Context(), p.at, "tables/c", []byte("c"))
			if b, rerr := objects.ReadAll(t.Context(), p.at, "tables/c", 10); err != nil || rerr != nil || string(b) != "c" {
				t.Errorf("put over a part: %v; then %q, %v", err, b, rerr)
			}
			err = objects.PutText(t.Context(), p.at, "tables/a", []byte("a"))
			b, rerr := objects.ReadAll(t.Context(), p.at, "tables/a", 10)
			if kind == "an empty directory" {
				if err == nil {
					t.Error("an object takes the place of a directory")
				}
			} else if err != nil || rerr != nil || string(b) != "a" {
				t.Errorf("put: %v; then %q, %v", err, b, rerr)
			}
			p.must(p.at.Delete(t.Context(), "tables/a"))
			p.unharmed()
		})
	}
}

// TestPlantedDirectories: no link on the way to an object, and no name, leads out of the directory.
func TestPlantedDirectories(t *testing.T) {
	t.Parallel()
	for _, absolute := range []bool{true, false} {
		p := plant(t)
		to := p.outside
		if !absolute {
			var err error
			to, err = filepath.Rel(p.root, p.outside)
			p.must(err)
		}
		p.must(os.Symlink(to, filepath.Join(p.root, "log")))
		climb, err := filepath.Rel(p.root, p.outside)
		p.must(err)
		for _, name := range []string{"log/secret", climb + "/secret", "tables/../" + climb + "/secret", p.outside + "/secret",
			"log/x\x00y", "tables/\x00"} {
			if r, err := p.at.Get(t.Context(), name); err == nil {
				b, _ := io.ReadAll(r)
				t.Errorf("get %q: %q", name, b)
			}
			if _, err := p.at.GetRange(t.Context(), name, 0, 1); err == nil {
				t.Errorf("get a part of %q", name)
			}
			if err := objects.PutText(t.Context(), p.at, name, []byte("mine")); err == nil {
				t.Errorf("put %q", name)
			}
			_ = p.at.Delete(t.Context(), name)
			p.unharmed()
		}
		if names, err := p.names("log/"); len(names) > 0 || err == nil {
			t.Errorf("list: %q, %v", names, err)
		}
		if names, err := p.names(""); len(names) > 0 || err != nil {
			t.Errorf("list all: %q, %v", names, err)
		}
	}
}

// TestDeepDirectory: a listing ends in directories that are too deep or have too many names, and
// passes on names of every form.
func TestDeepDirectory(t *testing.T) {
	t.Parallel()
	p := plant(t)
	p.must(os.WriteFile(filepath.Join(p.root, "tables", "a\\b\n"), nil, 0o600))
	if names, err := p.names("tables/"); fmt.Sprintf("%q", names) != `["tables/a\\b\n"]` || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	p.must(os.MkdirAll(filepath.Join(p.root, "log", strings.Repeat("d/", 20)), 0o755))
	if _, err := p.names("log/"); err == nil || !strings.Contains(err.Error(), "deep") {
		t.Errorf("deep directories: %v", err)
	}
	for i := range 50 {
		p.must(os.WriteFile(filepath.Join(p.root, "tables", fmt.Sprint(i)), nil, 0o600))
	}
	objects.Narrow(p.at, 0, 40, 0)
	if names, err := p.names("tables/"); !errors.Is(err, objects.ErrListing) || len(names) > 40 {
		t.Errorf("%d names, %v", len(names), err)
	}
}

// TestGrowingFile: of a file that grows while it is read no more is taken than is allowed.
func TestGrowingFile(t *testing.T) {
	t.Parallel()
	p := plant(t)
	grown, err := os.OpenRoot(p.outside)
	p.must(err)
	defer grown.Close()
	for _, size := range []int64{0, 1, 1000} {
		err := objects.WriteFile(t.Context(), grown, "copy", endless{}, size, objects.Sum(sha256.Sum256(make([]byte, size))))
		if !errors.Is(err, objects.ErrDamaged) {
			t.Errorf("%d bytes of an endless file: %v", size, err)
		}
		if info, err := grown.Stat("copy" + objects.PartSuffix); err != nil || info.Size() > size+1 {
			t.Errorf("%v, %v", info, err)
		}
	}
	p.must(grown.Remove("copy" + objects.PartSuffix))
	if _, err := p.at.GetRange(t.Context(), "tables", math.MaxInt64-1, 1); err == nil {
		t.Error("a part of a directory")
	}
}

// endless is a reader of zeros.
type endless struct{}

func (endless) Read(b []byte) (int, error) { clear(b); return len(b), nil }
