package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

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
		CustomHelpTemplate: helpTemplate +
			"  cistern man | man -l -\n  cistern man | gzip -9n > /usr/share/man/man1/cistern.1.gz\n",
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			// The tree of this run has parts that the library added.
			return writeManual(a.stdout, a.commands(), buildSetting("vcs.time"))
		},
	}
}

// writeManual writes the manual page of a tree of commands in the macros man. committed is when its
// source was committed, in RFC 3339, "" if that is unknown.
func writeManual(w io.Writer, root *cli.Command, committed string) error {
	var b bytes.Buffer
	date, _, _ := strings.Cut(committed, "T")
	fmt.Fprintf(&b, ".TH CISTERN 1 \"%s\" \"cistern %s\" \"Cistern\"\n", roff(date), roff(root.Version))
	b.WriteString(".SH NAME\ncistern \\- " +
		"verified, queryable copy of AT Protocol repositories\n.SH SYNOPSIS\n.B " +
		roff(root.UsageText) + "\n.SH DESCRIPTION\n")
	paragraph(&b, root.Description)
	b.WriteString(".SH COMMANDS\n")
	for _, cmd := range root.Commands {
		manCommand(&b, "cistern", cmd)
	}
	entries(&b, "ENVIRONMENT", manVariables())
	entries(&b, "EXIT STATUS", manExitCodes())
	b.WriteString(".SH EXAMPLES\n")
	verbatim(&b, rootExamples)
	_, err := w.Write(b.Bytes())
	return err
}

// manVariables returns the variables that commands read, and what each does.
func manVariables() [][2]string {
	return [][2]string{
		{envPrefix + "*", "The options of cistern run: --disk-reserve is " + envPrefix + "DISK_RESERVE. An " +
			"option on the command line comes first."},
		{envPrefix + "ADMIN, " + envPrefix + "ADMIN_TOKEN", "The private listener of the daemon, for every " +
			"command that talks to one, and its secret."},
		{envPrefix + "DATA", "The directory of the store, for cistern check, restore and import too."},
		{"AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL", "The access to buckets, " +
			"as the tools of AWS read it."},
		{"NO_COLOR", "Any value but an empty one: no colours."},
		{"TERM", "dumb: no line is redrawn, and there are no colours. linux: bars are of plain characters."},
		{"GOMEMLIMIT", "From how much memory on the Go runtime collects earlier, such as 1500MiB."},
	}
}

// manExitCodes returns the exit codes of the commands, and what each means.
func manExitCodes() [][2]string {
	return [][2]string{
		{"0", "The command succeeded. cistern top also exits with 0 when q, Ctrl-C, SIGINT or SIGTERM ends it."},
		{"1", "The command failed. cistern status: something needs an operator. cistern status --probe: " +
			"the daemon is not ready. cistern check and backup verify: something differs."},
		{strconv.Itoa(exitUnknown), "cistern status, and cistern top where there is no terminal: no daemon " +
			"answers the first request, or it refuses it."},
		{strconv.Itoa(exitUsage), "The command line, or a variable of an option, is wrong, and nothing was done: an " +
			"unknown command or option, a value that is refused, options that exclude each other, or options " +
			"that do not fit the store."},
		{strconv.Itoa(exitInterrupted), "A second SIGINT or SIGTERM ended the command at once."},
	}
}

// entries writes a section of names and what each means.
func entries(b *bytes.Buffer, heading string, all [][2]string) {
	b.WriteString(".SH " + heading + "\n")
	for _, e := range all {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(e[0]), roff(e[1]))
	}
}

// manCommand writes the section of a command, and those of the commands below it.
func manCommand(b *bytes.Buffer, path string, cmd *cli.Command) {
	path += " " + cmd.Name
	fmt.Fprintf(b, ".SS %s\n", roff(path))
	if len(cmd.Commands) == 0 || cmd.Action != nil {
		fmt.Fprintf(b, ".PP\n.B %s\n", roff(cmd.UsageText))
	}
	paragraph(b, cmd.Description)
	for _, f := range cmd.Flags {
		manFlag(b, f)
	}
	if _, examples, ok := strings.Cut(cmd.CustomHelpTemplate, helpTemplate); ok && examples != "" {
		b.WriteString(".PP\nExamples:\n")
		verbatim(b, examples)
	}
	for _, sub := range cmd.Commands {
		manCommand(b, path, sub)
	}
}

// manFlag writes an option. The first line of its usage is the placeholder of its value.
func manFlag(b *bytes.Buffer, f cli.Flag) {
	shown, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return
	}
	var names []string
	for _, name := range f.Names() {
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		names = append(names, dashes+name)
	}
	value, help, _ := strings.Cut(shown.GetUsage(), "\n")
	fmt.Fprintf(b, ".TP\n\\fB%s\\fR%s\n%s\n", roff(strings.Join(names, ", ")), roff(value), roff(help))
}

// paragraph writes text that is filled, with its blocks that are indented as they are.
func paragraph(b *bytes.Buffer, text string) {
	for block := range strings.SplitSeq(text, "\n\n") {
		if strings.HasPrefix(block, "  ") {
			verbatim(b, block+"\n")
			continue
		}
		b.WriteString(".PP\n" + roff(block) + "\n")
	}
}

// verbatim writes text whose lines stay as they are.
func verbatim(b *bytes.Buffer, text string) {
	b.WriteString(".PP\n.nf\n" + roff(strings.TrimRight(text, "\n")) + "\n.fi\n")
}

// roff escapes text: no character of it is a request to the formatter.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`, "`", `\(ga`).
		Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
