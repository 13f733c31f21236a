package command_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"cistern/cmd/cistern/command"

	"github.com/urfave/cli/v3"
)

// TestLoad: a flag has precedence over a variable, and that over the default; mistakes name where a
// value came from, and no secret.
func TestLoad(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name          string
		args, environ []string
		size          uint64
		names         []string
		given         []string
		mistakes      []string // parts of the error; none: no mistake
	}{
		{name: "defaults", size: 7},
		{name: "variables", environ: []string{"PATH=/bin", "CISTERN_SIZE=2", "CISTERN_NAME=a, b"}, size: 2,
			names: []string{"a", "b"}, given: []string{"size", "name"}},
		{name: "flags first", args: []string{"--size", "3", "--name", "a,b"}, environ: []string{"CISTERN_SIZE=2", "CISTERN_NAME=c"},
			size: 3, names: []string{"a,b"}, given: []string{"size", "name"}},
		{name: "mistakes", args: []string{"--size", "11", "--size-limit", "s3cret"}, environ: []string{"CISTERN_NAMES=c"},
			mistakes: []string{"3 mistakes:\n", `--size "11": want a number from 0 to 10`, "--size-limit: want more", "CISTERN_NAMES; the nearest known is CISTERN_NAME"}},
		{name: "twice", args: []string{"--size", "1", "--size", "2"}, mistakes: []string{"--size: given 2 times, want one value"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var size uint64
			var names, given []string
			var failed error
			options := []command.Option{
				{Name: "size", Value: "N", Default: "7", Set: command.Set(&size, command.Number(0, 10))},
				{Name: "name", Value: "NAME", Repeat: true, Set: command.Add(&names, command.Text)},
				{Name: "size-limit", Value: "N", Secret: true, Set: func(string) error { return errors.New("want more") }},
			}
			var out bytes.Buffer
			cmd := &cli.Command{Name: "x", Flags: command.Flags(options), DisableSliceFlagSeparator: true, Writer: &out, ErrWriter: &out,
				Action: func(_ context.Context, cmd *cli.Command) error {
					env, errs := command.ReadEnviron(row.environ, options)
					all, _, more := command.Load(options, cmd, env)
					given, failed = all, command.Mistakes(append(errs, more...))
					return nil
				}}
			if err := cmd.Run(t.Context(), append([]string{"x"}, row.args...)); err != nil {
				t.Fatal(err)
			}
			if len(row.mistakes) > 0 {
				if failed == nil || strings.Contains(failed.Error(), "s3cret") {
					t.Fatalf("the mistakes are %v", failed)
				}
				for _, want := range row.mistakes {
					if !strings.Contains(failed.Error(), want) {
						t.Errorf("%q does not say %q", failed, want)
					}
				}
				if code := command.ExitCode(failed, &out); code != command.ExitUsage {
					t.Errorf("the exit code is %d", code)
				}
				return
			}
			if failed != nil || size != row.size || !slices.Equal(names, row.names) || !slices.Equal(given, row.given) {
				t.Errorf("size %d, names %q, given %q: %v", size, names, given, failed)
			}
		})
	}
}
