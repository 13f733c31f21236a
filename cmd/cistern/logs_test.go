package main

import (
	"bytes"
	"context"
	"encoding/json"
	"go/ast"
	"go/token"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/logbook"
	"cistern/logs"
)

// TestJournaled: many lines of one kind do not push the others out of the journal.
func TestJournaled(t *testing.T) {
	t.Parallel()
	book := logbook.New()
	log := journaled(slog.New(logs.New(logs.Options{Level: slog.LevelError})), book)
	log.Info("serving")
	for range 1000 {
		log.With("source", "a").Error("fails")
	}
	if lines := book.After(0, 500); len(lines) < 2 || lines[0].Message != "serving" || lines[1].Attributes != "source=a" {
		t.Errorf("%d lines: %v", len(lines), lines)
	}
}

// TestLogFormat: with --log-format json every line of a daemon is an object, and the metrics count it.
func TestLogFormat(t *testing.T) {
	t.Parallel()
	x := newTestIndex(t)
	var stderr bytes.Buffer
	a := &app{Process: command.Process{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &stderr, Exit: os.Exit}, tune: hasty()}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		result <- a.run(ctx, []string{"run", "--data", x.dir, "--listen", x.public, "--admin", x.admin,
			"--plc", "http://127.0.0.1:1", "--allow-private", "--log-format", "json"})
	}()
	var metrics string
	x.await(t, "the daemon to answer", func() error {
		return x.call(ctx, "GET", "/metrics", nil, func(b []byte) error {
			metrics = string(b)
			return nil
		})
	})
	cancel()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(metrics, `cistern_log_lines_total{level="error"} 0`) {
		t.Error("the metrics do not count lines of the log")
	}
	var messages []string
	for line := range strings.Lines(stderr.String()) {
		var l struct {
			Time       time.Time
			Level, Msg string
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Time.IsZero() || l.Level == "" {
			t.Errorf("%s: %v", line, err)
		}
		messages = append(messages, l.Msg)
	}
	if !slices.Contains(messages, "serving") || !slices.Contains(messages, "stopped") {
		t.Errorf("messages: %q", messages)
	}
}

// TestDocsErrors: docs/observability.md says of each line of level error what an operator does, and
// of no other line.
func TestDocsErrors(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "observability.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _, err := marked(string(page), "errors")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 2 || len(cells[1]) < 20 {
			t.Errorf("want a line and an action, not %q", line)
			continue
		}
		documented = append(documented, strings.TrimSpace(cells[0]))
	}
	if !slices.IsSorted(documented) {
		t.Error("the table is not sorted")
	}
	found := map[string]bool{}
	for _, s := range sources(t) {
		if s.test || s.tool() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, message := lineOf(call)
			if method == "" {
				return true
			}
			at := s.set.Position(n.Pos())
			switch {
			case message == "":
				t.Errorf("%s: the message of a log line is a constant text: what varies is an attribute", at)
			case method == "Error" && !slices.Contains(documented, message):
				t.Errorf("%s: docs/observability.md does not say what to do about %q", at, message)
			case method == "Error":
				found[message] = true
			}
			return true
		})
	}
	for _, message := range documented {
		if !found[message] {
			t.Errorf("docs/observability.md has %q, which no line of level error says", message)
		}
	}
}

// lineOf returns the method and the message of a call that logs; "" for another call, and for a
// message that is not a constant. Log and LogAttrs may not have level error.
func lineOf(call *ast.CallExpr) (method, message string) {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !isLogger(f.X) {
		return "", ""
	}
	at := 0
	switch f.Sel.Name {
	case "Debug", "Info", "Warn", "Error":
	case "Log", "LogAttrs":
		at = 2
	default:
		return "", ""
	}
	if len(call.Args) <= at {
		return "", ""
	}
	return f.Sel.Name, constant(call.Args[at])
}

// isLogger reports whether an expression is named like a logger.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return strings.EqualFold(x.Name, "log") || strings.EqualFold(x.Name, "logger")
	case *ast.SelectorExpr:
		return isLogger(x.Sel)
	}
	return false
}

// constant returns the value of a text that is written out, perhaps in several parts.
func constant(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.BasicLit:
		if x.Kind == token.STRING {
			text, _ := strconv.Unquote(x.Value)
			return text
		}
	case *ast.BinaryExpr:
		a, b := constant(x.X), constant(x.Y)
		if x.Op == token.ADD && a != "" && b != "" {
			return a + b
		}
	}
	return ""
}

// TestLevelErrorIsWrittenOut: a level that is computed is below error, so that TestDocsErrors sees
// all lines of that level.
func TestLevelErrorIsWrittenOut(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || s.tool() || s.pkg == "logs" {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if f, ok := n.(*ast.SelectorExpr); ok && f.Sel.Name == "LevelError" && s.name != "cmd/cistern/demo.go" {
				t.Errorf("%s: call Error of the logger", s.set.Position(n.Pos()))
			}
			return true
		})
	}
}
