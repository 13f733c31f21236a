package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cistern/alert"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
)

// outages are the ways in which a host stops to answer.
var outages = map[string]simnet.Fault{
	"error":   {Kind: simnet.ServerError, Status: 502},
	"silence": {Kind: simnet.Hang},
	"refused": {}, // nothing listens
}

// breakHost lets a host fail in one way. back ends that.
func breakHost(t *testing.T, h *simnet.Host, f simnet.Fault) (back func()) {
	t.Helper()
	if f.Kind != 0 {
		f.Endpoint = "*"
		return h.Inject(f).Clear
	}
	if err := h.Down(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := h.Up(); err != nil {
			t.Error(err)
		}
	}
}

// awaitAlerts wants that the answer of /alerts has all of these texts, and nothing if there are none.
func (x *testIndex) awaitAlerts(t *testing.T, what string, texts ...string) {
	t.Helper()
	x.await(t, what, func() error {
		status, answer := x.send(t, "GET", "/alerts?state=alert", "")
		if status != 200 || len(texts) == 0 && answer != "[]" {
			return errors.New(answer)
		}
		for _, text := range texts {
			if !strings.Contains(answer, text) {
				return fmt.Errorf("no %s in %s", text, answer)
			}
		}
		return nil
	})
}

// TestDirectoryAlert: a PLC directory that stops answering is an alert until it answers again, and
// the status of the daemon says so. A DID that does not exist raises no alert.
func TestDirectoryAlert(t *testing.T) {
	t.Parallel()
	for name, fault := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNetwork(t, simnet.Options{Seed: 19, Repos: 3, Hosts: 1})
			x, tune := newTestIndex(t), hasty()
			tune.alerts = func(o *alert.Options) { o.Every = 10 * time.Millisecond }
			tune.identity = func(o *identity.Options) { o.ProbeEvery, o.Timeout = 20*time.Millisecond, 200*time.Millisecond }
			stop := x.startTuned(t, x.args(n, "--alert-after", "directory=0"), tune)
			missing := []string{"did:plc:" + strings.Repeat("z", 24)}
			if err := x.call(t.Context(), "PUT", "/repos", missing, nil); err != nil {
				t.Fatal(err)
			}
			x.await(t, "the missing DID to fail", func() error {
				if _, row := x.send(t, "GET", "/repos/"+missing[0], ""); !strings.Contains(row, "not found") {
					return errors.New(row)
				}
				return nil
			})
			if _, answer := x.send(t, "GET", "/alerts", ""); answer != "[]" {
				t.Errorf("a DID does not exist, and %s", answer)
			}
			back := breakHost(t, n.PLCHost(), fault)
			if err := x.call(t.Context(), "PUT", "/repos", n.DIDs(), nil); err != nil {
				t.Fatal(err)
			}
			x.awaitAlerts(t, "the directory to alert", `"kind":"directory","subject":"`+n.PLC()+`","state":"alert"`,
				"identities cannot be looked up: ", `"runbook":"docs/operating.md#alert-directory"`)
			out, err := x.command(t.Context(), nil, "status")
			if (exitError{code: 1}) != err || !strings.Contains(out, "! alert: directory "+n.PLC()) {
				t.Errorf("status: %v\n%s", err, out)
			}
			x.await(t, "the error of an account, once", func() error {
				out, err := x.command(t.Context(), nil, "repo", "show", n.DIDs()[0])
				if err != nil || strings.Count(out, "resolve "+n.DIDs()[0]) != 1 || !strings.Contains(out, "transport") {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
			back()
			x.awaitAlerts(t, "the end of the alert")
			x.await(t, "the accounts to be fetched", func() error {
				counts, err := x.counts(t.Context())
				if err == nil && counts["synced"] != active(n.Accounts()) {
					err = fmt.Errorf("%v", counts)
				}
				return err
			})
			stop()
		})
	}
}

// TestFailingDirectories: only if all directories fail are identities unavailable.
func TestFailingDirectories(t *testing.T) {
	t.Parallel()
	fault := identity.Fault{Base: "https://one.example", Attempts: 3, Error: "HTTP 502"}
	for directories, want := range map[int]string{
		1: "identities cannot be looked up: HTTP 502",
		2: "identities are looked up at another directory: HTTP 502",
	} {
		all := failingDirectories([]identity.Fault{fault}, directories)
		if len(all) != 1 || all[0].Error != want || all[0].Name != fault.Base || all[0].Attempts != 3 {
			t.Errorf("1 of %d: %+v, want %q", directories, all, want)
		}
	}
}
