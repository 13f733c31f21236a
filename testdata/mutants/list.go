package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// mutant is one entry of the list.
type mutant struct {
	line     int    // where the entry begins in the list
	text     string // the entry as it is written
	file     string // the source file to change, from the root of the module
	breaks   string // the invariant that no longer holds
	old, new string // what to replace in the file, and by what
	pkg      string // package of the tests that must fail
	tests    string // -run pattern of these tests
}

// contains reports whether the entry contains one of the texts; it does if there are none.
func (m *mutant) contains(texts []string) bool {
	return len(texts) == 0 || slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(m.text, t) })
}

// parse reads the list, and checks that each entry fits the source. The error names all that do not.
func parse(text string) ([]mutant, error) {
	var mutants []mutant
	var errs []error
	line := 1
	for entry := range strings.SplitSeq(text, "\n\n") {
		m, err := parseEntry(entry)
		if err == nil && m.file != "" {
			err = m.check()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %w", list, line, err))
		}
		if m.file != "" {
			m.line = line
			mutants = append(mutants, m)
		}
		line += strings.Count(entry, "\n") + 2
	}
	return mutants, errors.Join(errs...)
}

// parseEntry reads one entry. One that has only comments leaves the file empty.
func parseEntry(entry string) (mutant, error) {
	m := mutant{text: entry}
	var old, replacement []string
	for line := range strings.Lines(entry) {
		line = strings.TrimSuffix(line, "\n")
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "", "#":
		case "in":
			m.file = rest
		case "breaks":
			m.breaks = strings.TrimSpace(m.breaks + " " + rest)
		case "-":
			old = append(old, rest)
		case "+":
			replacement = append(replacement, rest)
		case "test":
			m.pkg, m.tests, _ = strings.Cut(rest, " ")
		default:
			return m, fmt.Errorf("a line begins with %q", word)
		}
	}
	m.old, m.new = strings.Join(old, "\n"), strings.Join(replacement, "\n")
	return m, nil
}

// check reports what is wrong with an entry.
func (m *mutant) check() error {
	switch {
	case m.old == "" || m.old == m.new:
		return fmt.Errorf("the mutant of %s changes nothing", m.file)
	case m.breaks == "" || m.pkg == "" || m.tests == "":
		return fmt.Errorf("the mutant of %s lacks a line breaks or test", m.file)
	}
	source, err := os.ReadFile(m.file)
	if err != nil {
		return err
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		return fmt.Errorf("%s has the text to be changed %d times, not once:\n%s", m.file, n, m.old)
	}
	return nil
}
