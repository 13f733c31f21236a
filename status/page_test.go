package status_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cistern/status"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"github.com/mattn/go-runewidth"
)

var update = flag.Bool("update", false, "write the golden pages")

func plain(_, text string) string { return text }

// marked shows where colours are.
func marked(color, text string) string {
	if color == "" || strings.TrimSpace(text) == "" {
		return text
	}
	return "<" + color + ":" + text + ">"
}

func decode(t *testing.T, name string) *status.Answer {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := status.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// golden compares a page with the file of this name.
func golden(t *testing.T, name, page string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(page), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), page); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// TestPage compares pages with golden ones, in widths of terminals and with colours.
func TestPage(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"well", "troubled", "copied"} {
		a := decode(t, name)
		for _, columns := range []int{80, 160} {
			golden(t, fmt.Sprintf("%s_%d", name, columns),
				a.Page(status.View{Columns: columns, Paint: plain}))
		}
		golden(t, name+"_colours", a.Page(status.View{Columns: 80, Paint: marked, ASCII: true}))
	}
}

// TestSentencesAreBounded: the head shows the problems first, at most so many sentences, and says how
// many it leaves out.
func TestSentencesAreBounded(t *testing.T) {
	t.Parallel()
	a := decode(t, "troubled")
	for i := range 6 {
		a.Verdict.Problems = append(a.Verdict.Problems, fmt.Sprintf("problem %d", i))
	}
	page := a.Page(status.View{Columns: 200, Paint: plain})
	if strings.Count(page, "\n! ") != 8 || strings.Contains(page, "\n- ") || !strings.Contains(page, "\n  and 5 more\n") {
		t.Error(page)
	}
}

// TestDecode: only an overview is one.
func TestDecode(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "{}", "[]", `{"time":"yesterday"}`, `{"time":"2026-12-01T12:00:00Z","stats":7}`, `{"time":"2026-12-01T12:00:00Z"}`} {
		if a, err := status.Decode([]byte(text)); err == nil {
			t.Errorf("%q is %+v", text, a)
		}
	}
}

// TestPagesAreBounded: whatever a daemon answers and however narrow the terminal, no line is wider
// than the terminal, none has a character that drives it, and nothing panics (invariants 1 and 2).
func TestPagesAreBounded(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/troubled.json")
	if err != nil {
		t.Fatal(err)
	}
	for seed := range storetest.Seeds(500) {
		r := rand.New(rand.NewPCG(seed, 0))
		a, err := status.Decode(distorted(t, r, text))
		if err != nil {
			continue
		}
		columns := 20 + r.IntN(200)
		if wantBounded(t, a.Page(status.View{Columns: columns, Paint: plain}), columns); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// distorted returns an answer with changed values.
func distorted(t *testing.T, r *rand.Rand, text []byte) []byte {
	t.Helper()
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	distort(r, tree)
	bad, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return bad
}

// wantBounded wants that a page fits a terminal and cannot control it.
func wantBounded(t *testing.T, page string, columns int) {
	t.Helper()
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		if n := runewidth.StringWidth(line); n > columns {
			t.Errorf("a line has %d columns of %d: %q", n, columns, line)
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x202e }) {
			t.Errorf("a line can drive the terminal: %q", line)
		}
	}
}

// distort changes some values of a JSON tree, and leaves their types as they are.
func distort(r *rand.Rand, tree any) {
	texts := []string{"", "x", "\x1b[2J\n\r", "\u202etxt", strings.Repeat("日本", 200), "2026-12-01T11:00:00Z"}
	change := func(value any) any {
		switch value := value.(type) {
		case string:
			if value != "2026-12-01T12:00:00Z" && r.IntN(4) == 0 {
				return texts[r.IntN(len(texts))]
			}
		case float64:
			switch r.IntN(8) {
			case 0:
				return 0.0
			case 1:
				return float64(r.Int64N(1 << 60))
			}
		case []any:
			if r.IntN(8) == 0 {
				return []any{}
			}
		case map[string]any:
			if r.IntN(20) == 0 {
				return nil
			}
		}
		return value
	}
	switch tree := tree.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(tree)) {
			value := tree[key]
			distort(r, value)
			tree[key] = change(value)
		}
	case []any:
		for i, value := range tree {
			distort(r, value)
			tree[i] = change(value)
		}
	}
}
