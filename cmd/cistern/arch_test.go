package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// levels has every package of the module. An import points to a lower level, never sideways.
var levels = map[string]int{
	"cmd/cistern":             9,
	"cmd/cistern/remote":      6,
	"cmd/cistern/command":     5,
	"backfill/discover":       8, // its tests need backfill
	"backfill":                7,
	"backfill/fetch":          6,
	"backfill/discover/pages": 6,
	"backfill/hosts":          5,
	"intake":                  8,
	"ingest":                  6,
	"ingest/firehose":         5,
	"api":                     8,
	"api/admin":               7,
	"api/atproto":             6,
	"api/backlinks":           6,
	"api/names":               5,
	"api/openapi":             1,
	"api/dashboard":           1,
	"api/frontpage":           2,
	"api/statuspage":          5,
	"api/deliver":             5,
	"api/tap":                 5,
	"api/deliver/format":      4,
	"api/deliver/wsframe":     1,
	"api/durable":             4,
	"api/webhook":             6,
	"api/wire":                3,
	"api/clients":             1,
	"api/collections":         6,
	"copies":                  1,
	"api/export":              7,
	"dump":                    5,
	"dump/cars":               8, // its CARs are those of api/export
	"dump/cars/manifest":      4,
	"ingest/identity":         4,
	"store":                   3,
	"store/linkindex":         4,
	"backup":                  4,
	"archive":                 4,
	"verify":                  5, // its tests need backfill/refilter
	"objects":                 1,
	"objects/lease":           2,
	"backfill/refilter":       4,
	"backfill/pace":           3, // beside store, which keeps limits in a type of its own
	"ingest/frame":            2,
	"client":                  3,
	"console":                 1,
	"status":                  2,
	"verdict":                 3,
	"filter":                  1,
	"gate":                    1,
	"alert":                   2,
	"condition":               3, // its tests need maintain
	"phase":                   2,
	"maintain":                2,
	"loop":                    1,
	"logs":                    1,
	"trace":                   1,
	"chart":                   2,
	"logbook":                 1,
	"ingest/repo":             1,
	"ingest/repo/recordjson":  2,
	"links":                   3, // its tests need ingest/repo/recordjson

	// Not production code, but for the demo's network.
	"ingest/simnet":           3,
	"store/storetest":         4,
	"objects/objectstest":     2,
	"api/deliver/delivertest": 6,
	"backfill/backfilltest":   8,
}

// forTests are the packages that only tests, and those named here, may import.
var forTests = map[string][]string{
	"ingest/simnet":           {"cmd/cistern"},
	"store/storetest":         nil,
	"objects/objectstest":     nil,
	"api/deliver/delivertest": nil,
	"backfill/backfilltest":   nil,
}

// onlyTests reports whether nothing but tests imports a package, which is then a test itself.
func onlyTests(pkg string) bool {
	importers, restricted := forTests[pkg]
	return restricted && importers == nil
}

// apart are packages that must not import another but in tests, though it has a lower level.
var apart = map[string]string{"backfill/fetch": "store", "backfill/discover": "backfill"}

const linesMax = 600

// columnsMax bounds the columns of a line.
const columnsMax = 100

// source is one parsed file of the module.
type source struct {
	name, pkg string // name from the module's root
	test      bool
	lines     int
	wide      []int // numbers of lines of code and prose above columnsMax
	set       *token.FileSet
	file      *ast.File
}

func sources(t *testing.T) []source {
	t.Helper()
	root := filepath.Join("..", "..")
	var all []source
	err := filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && file != root && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata" || e.Name() == "node_modules"):
			return fs.SkipDir
		case e.IsDir() || filepath.Ext(file) != ".go":
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, file, text, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		name = filepath.ToSlash(name)
		pkg := path.Dir(name)
		all = append(all, source{name: name, pkg: pkg, test: strings.HasSuffix(name, "_test.go") || onlyTests(pkg),
			lines: bytes.Count(text, []byte("\n")), wide: wide(string(text)), set: set, file: parsed})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wide returns the numbers of the lines above columnsMax. Tables in comments and raw strings, which
// cannot be wrapped, do not count, and a tab is one column.
func wide(text string) (numbers []int) {
	raw := false
	for i, line := range strings.Split(text, "\n") {
		quotes := strings.Count(line, "`")
		if utf8.RuneCountInString(line) > columnsMax && !raw && quotes == 0 && !strings.HasPrefix(line, "//\t") {
			numbers = append(numbers, i+1)
		}
		raw = raw != (quotes%2 == 1)
	}
	return numbers
}

func (s source) imports() []string {
	var imports []string
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		imports = append(imports, p)
	}
	return imports
}

// tool says whether the file is a program of its own that no build of the module contains.
func (s source) tool() bool {
	for _, group := range s.file.Comments {
		for _, c := range group.List {
			if c.Text == "//go:build ignore" {
				return true
			}
		}
	}
	return false
}

func TestImportsPointDown(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.tool() {
			continue
		}
		level, ok := levels[s.pkg]
		if !ok {
			t.Errorf("%s: package %s has no level: give it one here and a row in docs/architecture.md", s.name, s.pkg)
			continue
		}
		for _, imported := range s.imports() {
			target, ours := strings.CutPrefix(imported, "cistern/")
			if !ours {
				continue
			}
			importers, restricted := forTests[target]
			switch {
			case target == s.pkg && s.test:
			case restricted && s.test:
			case restricted && !slices.Contains(importers, s.pkg):
				t.Errorf("%s imports %s, which is for tests", s.name, target)
			case apart[s.pkg] == target && !s.test:
				t.Errorf("%s imports %s, which it must not know", s.name, target)
			case levels[target] >= level:
				t.Errorf("%s (level %d) imports %s (level %d): imports point down", s.name, level, target, levels[target])
			}
		}
	}
}

// crashFS is a file system that tests make a store on to crash it, and no engine.
const crashFS = "github.com/cockroachdb/pebble/v2/vfs"

func TestOnlyOwnersImport(t *testing.T) {
	t.Parallel()
	commands := []string{"cmd/cistern", "cmd/cistern/command", "cmd/cistern/remote"}
	rules := []struct {
		prefix string
		owners []string
		tests  bool // whether other packages' tests may
		why    string
	}{
		{"github.com/cockroachdb/pebble", []string{"store", "store/linkindex", "store/storetest"}, false, "the engine never leaks out of store"},
		{"github.com/urfave/cli", commands, false, "commands are cmd's"},
		{"github.com/ethereum/go-ethereum", []string{"ingest/repo"}, false, "only its libsecp256k1 is of use"},
		{"go.opentelemetry.io", []string{"trace"}, true, "what traces are made of is trace's"},
		{"github.com/aws", []string{"objects"}, false, "requests to S3 are objects'"},
		{"flag", nil, true, "an option is a command.Option"},
		{"os/signal", commands, false, "signals are cmd's"},
	}
	for _, s := range sources(t) {
		for _, imported := range s.imports() {
			for _, r := range rules {
				is := imported == r.prefix || strings.HasPrefix(imported, r.prefix+"/")
				if s.test && imported == crashFS {
					continue
				}
				if is && !slices.Contains(r.owners, s.pkg) && !(s.test && r.tests) && !s.tool() {
					t.Errorf("%s imports %s: %s", s.name, imported, r.why)
				}
			}
		}
	}
}

func TestCallsWithOwners(t *testing.T) {
	t.Parallel()
	rules := map[string]string{
		"os.Exit": "cmd/cistern", "os.Getenv": "cmd/cistern", "os.LookupEnv": "cmd/cistern", "os.Environ": "cmd/cistern",
		"log.Fatal": "cmd/cistern", "log.Fatalf": "cmd/cistern", "log.Fatalln": "cmd/cistern",
		"slog.Default": "", "slog.SetDefault": "", "http.Get": "", "http.Post": "", "http.Handle": "", "http.HandleFunc": "",
		"http.DefaultClient": "", "http.DefaultTransport": "", "http.DefaultServeMux": "", "time.Sleep": "ingest/simnet",
	}
	for _, s := range sources(t) {
		if s.test || s.tool() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := selector.X.(*ast.Ident)
			if !ok {
				return true
			}
			if owner, ruled := rules[pkg.Name+"."+selector.Sel.Name]; ruled && owner != s.pkg {
				t.Errorf("%s: %s.%s", s.set.Position(n.Pos()), pkg.Name, selector.Sel.Name)
			}
			return true
		})
	}
}

// TestSnapshotsAreForLongReads: closing one costs a look at every table of the store, which no read of a record may cost.
func TestSnapshotsAreForLongReads(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || s.name == "store/check.go" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok && selector.Sel.Name == "NewSnapshot" {
				t.Errorf("%s: NewSnapshot: let a view (store/view.go) read at one point in time", s.set.Position(n.Pos()))
			}
			return true
		})
	}
}

// TestStateHasOneOwner: the state of a repository is assigned by transitions only.
func TestStateHasOneOwner(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || s.name == "store/transition.go" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, to := range n.Lhs {
					if field, ok := to.(*ast.SelectorExpr); ok && field.Sel.Name == "State" && !others(s, field.X) {
						t.Errorf("%s: a state is assigned: make a transition of store/transition.go", s.set.Position(n.Pos()))
					}
				}
			case *ast.CompositeLit:
				if name := fmt.Sprint(n.Type); name == "Repo" || strings.HasSuffix(name, " Repo}") {
					for _, e := range n.Elts {
						if pair, ok := e.(*ast.KeyValueExpr); ok && fmt.Sprint(pair.Key) == "State" {
							t.Errorf("%s: a state is assigned: make a transition of store/transition.go", s.set.Position(n.Pos()))
						}
					}
				}
			}
			return true
		})
	}
}

// others says whether a variable with a field State is of another type than store.Repo.
func others(s source, x ast.Expr) bool {
	return s.name == "api/admin/hosts.go" && fmt.Sprint(x) == "it"
}

// engineWriters are the files of store that call a method of the engine that writes. Batch (batch.go) writes all that
// readers of the log and of repositories see; the comment on Batch says what the others write.
var engineWriters = map[string][]string{
	"NewBatch": {"batch", "collect", "format", "host", "hostrow", "pending", "relist", "restored",
		"retention", "sink"},
	"Ingest":          {"checkpoint"},        // for import.go
	"Checkpoint":      {"checkpoint"},        // reads, and writes beside the store
	"ApplyNoSyncWait": {"sequencer"},         // a Batch
	"Apply":           {"engine"},            // Store.apply, for the batches of the other files
	"LogData":         {"freeze", "hostrow"}, // no row: it waits for the log
	"Compact":         {"compact"},           // no row
}

// engineReads are the other methods of the engine that may be called anywhere in store. Missing from
// them is EstimateDiskUsage: it races with compactions (store/sizes.go).
var engineReads = []string{"Close", "NewIter", "NewSnapshot", "Metrics", "SSTables", "TableFormat"}

// TestEngineBatches: only engineWriters write to the engine of the store, and each of them does. The
// index of links has an engine of its own.
func TestEngineBatches(t *testing.T) {
	t.Parallel()
	found := map[string][]string{}
	for _, s := range sources(t) {
		if s.test || s.pkg == "store/linkindex" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			db, ok := call.X.(*ast.SelectorExpr)
			if !ok || db.Sel.Name != "db" || slices.Contains(engineReads, call.Sel.Name) {
				return true
			}
			file := strings.TrimSuffix(path.Base(s.name), ".go")
			if s.pkg != "store" || !slices.Contains(engineWriters[call.Sel.Name], file) {
				t.Errorf("%s: db.%s of the engine: use store.Batch", s.set.Position(n.Pos()), call.Sel.Name)
			}
			found[call.Sel.Name] = append(found[call.Sel.Name], file)
			return true
		})
	}
	for method, files := range engineWriters {
		for _, file := range files {
			if !slices.Contains(found[method], file) {
				t.Errorf("store/%s.go does not call db.%s any more: strike it off here", file, method)
			}
		}
	}
}

func TestGoroutinesHaveOwners(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || s.tool() || s.pkg == "ingest/simnet" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s: go statement: let an errgroup in a Run method own it", s.set.Position(n.Pos()))
			}
			if f, ok := n.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: init: no package-level state", s.set.Position(n.Pos()))
			}
			return true
		})
	}
}

// rooms are the packages that are larger than others may be: files and lines without tests, as they
// are. A smaller package lowers its numbers here.
var rooms = map[string]struct{ files, lines int }{
	"api/deliver":       {23, 3654},
	"backfill":          {24, 3598},
	"backfill/discover": {17, 3239},
	"cmd/cistern":       {32, 4732},
	"store":             {101, 16423},
	"ingest":            {23, 3569},
	"ingest/simnet":     {37, 5168},
	"ingest/repo":       {24, 3226},
}

// TestPackagesAreSmall: a package is one subject, of at most 24 files and 3,200 lines.
func TestPackagesAreSmall(t *testing.T) {
	t.Parallel()
	files, lines := map[string]int{}, map[string]int{}
	for _, s := range sources(t) {
		if !s.test && !s.tool() {
			files[s.pkg]++
			lines[s.pkg] += s.lines
		}
	}
	for pkg := range files {
		limit, ok := rooms[pkg]
		if !ok {
			limit.files, limit.lines = 24, 3200
		}
		if files[pkg] > limit.files || lines[pkg] > limit.lines {
			t.Errorf("package %s has %d files of %d lines, at most %d of %d", pkg, files[pkg], lines[pkg], limit.files, limit.lines)
		}
	}
}

// methodsMax bounds the methods of a type. The store is excepted: it is the one owner of all rows.
const methodsMax = 40

func TestTypesAreSmall(t *testing.T) {
	t.Parallel()
	methods := map[string]int{}
	for _, s := range sources(t) {
		if s.test || s.tool() {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil {
				continue
			}
			on := f.Recv.List[0].Type
			if pointer, ok := on.(*ast.StarExpr); ok {
				on = pointer.X
			}
			if generic, ok := on.(*ast.IndexExpr); ok {
				on = generic.X
			}
			if name, ok := on.(*ast.Ident); ok {
				methods[s.pkg+"."+name.Name]++
			}
		}
	}
	for name, n := range methods {
		if n > methodsMax && name != "store.Store" {
			t.Errorf("%s has %d methods, at most %d", name, n, methodsMax)
		}
	}
}

// TestFilesAreShort bounds the lines of a file, and their columns. Lines of tests may be wider.
func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		for _, line := range s.wide {
			if !s.test {
				t.Errorf("%s:%d has more than %d columns", s.name, line, columnsMax)
			}
		}
		if s.lines > linesMax {
			t.Errorf("%s has %d lines, more than %d: perhaps two nouns", s.name, s.lines, linesMax)
		}
	}
}

// TestPackagesExplainThemselves wants a doc.go with the four headings in every package that ships.
func TestPackagesExplainThemselves(t *testing.T) {
	t.Parallel()
	docs, ships := map[string]source{}, map[string]bool{}
	for _, s := range sources(t) {
		if path.Base(s.name) == "doc.go" {
			docs[s.pkg] = s
		}
		ships[s.pkg] = ships[s.pkg] || !s.test && !s.tool()
	}
	for pkg := range ships {
		if !ships[pkg] {
			continue
		}
		doc, ok := docs[pkg]
		if !ok {
			t.Errorf("%s has no doc.go", pkg)
			continue
		}
		for _, heading := range []string{"# Purpose", "# Invariants", "# Concurrency", "# Files"} {
			if !strings.Contains(doc.file.Doc.Text(), heading+"\n") {
				t.Errorf("%s lacks the heading %q", doc.name, heading)
			}
		}
		if doc.lines > 80 {
			t.Errorf("%s has %d lines, more than 80", doc.name, doc.lines)
		}
	}
}
