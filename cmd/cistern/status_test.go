package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cistern/cmd/cistern/command"
	"cistern/cmd/cistern/remote"
	"cistern/ingest/simnet"
)

// stubDaemon answers as a private listener would, with fixed figures.
type stubDaemon struct {
	overview string // of ../../status/testdata
	unready  bool
	token    string
}

// longError is the error of the subject that a stub lists.
var longError = strings.Repeat("an error that is longer than a line, ", 9) + "end"

func (d *stubDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, name, message string) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": name, "message": message})
	}
	if d.token != "" && r.URL.Path != "/readyz" && r.Header.Get("Authorization") != "Bearer "+d.token {
		refuse(http.StatusUnauthorized, "AuthRequired", "this listener needs its token")
		return
	}
	switch r.URL.Path {
	case "/readyz":
		if d.unready {
			refuse(http.StatusServiceUnavailable, "Unavailable", "not ready: the store has failed")
			return
		}
		_, _ = w.Write([]byte(`{"status":"ready"}`))
	case "/overview":
		text, err := os.ReadFile(filepath.Join("..", "..", "status", "testdata", d.overview+".json"))
		if err != nil {
			refuse(http.StatusInternalServerError, "InternalServerError", err.Error())
			return
		}
		_, _ = w.Write(bytes.ReplaceAll(text, []byte("\n"), nil))
	case "/alerts":
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "host", "subject": "pds.example.com", "state": "alert", "attempts": 3, "error": longError})
	case "/metrics":
		_, _ = w.Write([]byte("cistern_api_requests_total{route=\"stats\"} 7\n"))
	default:
		refuse(http.StatusNotFound, "NotFound", r.URL.Path)
	}
}

// serveStub serves the answers of a stub, and returns its address.
func serveStub(t *testing.T, d *stubDaemon) string {
	t.Helper()
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	return server.URL
}

// TestStatusExitCodes: what status and its probe print, and their exit codes.
func TestStatusExitCodes(t *testing.T) {
	t.Parallel()
	nothing := "http://" + freeAddress(t)
	for _, row := range []struct {
		why, args string
		stub      *stubDaemon
		code      int
		out, err  string
	}{
		{"all is well", "status", &stubDaemon{overview: "well"}, 0, "all is well", ""},
		{"there are alerts", "status", &stubDaemon{overview: "troubled"}, 1, "! alert: disk", ""},
		{"the store has failed", "status", &stubDaemon{overview: "unready"}, 1, "the store has failed", ""},
		{"no daemon answers", "status", nil, 2, "", "no daemon answers"},
		{"another program answers", "status", &stubDaemon{overview: "missing"}, 2, "", "InternalServerError"},
		{"the token is missing", "status", &stubDaemon{overview: "well", token: "secret"}, 2, "", "AuthRequired"},
		{"the token is given", "status --admin-token secret", &stubDaemon{overview: "well", token: "secret"}, 0, "all is well", ""},
		{"JSON, well", "status --json", &stubDaemon{overview: "well"}, 0, `{"status":"ok","problems":[],"notes":[],"overview":{"time"`, ""},
		{"JSON, alerts", "status --json", &stubDaemon{overview: "troubled"}, 1, `{"status":"attention","problems":["the daemon is draining, on the way to suspended: it takes no new data`, ""},
		{"JSON, unready", "status --json", &stubDaemon{overview: "unready"}, 1, `{"status":"unready"`, ""},
		{"a probe needs no token", "status --probe", &stubDaemon{overview: "troubled", token: "secret"}, 0, "ready\n", ""},
		{"a probe of a failed store", "status --probe", &stubDaemon{unready: true}, 1, "unready\n", ""},
		{"a probe without a daemon", "status --probe", nil, 1, "unreachable\n", ""},
		{"an argument", "status now", &stubDaemon{overview: "well"}, 64, "", "takes no arguments"},
	} {
		admin := nothing
		if row.stub != nil {
			admin = serveStub(t, row.stub)
		}
		var out, stderr bytes.Buffer
		a := &app{Process: command.Process{Stdout: &out, Stderr: &stderr, Exit: func(int) {}, Environ: []string{"CISTERN_ADMIN=" + admin}}}
		code := command.ExitCode(a.run(t.Context(), strings.Fields(row.args)), &stderr)
		if code != row.code || !strings.Contains(out.String(), row.out) || !strings.Contains(stderr.String(), row.err) ||
			row.err == "" && stderr.Len() > 0 || strings.HasPrefix(row.args, "status --probe") && out.String() != row.out {
			t.Errorf("%s: exit code %d, want %d\n%s%s", row.why, code, row.code, &out, &stderr)
		}
	}
}

// TestStatusOfDaemon: a daemon that has synced its repositories is well, and its page has its
// figures. After its end there is no answer.
func TestStatusOfDaemon(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 71, Repos: 3, Hosts: 1})
	x := newTestIndex(t)
	stop := x.start(t, x.args(n, "--mode", "full", "--relay", n.Relay()))
	status := func() (int, string) {
		var out bytes.Buffer
		a := &app{Process: command.Process{Stdout: &out, Stderr: &out, Exit: func(int) {}}}
		err := a.run(t.Context(), []string{"status", "--admin", x.admin})
		return command.ExitCode(err, &out), out.String()
	}
	var page string
	x.await(t, "the status of a synced daemon", func() (err error) {
		var code int
		if code, page = status(); code != 0 || !strings.Contains(page, "3 of 3 synced") || !strings.Contains(page, "1 of 1 connected") {
			err = errors.New(page)
		}
		return err
	})
	if !strings.Contains(page, "all is well") {
		t.Error(page)
	}
	stop()
	if code, page := status(); code != remote.ExitUnknown {
		t.Errorf("exit code %d after the end of the daemon: %s", code, page)
	}
}

// TestStatusOfNothingTracked: a daemon with a relay and nothing else copies nothing, and its status
// says what to do. Once it has an account, it is well. A mode that a later start names is ignored,
// and its status says so.
func TestStatusOfNothingTracked(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 72, Repos: 1, Hosts: 1})
	x := newTestIndex(t)
	run := func(args ...string) (int, string) {
		var out bytes.Buffer
		a := &app{Process: command.Process{Stdout: &out, Stderr: &out, Exit: func(int) {}}}
		err := a.run(t.Context(), append(args, "--admin", x.admin))
		return command.ExitCode(err, &out), out.String()
	}
	want := func(why, text string) {
		t.Helper()
		x.await(t, why, func() error {
			if code, page := run("status"); code != 0 || !strings.Contains(page, text) || !strings.Contains(page, "1 of 1 connected") {
				return errors.New(page)
			}
			return nil
		})
	}
	stop := x.start(t, x.args(n, "--relay", n.Relay()))
	want("a note that nothing is tracked", "\n- nothing is tracked: run 'cistern repo add DID', or set mode full")
	if code, text := run("repo", "add", n.DIDs()[0]); code != 0 {
		t.Fatal(text)
	}
	want("the account", "all is well")
	stop()
	stop = x.start(t, x.args(n, "--relay", n.Relay(), "--mode", "full"))
	want("the mode that is ignored", "\n- --mode full is ignored: the store keeps filter, which PATCH /filter changes\n")
	x.patch(t, `{"mode":"full"}`)
	want("the mode of the option", "all is well")
	stop()
}
