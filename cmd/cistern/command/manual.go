package command

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v3"
)

// Manual is the manual page of a program.
type Manual struct {
	Root      *cli.Command // the program, with its commands and their options
	Purpose   string       // what the program is, for lists of pages
	Committed string       // the time of its newest commit, in RFC 3339; "" if that is unknown
	// Variables are the variables of the environment, and ExitCodes the exit codes, each with what it
	// means.
	Variables, ExitCodes [][2]string
	Examples             string // command lines, one a line
}

// Write writes the page in the macros man.
func (m *Manual) Write(w io.Writer) error {
	var b bytes.Buffer
	date, _, _ := strings.Cut(m.Committed, "T")
	fmt.Fprintf(&b, ".TH CISTERN 1 \"%s\" \"cistern %s\" \"Cistern\"\n",
		roff(date), roff(m.Root.Version))
	b.WriteString(".SH NAME\ncistern \\- " + roff(m.Purpose) + "\n.SH SYNOPSIS\n.B " +
		roff(m.Root.UsageText) + "\n.SH DESCRIPTION\n")
	paragraph(&b, m.Root.Description)
	b.WriteString(".SH COMMANDS\n")
	for _, cmd := range m.Root.Commands {
		manCommand(&b, "cistern", cmd)
	}
	entries(&b, "ENVIRONMENT", m.Variables)
	entries(&b, "EXIT STATUS", m.ExitCodes)
	b.WriteString(".SH EXAMPLES\n")
	verbatim(&b, m.Examples)
	_, err := w.Write(b.Bytes())
	return err
}

// entries writes a section of names and what each means.
func entries(b *bytes.Buffer, heading string, all [][2]string) {
	b.WriteString(".SH " + heading + "\n")
	for _, e := range all {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(e[0]), roff(e[1]))
	}
}

// manCommand writes the section of a command, and the sections of the commands below it.
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
	if _, examples, ok := strings.Cut(cmd.CustomHelpTemplate, HelpTemplate); ok && examples != "" {
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
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "^", `\(ha`,
		"~", `\(ti`, "`", `\(ga`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
