package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cistern/dump"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
)

// exportedRow is a record of an export.
type exportedRow struct {
	DID        string `json:"did" parquet:"did"`
	Collection string `json:"collection" parquet:"collection"`
	Rkey       string `json:"rkey" parquet:"rkey"`
	CID        string `json:"cid" parquet:"cid"`
}

// exportedIn reads an export in a directory: URI → CID.
func exportedIn(t *testing.T, dir string) (m dump.Manifest, all map[string]string) {
	t.Helper()
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if err := json.Unmarshal(read("manifest.json"), &m); err != nil {
		t.Fatal(err)
	}
	all = map[string]string{}
	for _, p := range m.Parts {
		text := read(p.Name)
		var rows []exportedRow
		if m.Format == "parquet" {
			var err error
			if rows, err = parquet.Read[exportedRow](bytes.NewReader(text), int64(len(text))); err != nil {
				t.Fatal(err)
			}
		} else {
			z, err := zstd.NewReader(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			for d := json.NewDecoder(z); d.More(); {
				var r exportedRow
				if err := d.Decode(&r); err != nil {
					t.Fatal(err)
				}
				rows = append(rows, r)
			}
			z.Close()
		}
		for _, r := range rows {
			all[r.DID+"/"+r.Collection+"/"+r.Rkey] = r.CID
		}
	}
	if int64(len(all)) != m.Rows {
		t.Errorf("%d records, and the manifest has %d", len(all), m.Rows)
	}
	return m, all
}

// hosted returns the records of all accounts at their hosts: URI → CID.
func hosted(accounts []*simnet.Account, collection string) map[string]string {
	all := map[string]string{}
	for _, a := range accounts {
		for path, id := range a.Truth().Records {
			if strings.HasPrefix(path, collection) && repo.ValidPath([]byte(path)) {
				all[a.DID()+"/"+path] = id.String()
			}
		}
	}
	return all
}

func wantExported(t *testing.T, want, got map[string]string) {
	t.Helper()
	for uri, cid := range want {
		if got[uri] != cid {
			t.Errorf("%s is %q, want %q", uri, got[uri], cid)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

// TestExportCommand exports a daemon's store, and that of a daemon that has ended, and compares the
// files with the network.
func TestExportCommand(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 12, Hosts: 2})
	x := newTestIndex(t)
	at := t.TempDir()
	stop := x.start(t, x.args(n, "--export", filepath.Join(at, "scheduled"), "--export-keep", "1", "--schedule", "export=1h"))
	x.track(t, n.Accounts()...)
	x.settle(t, map[string]int64{"synced": 12})
	const posts = "app.bsky.feed.post"
	for _, step := range []struct {
		to    string
		args  []string
		want  string // in the output
		fails string // in the error
	}{
		{"lines", nil, "exported ", ""},
		{"lines", nil, "", "export is complete: name another"},
		{"table", []string{"--format", "parquet"}, " in 1 part, ", ""},
		{"posts", []string{"--collection", posts, "--json"}, `{"format":"ndjson","epoch":"`, ""},
		{"x", []string{"--format", "csv"}, "", `format "csv" is unknown: want one of ndjson, parquet`},
		{"x", []string{"--collection", "posts"}, "", `--collection "posts"`},
		{"x", []string{"more/of"}, "", "takes DEST, got 2 arguments"},
		{"x", []string{"--data", x.dir}, "", "open store"},
		{"x", []string{"--admin", "127.0.0.1:1"}, "", "no daemon answers"},
	} {
		out, err := x.command(t.Context(), nil, append([]string{"export", filepath.Join(at, step.to)}, step.args...)...)
		if err == nil != (step.fails == "") || err != nil && !strings.Contains(err.Error(), step.fails) || !strings.Contains(out, step.want) {
			t.Errorf("%v: %s, %v", step, out, err)
		}
	}
	for range 2 {
		if out, err := x.command(t.Context(), nil, "maintain", "run", "export"); err != nil || !strings.Contains(out, "export done") {
			t.Errorf("%s: %v", out, err)
		}
	}
	scheduled, err := filepath.Glob(filepath.Join(at, "scheduled", "*", "manifest.json"))
	if err != nil || len(scheduled) != 1 {
		t.Fatalf("%q: %v", scheduled, err)
	}
	stop()
	environ := bucket(t)
	if out, err := x.command(t.Context(), environ, "export", "s3://backups/x", "--data", x.dir); err != nil {
		t.Errorf("%s: %v", out, err)
	}
	if _, err := x.command(t.Context(), nil, "export", filepath.Join(at, "offline"), "--data", x.dir); err != nil {
		t.Error(err)
	}
	for name, collection := range map[string]string{"lines": "", "table": "", "posts": posts + "/", "offline": "",
		filepath.Join("scheduled", filepath.Base(filepath.Dir(scheduled[0]))): ""} {
		_, got := exportedIn(t, filepath.Join(at, name))
		wantExported(t, hosted(n.Accounts(), collection), got)
	}
	x.noCheckpoints(t)
}
