package status

import (
	"fmt"

	"cistern/console"
)

// Verdict is whether a daemon needs an operator, by the rule of package verdict. Commands exit with
// 1 if Bad reports so, with 2 if no daemon answers, and else with 0.
type Verdict struct {
	Level    string // good, warn or bad
	Text     string // in a few words
	Ready    bool
	Count    int      // of problems
	Problems []string // need an operator, a sentence each
	Notes    []string // a sentence each
}

// Bad reports whether the daemon has a problem.
func (v *Verdict) Bad() bool { return v.Level == "bad" }

// words returns the verdict in a few words, in its colour.
func (v *Verdict) words() span {
	switch v.Level {
	case "good":
		return span{console.Green, v.Text}
	case "warn":
		return span{console.Yellow, v.Text}
	}
	return span{console.Red, v.Text}
}

// lines returns the sentences, at most rows of them, problems first.
func (v *Verdict) lines(rows int) (lines []line) {
	for _, p := range v.Problems {
		lines = append(lines, line{{console.Red, "! "}, {"", p}})
	}
	for _, n := range v.Notes {
		lines = append(lines, line{{console.Yellow, "- "}, {"", n}})
	}
	if len(lines) > rows {
		more := fmt.Sprintf("  and %d more", len(lines)-rows)
		lines = append(lines[:rows], line{{console.Red, more}})
	}
	return lines
}
