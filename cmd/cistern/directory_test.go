package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/alert"
	"cistern/cmd/cistern/command"
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

// awaitAlerts waits until the answer of /alerts has all of these texts, or nothing if there are no texts.
func (x *testIndex) awaitAlerts(t *testing.T, what string, texts ...string) {
	t.Helper()
	x.await(t, what, func() error { return x.alerting(t, texts...) })
}

// alerting returns an error unless the answer of /alerts has all of these texts, or nothing if there
// are no texts.
func (x *testIndex) alerting(t *testing.T, texts ...string) error {
	t.Helper()
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
}

// TestDirectoryAlert: a PLC directory that stops answering is an alert until it has answered again for
// some minutes, and the status of the daemon says so. A DID that does not exist raises no alert.
func TestDirectoryAlert(t *testing.T) {
	t.Parallel()
	for name, fault := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNetwork(t, simnet.Options{Seed: 19, Repos: 3, Hosts: 1})
			x, tune := newTestIndex(t), hasty()
			tune.alerts = func(o *alert.Options) { o.Every = 10 * time.Millisecond }
			var later atomic.Int64 // nanoseconds that the clock of the directory is ahead
			tune.identity = func(o *identity.Options) {
				o.ProbeEvery, o.Timeout = 20*time.Millisecond, 2*time.Second // which a busy machine has, too
				o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
			}
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
				" lookups failed in the last 5 minutes; check the directory", `"runbook":"docs/operating.md#alert-directory"`)
			out, err := x.command(t.Context(), nil, "status")
			if (command.ExitError{Code: 1}) != err || !strings.Contains(out, "! alert: directory "+n.PLC()) {
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
			x.await(t, "the end of the alert", func() error {
				later.Add(int64(10 * time.Second))
				return x.alerting(t)
			})
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

// TestFailingDirectories: an alert has the share of lookups that failed, the newest error, and what to
// do: only if all directories fail are identities unavailable.
func TestFailingDirectories(t *testing.T) {
	t.Parallel()
	failing := identity.Fault{Base: "https://one.example", Attempts: 30, Failed: 31, Asked: 1060, Error: "HTTP 502"}
	well := failing
	well.Well = true
	const (
		check = "check the directory and the network, or add another one with --plc"
		other = "another directory is asked instead"
		works = "it works again"
	)
	for _, c := range []struct {
		faults      []identity.Fault
		directories int
		want        []string
	}{
		{[]identity.Fault{failing}, 1, []string{check}},
		{[]identity.Fault{failing}, 2, []string{other}},
		{[]identity.Fault{failing, failing}, 2, []string{check, check}},
		{[]identity.Fault{well}, 1, []string{works}},
		{[]identity.Fault{failing, well}, 2, []string{other, works}},
	} {
		var want []alert.Failure
		for _, text := range c.want {
			want = append(want, alert.Failure{Kind: alert.Directory, Name: "https://one.example", Attempts: 30,
				Error: "31 of 1,060 lookups failed in the last 5 minutes; " + text + "; newest error: HTTP 502"})
		}
		if all := failingDirectories(c.faults, c.directories); !slices.Equal(all, want) {
			t.Errorf("of %d directories: %+v, want %+v", c.directories, all, want)
		}
	}
}
