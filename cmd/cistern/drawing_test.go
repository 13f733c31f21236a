package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPackagesAreDrawn keeps the drawing of packages in docs/architecture.md equal to the imports.
func TestPackagesAreDrawn(t *testing.T) {
	t.Parallel()
	name := filepath.Join("..", "..", "docs", "architecture.md")
	const open, shut = "```mermaid\nflowchart TD\n", "```\n"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), open)
	got, after, ok2 := strings.Cut(rest, shut)
	if !ok || !ok2 {
		t.Fatalf("%s has no drawing of packages", name)
	}
	packages := imports(t)
	for pkg := range packages {
		if !strings.Contains(after, "\n| `"+pkg+"` | ") {
			t.Errorf("%s: the table of packages has no row for %s", name, pkg)
		}
	}
	want := drawing(packages)
	if got == want {
		return
	}
	if !*update {
		t.Fatalf("%s differs (go test ./cmd/cistern -run Drawn -update):\n%s", name, want)
	}
	if err := os.WriteFile(name, []byte(before+open+want+shut+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// imports returns, for each package that is not for tests, those of the module that it imports.
func imports(t *testing.T) map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for _, s := range sources(t) {
		if _, restricted := forTests[s.pkg]; restricted || s.test || s.tool() {
			continue
		}
		if all[s.pkg] == nil {
			all[s.pkg] = map[string]bool{}
		}
		for _, imported := range s.imports() {
			target, ours := strings.CutPrefix(imported, "cistern/")
			if _, restricted := forTests[target]; ours && !restricted {
				all[s.pkg][target] = true
			}
		}
	}
	return all
}

// drawing returns the arrows between packages, without an arrow that a longer path replaces.
func drawing(imports map[string]map[string]bool) string {
	var reaches func(from, to string) bool
	reaches = func(from, to string) bool {
		for via := range imports[from] {
			if via == to || reaches(via, to) {
				return true
			}
		}
		return false
	}
	var b strings.Builder
	for _, from := range slices.Sorted(maps.Keys(imports)) {
		for _, to := range slices.Sorted(maps.Keys(imports[from])) {
			longer := func(via string) bool { return reaches(via, to) }
			if !slices.ContainsFunc(slices.Collect(maps.Keys(imports[from])), longer) {
				b.WriteString("    " + from + " --> " + to + "\n")
			}
		}
	}
	return b.String()
}
