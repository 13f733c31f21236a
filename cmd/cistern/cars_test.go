package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cistern/dump/cars/manifest"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// manifestOf exports the store of a stopped daemon, and returns the lines of accounts with a CAR.
// Equal lines are equal CARs: the records, the tree and the commit.
func (x *testIndex) manifestOf(t *testing.T, to string) map[string]manifest.Line {
	t.Helper()
	if out, err := x.command(t.Context(), nil, "export", to, "--format", "car", "--data", x.dir); err != nil {
		t.Fatalf("export: %v, %s", err, out)
	}
	lines := map[string]manifest.Line{}
	parts, err := filepath.Glob(filepath.Join(to, "manifest-*.ndjson"))
	if err != nil || len(parts) == 0 {
		t.Fatalf("parts %v, %v", parts, err)
	}
	for _, name := range parts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
			var l manifest.Line
			if err := d.Decode(&l); err != nil {
				t.Fatal(err)
			}
			if l.LeftOut == "" {
				lines[l.DID] = l
			}
		}
	}
	return lines
}

// index fetches all accounts of a network into an empty store, and stops.
func index(t *testing.T, n *simnet.Network) *testIndex {
	t.Helper()
	x := newTestIndex(t)
	stop := x.start(t, x.args(n))
	x.track(t, n.Accounts()...)
	x.settle(t, map[string]int64{"repos": int64(len(n.Accounts()))})
	stop()
	return x
}

// formerKeys returns how many stored repositories are signed by a key that the document of the
// account no longer names.
func (x *testIndex) formerKeys(t *testing.T) (keys int64) {
	t.Helper()
	s, err := openForCheck(x.dir, newLogger(io.Discard, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rows, _, err := s.Repos("", 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.Verified == store.VerifiedFormerKey && !r.Status.Hidden() {
			keys++
		}
	}
	return keys
}

// held is what a store counts of what a CAR brings, and each collection of which it shows records.
type held struct {
	Repos, Records, Blocks, Collections, Names int64
	Totals                                     []store.CollectionTotal
}

// held returns what the store of a stopped daemon counts, without the repositories of some accounts.
func (x *testIndex) held(t *testing.T, without func(*store.Repo) bool) (h held) {
	t.Helper()
	s, err := openForCheck(x.dir, newLogger(io.Discard, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	counts := s.Counts()
	h = held{0, counts["records"], counts["blocks"], counts["collections"], counts["collection_names"], nil}
	all, err := s.CollectionTotals("", "", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	rows, _, err := s.Repos("", 1<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.Ordinal == 0 {
			continue
		}
		if h.Repos++; !without(&r) {
			continue
		}
		h.Repos--
		h.Records -= r.Records
		h.Blocks -= int64(r.Blocks)
		shows, err := s.CollectionCounts(&r, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		h.Collections -= int64(len(shows))
		for i := range all {
			if n := shows[all[i].Collection]; n > 0 {
				all[i].Repos--
				all[i].Records -= n
			}
		}
	}
	h.Totals = slices.DeleteFunc(all, func(c store.CollectionTotal) bool { return c.Records == 0 })
	h.Names -= int64(len(all) - len(h.Totals))
	return h
}

// download exports the store of a stopped daemon over HTTP, in archives of some repositories each, and
// returns their files.
func (x *testIndex) download(t *testing.T, n *simnet.Network, repos int) (archives []string) {
	t.Helper()
	stop := x.start(t, x.args(n))
	defer stop()
	dir, at := t.TempDir(), ""
	for {
		res, err := http.Get("http://" + x.public + fmt.Sprintf("/export?format=car&limit=%d&resume=%s", repos, at))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("export: %d, %v, %.200s", res.StatusCode, err, body)
		}
		name := filepath.Join(dir, fmt.Sprint(len(archives)))
		if err := os.WriteFile(name, body, 0o600); err != nil {
			t.Fatal(err)
		}
		archives = append(archives, name)
		if at = resumed(t, body); at == "" {
			return archives
		}
	}
}

// resumed returns the last token of an archive, "" if it has a manifest.
func resumed(t *testing.T, archive []byte) (token string) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return token
		}
		if err != nil {
			t.Fatal(err)
		}
		switch h.Name {
		case "manifest.json":
			return ""
		case "resume.json":
			var next struct{ Resume string }
			if err := json.NewDecoder(r).Decode(&next); err != nil {
				t.Fatal(err)
			}
			token = next.Resume
		}
	}
}

// TestCARs exports a store as CARs and imports them into an empty store, and, after a history of
// everything that accounts do, into that store, which is behind by then, and into an empty one. The
// exports of all stores are equal, and so are their counts and the totals of their collections. So are
// those of a store that imports what the daemon exports over HTTP.
func TestCARs(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			t.Logf("seed %d", seed)
			n := startNetwork(t, simnet.Options{Seed: seed + 70, Repos: 24, Hosts: 3, Empty: 1, OddKeys: 1})
			first := index(t, n)
			copied, other := newTestIndex(t), newTestIndex(t)
			at := filepath.Join(t.TempDir(), "first")
			want := first.manifestOf(t, at)
			load := func(x *testIndex, src string, refused int64) {
				t.Helper()
				out, err := x.command(t.Context(), nil, "import", src, "--data", x.dir, "--plc", n.PLC(),
					"--allow-private")
				if !strings.Contains(out, fmt.Sprintf("not newer, %d refused", refused)) || (err != nil) != (refused > 0) {
					t.Errorf("import: %v, want %d refused\n%s", err, refused, out)
				}
			}
			load(copied, at, 0)
			if got := copied.manifestOf(t, filepath.Join(t.TempDir(), "copy")); !maps.Equal(got, want) {
				t.Errorf("the copy exports %v, want %v", got, want)
			}
			copied.wantStore(t, n.Accounts())
			whole := first.held(t, func(*store.Repo) bool { return false })
			if d := cmp.Diff(whole, copied.held(t, func(*store.Repo) bool { return false })); d != "" {
				t.Errorf("counts of the copy (-want +got):\n%s", d)
			}
			for _, archive := range first.download(t, n, 7) {
				load(other, archive, 0)
			}
			if got := other.manifestOf(t, filepath.Join(t.TempDir(), "other")); !maps.Equal(got, want) {
				t.Errorf("the copy over HTTP exports %v, want %v", got, want)
			}
			if d := cmp.Diff(whole, other.held(t, func(*store.Repo) bool { return false })); d != "" {
				t.Errorf("counts of the copy over HTTP (-want +got):\n%s", d)
			}
			other.wantStore(t, n.Accounts())

			n.History(seed, simnet.Weights{}).Run(80)
			n.Settle()
			second := index(t, n)
			want = second.manifestOf(t, filepath.Join(t.TempDir(), "second"))
			archive := filepath.Join(t.TempDir(), "second.tar.zst")
			if out, err := second.command(t.Context(), nil, "export", archive, "--format", "car", "--data", second.dir); err != nil {
				t.Fatalf("export: %v, %s", err, out)
			}
			refused := second.formerKeys(t)
			load(copied, archive, refused)
			fresh := newTestIndex(t)
			load(fresh, archive, refused)
			expected := second.held(t, func(r *store.Repo) bool {
				return r.Status.Hidden() || r.Verified == store.VerifiedFormerKey
			})
			if d := cmp.Diff(expected, fresh.held(t, func(*store.Repo) bool { return false })); d != "" {
				t.Errorf("counts after the history (-want +got):\n%s", d)
			}
			got := copied.manifestOf(t, filepath.Join(t.TempDir(), "copy"))
			differs := int64(0)
			for _, did := range slices.Sorted(maps.Keys(want)) {
				if got[did] == want[did] {
					continue
				}
				if differs++; differs > refused {
					t.Errorf("the copy has %+v, want %+v", got[did], want[did])
				}
			}
			out, err := copied.command(t.Context(), nil, "check", "--data", copied.dir)
			if err != nil {
				t.Errorf("check: %v, %s", err, out)
			}
		})
	}
}

// TestExportCARs has the command refuse what it cannot do.
func TestExportCARs(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 44, Repos: 6})
	x := index(t, n)
	dir := t.TempDir()
	for _, c := range []struct {
		args  string
		want  string
		fails string
	}{
		{dir + "/x.tar --format car --collection a.b.c", "", "whole repositories"},
		{dir + "/x.tar --format car --cbor", "", "whole repositories"},
		{dir + "/x.tar --format cars", "", "is unknown: want one of ndjson, parquet, car"},
		{"s3://bucket/x.tar --format car", "", "an archive is a file"},
		{"x --format car", "", "such as ./x"},
		{dir + "/x.tgz --format car --did " + n.DIDs()[2], "exported 1 repository, ", ""},
		{dir + "/x.tgz --format car", "", "file already exists"},
		{dir + "/x.tar --format car --json", `"repositories":6`, ""},
		{dir + "/y --format car", "exported 6 repositories, ", ""},
		{dir + "/y --format car", "", "export is complete: name another destination"},
	} {
		out, err := x.command(t.Context(), nil, append(append([]string{"export"}, strings.Fields(c.args)...), "--data", x.dir)...)
		if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%s: %v, want %q", c.args, err, c.fails)
		}
		if !strings.Contains(out, c.want) {
			t.Errorf("%s printed %q, want %q", c.args, out, c.want)
		}
	}
	environ := bucket(t)
	out, err := x.command(t.Context(), environ, "export", "s3://backups/cars", "--format", "car", "--data", x.dir)
	if err != nil {
		t.Fatalf("export to a bucket: %v, %s", err, out)
	}
	copied := newTestIndex(t)
	out, err = copied.command(t.Context(), environ, "import", "s3://backups/cars", "--data", copied.dir, "--plc",
		n.PLC(), "--allow-private")
	if err != nil || !strings.Contains(out, "6 new") {
		t.Errorf("import of a bucket: %v, %s", err, out)
	}
	copied.wantStore(t, n.Accounts())
}
