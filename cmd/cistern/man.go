package main

import (
	"context"
	"strconv"

	"cistern/cmd/cistern/command"
	"cistern/cmd/cistern/remote"

	"github.com/urfave/cli/v3"
)

const manAbout = `Print the manual page of cistern, made of the same tables as the help of each
command.`

func (a *app) manCommand() *cli.Command {
	return &cli.Command{
		Name:        "man",
		Usage:       "print the manual page",
		UsageText:   "cistern man",
		Description: manAbout,
		CustomHelpTemplate: command.HelpTemplate +
			"  cistern man | man -l -\n  cistern man | gzip -9n > /usr/share/man/man1/cistern.1.gz\n",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := command.NoArguments(cmd); err != nil {
				return err
			}
			// The tree of this run has parts that the library added.
			m := command.Manual{Root: a.commands(), Committed: buildSetting("vcs.time"),
				Purpose:   "verified, queryable copy of AT Protocol repositories",
				Variables: manVariables(), ExitCodes: manExitCodes(), Examples: rootExamples}
			return m.Write(a.Stdout)
		},
	}
}

// manVariables returns the variables that commands read, and what each does.
func manVariables() [][2]string {
	const prefix = command.EnvPrefix
	return [][2]string{
		{prefix + "*", "The options of cistern run: --disk-reserve is " + prefix + "DISK_RESERVE. An " +
			"option on the command line comes first."},
		{prefix + "ADMIN, " + prefix + "ADMIN_TOKEN", "The private listener of the daemon, for every " +
			"command that talks to one, and its secret."},
		{prefix + "DATA", "The directory of the store, for cistern check, restore and import too."},
		{"AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL",
			"The access to buckets, " +
				"as the tools of AWS read it."},
		{"NO_COLOR", "Any value but an empty one: no colours."},
		{"TERM",
			"dumb: no line is redrawn, and there are no colours. linux: bars are of plain characters."},
		{"GOMEMLIMIT", "From how much memory on the Go runtime collects earlier, such as 1500MiB."},
	}
}

// manExitCodes returns the exit codes of the commands, and what each means.
func manExitCodes() [][2]string {
	return [][2]string{
		{"0", "The command succeeded. cistern top also exits with 0 when q, Ctrl-C, SIGINT or SIGTERM " +
			"ends it."},
		{"1",
			"The command failed. cistern status: something needs an operator. cistern status --probe: " +
				"the daemon is not ready. cistern check and backup verify: something differs."},
		{strconv.Itoa(remote.ExitUnknown),
			"cistern status, and cistern top where there is no terminal: " +
				"no daemon answers the first request, or it refuses it."},
		{strconv.Itoa(command.ExitUsage), "The command line, or a variable of an option, is wrong, and " +
			"nothing was done: an unknown command or option, a value that is refused, options that " +
			"exclude each other, or options " +
			"that do not fit the store."},
		{strconv.Itoa(command.ExitInterrupted), "A second SIGINT or SIGTERM ended the command at once."},
	}
}
