package main

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/ingest/simnet"
	"cistern/maintain"
)

// TestScheduled: an operator's periods and hours are those of the operations, and every operation
// that can be named exists.
func TestScheduled(t *testing.T) {
	t.Parallel()
	quiet := maintain.Hours{From: 22 * time.Hour, To: 6 * time.Hour}
	got := scheduled([]maintain.Operation{{Name: "prune", Every: time.Minute}, {Name: "compact"}, {Name: "verify", Every: time.Hour},
		{Name: "backup", Every: time.Hour}}, []schedule{{"compact", 720 * time.Hour}, {"verify", 0}}, quiet)
	want := []maintain.Operation{{Name: "prune", Every: time.Minute}, {Name: "compact", Every: 720 * time.Hour, Hours: quiet},
		{Name: "verify", Hours: quiet}, {Name: "backup", Every: time.Hour}}
	for i := range want {
		if got[i].Name != want[i].Name || got[i].Every != want[i].Every || got[i].Hours != want[i].Hours {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

// TestScheduleOfADaemon: a daemon runs by itself what it is told to, and shows periods and when each
// operation is due.
func TestScheduleOfADaemon(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 2})
	x := newTestIndex(t)
	x.start(t, x.args(n, "--schedule", "compact=30d", "--schedule", "verify=7d", "--schedule", "prune=2m", "--offload", t.TempDir(), "--export", t.TempDir(),
		"--schedule", "offload=5h"))
	wants := []string{`\nprune +idle .* 2m +\d+ \w+ from now`, `\ncompact +idle .*(now|ago) +30d +\d+ weeks? from now`,
		`\nverify +idle .*(now|ago) +7d +\d+ days from now`, `\nreconcile +idle +- +- +- +- +-`,
		`\noffload +idle .*(now|ago) +5h +\d+ hours from now`}
	x.await(t, "the operations to have run", func() error {
		out, err := x.command(t.Context(), nil, "maintain", "ls")
		return errorUnless(err, out, wants...)
	})
	out, err := x.command(t.Context(), nil, "maintain", "ls", "--json")
	if err := errorUnless(err, out, `"name":"compact".*"every_seconds":2592000`); err != nil {
		t.Error(err)
	}
	for _, name := range slices.Concat(schedulable, expensive, lasting) {
		if err := errorUnless(nil, out, `"name":"`+name+`"`); err != nil {
			t.Error(err)
		}
	}
}

// errorUnless returns an error unless a text matches all patterns.
func errorUnless(err error, text string, patterns ...string) error {
	for _, p := range patterns {
		if err == nil && !regexp.MustCompile(p).MatchString(text) {
			err = command.Mistakes([]error{errorOf(p), errorOf(text)})
		}
	}
	return err
}

type errorOf string

func (e errorOf) Error() string { return string(e) }
