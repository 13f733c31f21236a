// Command mutants measures the tests: it breaks an invariant on purpose, by one small change of the
// source (a mutant), and runs the tests that are to notice. The working tree is never touched: the
// compiler reads the changed file by an overlay. mutants.txt lists the mutants and explains the form.
//
//	go run ./testdata/mutants [text ...]
//
// runs those mutants whose entry contains one of the texts, or all. It fails if one survives, does
// not build, or no longer fits the source. With -fit it runs none, and fails if one does not fit.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	list = "testdata/mutants/mutants.txt"
	// timeLimit is many times what the tests of one mutant take on a busy machine. A mutant that
	// makes a test hang counts as killed, so that a limit too low would hide survivors.
	timeLimit = 2 * time.Minute
)

// run has the state of one invocation.
type run struct {
	ctx context.Context
	dir string // for test binaries and overlays
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := mutate(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

// mutate runs the mutants that contain one of the texts.
func mutate(ctx context.Context, texts []string) error {
	text, err := os.ReadFile(list)
	if err != nil {
		return fmt.Errorf("%w: run this in the root of the module", err)
	}
	mutants, err := parse(string(text))
	if err != nil {
		return err
	}
	if slices.Equal(texts, []string{"-fit"}) {
		return nil
	}
	mutants = slices.DeleteFunc(mutants, func(m mutant) bool { return !m.contains(texts) })
	if len(mutants) == 0 {
		return fmt.Errorf("no mutant contains any of %q", texts)
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := run{ctx, dir}
	if err := r.unchanged(mutants); err != nil {
		return err
	}
	return r.all(mutants)
}

// unchanged proves that the tests pass without a mutation, so that a failure is the mutant's doing.
func (r run) unchanged(mutants []mutant) error {
	tests := map[string][]string{}
	for _, m := range mutants {
		tests[m.pkg] = append(tests[m.pkg], m.tests)
	}
	for pkg, patterns := range tests {
		fmt.Printf("unchanged  %s\n", pkg)
		slices.Sort(patterns)
		pattern := strings.Join(slices.Compact(patterns), "|")
		output, err := r.build(pkg)
		if err == nil {
			output, err = r.test(pkg, pattern, "-test.short")
		}
		if err != nil {
			return fmt.Errorf("tests of %s without a mutation: %w\n%s", pkg, err, output)
		}
	}
	return nil
}

// all runs the mutants and reports each.
func (r run) all(mutants []mutant) error {
	begun := time.Now()
	var survivors, mistakes int
	for i, m := range mutants {
		start := time.Now()
		verdict, output := r.one(m)
		if err := r.ctx.Err(); err != nil {
			return err
		}
		fmt.Printf("%-9s  %d/%d  %4.1f s  %s: %s\n", verdict, i+1, len(mutants),
			time.Since(start).Seconds(), m.file, m.breaks)
		switch verdict {
		case survived:
			survivors++
		case mistaken:
			mistakes++
		}
		if output != "" {
			fmt.Printf("%s\n", output)
		}
	}
	fmt.Printf("%d mutants in %.0f s: %d killed, %d survived, %d not built\n", len(mutants),
		time.Since(begun).Seconds(), len(mutants)-survivors-mistakes, survivors, mistakes)
	if survivors+mistakes > 0 {
		return errors.New("a test is missing for each survivor; one that was not built is a mistake in " + list)
	}
	return nil
}

// The verdicts on a mutant.
const (
	killed   = "killed"
	hung     = "killed (time)"
	survived = "SURVIVED"
	mistaken = "NOT BUILT"
)

// one returns the verdict on one mutant, and what there is to read about it.
func (r run) one(m mutant) (verdict, output string) {
	if err := r.overlay(m); err != nil {
		return mistaken, err.Error()
	}
	if output, err := r.build(m.pkg, "-overlay", r.path("overlay.json")); err != nil {
		return mistaken, output
	}
	_, err := r.test(m.pkg, m.tests, "-test.short")
	if err == nil { // the tests that notice may be among the slow ones
		_, err = r.test(m.pkg, m.tests)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return hung, ""
	case err != nil:
		return killed, ""
	}
	return survived, fmt.Sprintf("%s:%d: go test -run '%s' ./%s passes", list, m.line, m.tests, m.pkg)
}

// overlay writes the changed file, and the overlay by which the compiler reads it.
func (r run) overlay(m mutant) error {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return err
	}
	name, err := filepath.Abs(m.file)
	if err != nil {
		return err
	}
	changed := r.path("changed.go")
	text := strings.Replace(string(source), m.old, m.new, 1)
	if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{name: changed}})
	if err != nil {
		return err
	}
	return os.WriteFile(r.path("overlay.json"), overlay, 0o600)
}

// build makes the test binary of a package. Vet is not asked: it complains of some mutants.
func (r run) build(pkg string, flags ...string) (output string, err error) {
	args := append([]string{"test", "-c", "-vet=off", "-ldflags=-w", "-o", r.path("test")}, flags...)
	return r.command(exec.CommandContext(r.ctx, "go", append(args, "./"+pkg)...))
}

// test runs tests of the binary made last. The error is context.DeadlineExceeded if they hang.
func (r run) test(pkg, pattern string, flags ...string) (output string, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, timeLimit)
	defer cancel()
	args := append([]string{"-test.failfast", "-test.run", pattern}, flags...)
	if rapid, err := importsRapid(pkg); err != nil {
		return "", err
	} else if rapid {
		args = append(args, "-rapid.nofailfile") // else a failure leaves a file in the package
	}
	c := exec.CommandContext(ctx, r.path("test"), args...)
	c.Dir = filepath.FromSlash(pkg)
	if output, err = r.command(c); err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return output, err
}

// importsRapid reports whether tests of a package import that library, and so know its flags.
func importsRapid(pkg string) (bool, error) {
	files, err := filepath.Glob(filepath.Join(pkg, "*_test.go"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || bytes.Contains(text, []byte(`"pgregory.net/rapid"`)) {
			return err == nil, err
		}
	}
	return false, err
}

func (r run) command(c *exec.Cmd) (output string, err error) {
	c.WaitDelay = time.Second // for processes that the tests started
	text, err := c.CombinedOutput()
	return string(text), err
}

func (r run) path(name string) string { return filepath.Join(r.dir, name) }
