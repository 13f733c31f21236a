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

// exitInterrupted is the shell's word for a process that was interrupted.
const exitInterrupted = 130

func (a *app) run(ctx context.Context, args []string) error {
	root := a.root(args)
	if err := checkCommands(root, args); err != nil {
		return err
	}
	return root.Run(ctx, append([]string{"cistern"}, args...))
}

func (a *app) root(args []string) *cli.Command {
	usageError := func(_ context.Context, cmd *cli.Command, err error, _ bool) error {
		return fmt.Errorf("%w%s (see: %s --help)", err, suggestFlag(cmd, args), cmd.FullName())
	}
	root := &cli.Command{
		Name:                          "cistern",
		Usage:                         "a verified, queryable copy of AT Protocol repositories",
		Commands:                      []*cli.Command{a.runCommand(), a.demoCommand(), a.checkCommand(), a.repoCommand(), a.versionCommand()},
		CustomRootCommandHelpTemplate: rootHelp,
		Action:                        a.unknownCommand,
		Version:                       version(),
		Suggest:                       true,
		Writer:                        a.stdout,
		ErrWriter:                     a.stderr,
		ExitErrHandler:                func(context.Context, *cli.Command, error) {},
	}
	setAll(root, usageError)
	return root
}

// setAll makes every command answer a bad flag in one line, without its help page, and take the value
// of a flag whole, commas and all.
func setAll(cmd *cli.Command, f cli.OnUsageErrorFunc) {
	cmd.OnUsageError, cmd.DisableSliceFlagSeparator = f, true
	for _, sub := range cmd.Commands {
		setAll(sub, f)
	}
}

// checkCommands refuses args that name no command, with or without help asked for it.
func checkCommands(cmd *cli.Command, args []string) error {
	path := cmd.Name
	for _, name := range args {
		if name == "help" || name == "h" {
			continue
		}
		if strings.HasPrefix(name, "-") || len(cmd.Commands) == 0 {
			return nil
		}
		i := slices.IndexFunc(cmd.Commands, func(c *cli.Command) bool { return c.Name == name })
		if i < 0 {
			var names []string
			for _, c := range cmd.Commands {
				names = append(names, c.Name)
			}
			return fmt.Errorf("unknown command %q%s (see: %s --help)", name, suggest(name, names), path)
		}
		cmd = cmd.Commands[i]
		path += " " + cmd.Name
	}
	return nil
}

// suggestFlag names the flag of cmd that is nearest to the first unknown one of args, as words to put behind an
// error; "" when none is near.
func suggestFlag(cmd *cli.Command, args []string) string {
	names := []string{"--help"}
	for _, f := range cmd.Flags {
		for _, name := range f.Names() {
			names = append(names, "--"+name)
		}
	}
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && name != "" && !slices.Contains(names, "--"+name) {
			return suggest("--"+name, names)
		}
	}
	return ""
}

// unknownCommand is reached when no command was named.
func (a *app) unknownCommand(_ context.Context, cmd *cli.Command) error {
	if cmd.Root() == cmd {
		return cli.ShowRootCommandHelp(cmd)
	}
	return cli.ShowSubcommandHelp(cmd)
}

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name:               "version",
		Usage:              "print the version of this binary",
		CustomHelpTemplate: helpText("cistern version", "Print the version of this binary, and what built it.", nil, false, "  cistern version"),
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.stdout, "cistern %s %s %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// version is what the toolchain knows of the source this binary was built from.
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

func noArguments(cmd *cli.Command) error {
	if cmd.NArg() > 0 {
		return fmt.Errorf("%s takes no arguments, got %q", subject(cmd), cmd.Args().First())
	}
	return nil
}

// subject is a command as an error names it, behind the program's name.
func subject(cmd *cli.Command) string { return strings.TrimPrefix(cmd.FullName(), "cistern ") }

// echoMax is how long after the first signal another one counts as the same: supervisors and
// wrappers that signal a process and then its group do so within milliseconds.
const echoMax = time.Second

// untilSignal runs fn with a context that ends at SIGINT or SIGTERM. A second signal ends the
// process at once: what was durable stays durable.
func (a *app) untilSignal(ctx context.Context, fn func(context.Context) error) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	return a.until(ctx, signals, fn)
}

func (a *app) until(ctx context.Context, signals <-chan os.Signal, fn func(context.Context) error) error {
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
				fmt.Fprintln(a.stderr, "cistern: interrupted twice, leaving at once")
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
