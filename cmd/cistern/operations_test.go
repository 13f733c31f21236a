package main

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/ingest/simnet"
	"cistern/maintain"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// TestMaintainCommands runs the commands of maintenance against a daemon.
func TestMaintainCommands(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 2, Hosts: 1})
	x := newTestIndex(t)
	x.start(t, x.args(n))
	for _, row := range []struct {
		args  string
		want  string // in the output
		fails string // in the error
	}{
		{"run compact", "compact done", ""},
		{"run gc --json", `{"name":"gc","result":"done"}`, ""},
		{"run prune --no-wait", "prune requested", ""},
		{"cancel compact", "compact idle", ""},
		{"ls", "OPERATION ", ""},
		{"ls --json", `{"operations":[{"name":"prune","state":`, ""},
		{"run none", "", `there is no operation "none"`},
		{"run", "", "takes OPERATION, got 0 arguments"},
		{"cancel", "", "needs the name of an OPERATION"},
		{"ls none", "", "takes no arguments"},
	} {
		var out bytes.Buffer
		a := &app{Process: command.Process{Stdout: &out, Stderr: &out, Environ: []string{"CISTERN_ADMIN=" + x.admin}}}
		err := a.run(t.Context(), append([]string{"maintain"}, strings.Fields(row.args)...))
		if err == nil != (row.fails == "") || err != nil && !strings.Contains(err.Error(), row.fails) {
			t.Errorf("maintain %s: %v", row.args, err)
		}
		if !strings.Contains(out.String(), row.want) {
			t.Errorf("maintain %s: %s", row.args, &out)
		}
		done := regexp.MustCompile(`\ncompact +idle +- +(now|\d+ seconds? ago) `)
		if row.args == "ls" && !done.Match(out.Bytes()) {
			t.Errorf("maintain ls: %s", &out)
		}
	}
}

// TestReconcileOperation: the operation reconcile finds what no event brought. It begins nothing while
// the crawler is off, and says so.
func TestReconcileOperation(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 6, Hosts: 2})
	x := newTestIndex(t)
	x.start(t, x.args(n, "--crawl", "repos::"+n.Relay())) // follows no firehose, and crawls once a day
	x.track(t, n.Accounts()...)
	x.settle(t, map[string]int64{"synced": 6})
	for _, a := range n.Accounts() {
		if _, err := a.Mutate(2); err != nil {
			t.Fatal(err)
		}
	}
	if status, answer := x.send(t, "PATCH", "/ingestion", `{"crawler":false}`); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	if _, err := x.command(t.Context(), nil, "maintain", "run", "reconcile", "--no-wait"); err != nil {
		t.Fatal(err)
	}
	x.await(t, "the reason to be shown", func() error {
		out, err := x.command(t.Context(), nil, "maintain", "ls")
		if err == nil && !strings.Contains(out, "switched off by PATCH /ingestion") {
			err = errors.New(out)
		}
		return err
	})
	if status, answer := x.send(t, "PATCH", "/ingestion", `{"crawler":true}`); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	if out, err := x.command(t.Context(), nil, "maintain", "run", "reconcile"); err != nil || !strings.Contains(out, "reconcile done") {
		t.Errorf("%s: %v", out, err)
	}
	x.awaitRevs(t, n.Accounts())
}

// TestOperationRows: a row is the same after the store kept it.
func TestOperationRows(t *testing.T) {
	t.Parallel()
	keep := operationRows{storetest.Open(t, store.Options{})}
	at := time.UnixMilli(1748693290001)
	want := []maintain.Row{
		{Name: "a", Began: true, Needs: 2, Behind: []string{"x"}, Next: true, Waiting: []string{"y", "z"}, Ended: at, Succeeded: at.Add(-time.Hour),
			Error: "bad", Failures: 3, Due: at.Add(time.Hour)},
		{Name: "b"},
	}
	for _, row := range want {
		if err := keep.Save(row); err != nil {
			t.Fatal(err)
		}
	}
	got, err := keep.Load()
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

// TestDamageStopsTheDaemon: an operation that finds the store damaged ends the box of maintenance,
// and another failure does not.
func TestDamageStopsTheDaemon(t *testing.T) {
	t.Parallel()
	results := make(chan error, 2)
	results <- errors.New("the network is down")
	results <- store.ErrCorrupt
	d := &daemon{damage: make(chan error, 1)}
	var err error
	d.maintain, err = maintain.New(maintain.Options{Keeper: operationRows{storetest.Open(t, store.Options{})},
		Operations: []maintain.Operation{{Name: "a", Run: d.watched(func(context.Context, *maintain.Progress) error { return <-results })}}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.runMaintenance(t.Context()) }()
	if err := d.maintain.Await(t.Context(), "a"); err == nil || errors.Is(err, store.ErrCorrupt) {
		t.Errorf("the first run: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("ended with %v", err)
	default:
	}
	if err := d.maintain.Schedule("a"); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("ended with %v", err)
	}
}
