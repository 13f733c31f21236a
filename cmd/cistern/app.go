package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"

	"cistern/cmd/cistern/command"
	"cistern/cmd/cistern/remote"

	"github.com/urfave/cli/v3"
)

// app is the program: its process, and what tests change of the daemon.
type app struct {
	command.Process
	tune tuning
}

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
	return a.Run(ctx, a.commands(), args)
}

// commands returns the tree of all commands.
func (a *app) commands() *cli.Command {
	return &cli.Command{
		Name:        "cistern",
		UsageText:   "cistern COMMAND [options]",
		Description: rootAbout,
		Commands: slices.Concat([]*cli.Command{a.demoCommand(), a.runCommand()}, a.remoteCommands(),
			[]*cli.Command{a.backupCommand(), a.restoreCommand(), a.exportCommand(),
				a.importCommand(), a.checkCommand(), a.Completion(), a.manCommand(),
				a.versionCommand()}),
		CustomHelpTemplate: command.HelpTemplate + rootExamples,
		Version:            version(),
		Writer:             a.Stdout,
		ErrWriter:          a.Stderr,
		ExitErrHandler:     func(context.Context, *cli.Command, error) {},
	}
}

// remoteCommands returns the commands that ask a daemon.
func (a *app) remoteCommands() []*cli.Command {
	return remote.Commands(&remote.Options{Process: &a.Process, Known: variables(), Step: a.tune.top})
}

// variables returns the options of the daemon, which variables of the environment may set.
func variables() []command.Option { return (&Config{}).options() }

func (a *app) versionCommand() *cli.Command {
	return &cli.Command{
		Name:               "version",
		Usage:              "print the version of this binary",
		UsageText:          "cistern version",
		Description:        "Print the version of this binary, its Go release and its platform.",
		CustomHelpTemplate: command.HelpTemplate + "  cistern version\n",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := command.NoArguments(cmd); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.Stdout, "cistern %s %s %s/%s\n", version(), runtime.Version(),
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
