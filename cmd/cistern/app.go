package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"cistern/console"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"
)

// app is the process as the commands see it.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	program        string // as it was called
	exit           func(code int)
	tune           tuning
}

// exitInterrupted is the exit code that shells expect of an interrupted process.
const exitInterrupted = 130

const rootAbout = `Cistern keeps a complete, verified, queryable copy of AT Protocol repositories.
'cistern COMMAND --help' describes a command and its options.`

const rootExamples = `  cistern demo                                    needs no network, ends with Ctrl-C
  cistern run                                     an empty index, and then:
  cistern repo add did:plc:ewvi7nxzyoun6zhxrhs64oiz
  cistern status                                  shows whether all is well
  cistern tail                                    prints its events as they happen
  curl 'localhost:2481/xrpc/com.atproto.repo.describeRepo?repo=did:plc:ewvi7nxzyoun6zhxrhs64oiz'
`

func (a *app) run(ctx context.Context, args []string) error {
	root := a.commands()
	if n := len(args); n > 0 && args[n-1] == completionFlag {
		return a.complete(root, args[:n-1])
	}
	if err := checkCommands(root, args); err != nil {
		return usageError(err)
	}
	prepare(root, args)
	return root.Run(ctx, append([]string{"cistern"}, args...))
}

// commands returns the tree of all commands.
func (a *app) commands() *cli.Command {
	return &cli.Command{
		Name:        "cistern",
		UsageText:   "cistern COMMAND [options]",
		Description: rootAbout,
		Commands: []*cli.Command{a.demoCommand(), a.runCommand(), a.statusCommand(), a.topCommand(),
			a.tailCommand(), a.repoCommand(), a.hostCommand(), a.subscriptionCommand(),
			a.maintainCommand(), a.phaseCommand(), a.alertsCommand(), a.backupCommand(),
			a.restoreCommand(), a.exportCommand(), a.importCommand(), a.checkCommand(),
			a.completionCommand(), a.manCommand(), a.versionCommand()},
		CustomHelpTemplate: helpTemplate + rootExamples,
		Version:            version(),
		Writer:             a.stdout,
		ErrWriter:          a.stderr,
		ExitErrHandler:     func(context.Context, *cli.Command, error) {},
	}
}

// prepare renders the help pages of cmd and of the commands below it. Each command then answers a
// bad flag in one line and takes the value of a flag whole, commas included.
func prepare(cmd *cli.Command, args []string) {
	cmd.CustomHelpTemplate = page(cmd.CustomHelpTemplate, cmd, helpColumns)
	cmd.CustomRootCommandHelpTemplate = cmd.CustomHelpTemplate
	cmd.DisableSliceFlagSeparator = true
	cmd.OnUsageError = func(_ context.Context, cmd *cli.Command, err error, _ bool) error {
		return usageError(fmt.Errorf("%w%s (see: %s --help)", err, suggestFlag(cmd, args),
			cmd.FullName()))
	}
	for _, sub := range cmd.Commands {
		prepare(sub, args)
		sub.Hidden = true // the library ignores the page of a command with visible ones below it
	}
}

// checkCommands rejects args that name no command, whether or not they ask for its help.
func checkCommands(cmd *cli.Command, args []string) error {
	path := cmd.Name
	for _, name := range args {
		if name == "help" || name == "h" {
			continue
		}
		if strings.HasPrefix(name, "-") || len(cmd.Commands) == 0 {
			return nil
		}
		next := cmd.Command(name)
		switch {
		case next == nil && cmd.Action != nil && strings.Contains(name, "/"):
			return nil // an argument: no command has a slash in its name
		case next == nil && cmd.Action != nil:
			return fmt.Errorf("%s has no command %q; a directory needs a slash in its name, such as "+
				"./%[2]s (see: %s --help)", strings.TrimPrefix(path, "cistern "), name, path)
		case next == nil:
			return fmt.Errorf("unknown command %q; did you mean %s? (see: %s --help)", name,
				cli.SuggestCommand(cmd.Commands, name), path)
		}
		cmd, path = next, path+" "+name
	}
	return nil
}

// suggestFlag returns the flag of cmd that is nearest to the first unknown one of args, as words
// to append to an error.
func suggestFlag(cmd *cli.Command, args []string) string {
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || name == "" || slices.ContainsFunc(cmd.Flags,
			func(f cli.Flag) bool { return slices.Contains(f.Names(), name) }) {
			continue
		}
		if nearest := cli.SuggestFlag(cmd.Flags, name, false); nearest != "" {
			return fmt.Sprintf("; did you mean %s?", nearest)
		}
	}
	return ""
}

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name:               "version",
		Usage:              "print the version of this binary",
		UsageText:          "cistern version",
		Description:        "Print the version of this binary, its Go release and its platform.",
		CustomHelpTemplate: helpTemplate + "  cistern version\n",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.stdout, "cistern %s %s %s/%s\n", version(), runtime.Version(),
				runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// version returns the version of the source that this binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v == "(devel)" {
			v = s.Value[:min(12, len(s.Value))]
		}
	}
	return v
}

// buildSetting returns a setting of the build of this binary, "" if it is unknown.
func buildSetting(key string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func noArguments(cmd *cli.Command) error {
	if cmd.NArg() > 0 {
		return usageError(fmt.Errorf("%s takes no arguments, got %q", subject(cmd), cmd.Args().First()))
	}
	return nil
}

// wantArguments returns an error for a command that has not n arguments, or has an empty one. form
// names them.
func wantArguments(cmd *cli.Command, n int, form string) error {
	switch {
	case cmd.NArg() != n:
		return usageError(fmt.Errorf("%s takes %s, got %s", subject(cmd), form,
			console.Count(int64(cmd.NArg()), "argument")))
	case slices.Contains(cmd.Args().Slice(), ""):
		return usageError(fmt.Errorf("%s takes %s, got an empty argument", subject(cmd), form))
	}
	return nil
}

// subject returns the name of a command for an error, which starts with the program's name already.
func subject(cmd *cli.Command) string { return strings.TrimPrefix(cmd.FullName(), "cistern ") }

// echoMax is how long after the first signal another one counts as the same. A supervisor may
// signal a process and then its group, within milliseconds.
const echoMax = time.Second

// untilSignal runs fn with a context that ends at SIGINT or SIGTERM. A second signal ends the
// process at once, which loses nothing that was durable.
func (a *app) untilSignal(ctx context.Context, fn func(context.Context) error) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	return a.until(ctx, signals, fn)
}

func (a *app) until(ctx context.Context, signals <-chan os.Signal,
	fn func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		for first := (time.Time{}); ; {
			select {
			case <-done:
				return nil
			case <-signals:
			}
			switch {
			case first.IsZero():
				first = time.Now()
				cancel()
			case time.Since(first) >= echoMax:
				fmt.Fprintln(a.stderr, "cistern: interrupted twice, exiting at once")
				a.exit(exitInterrupted)
			}
		}
	})
	g.Go(func() error {
		defer close(done)
		return fn(ctx)
	})
	return g.Wait()
}
