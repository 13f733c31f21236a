package remote

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"

	"cistern/client"
	"cistern/cmd/cistern/command"
	"cistern/console"

	"github.com/urfave/cli/v3"
)

// session is one run of a command that sends requests to the private listener of a daemon.
type session struct {
	*Options
	cmd    *cli.Command
	client *client.Client

	json         bool
	admin, token string
}

func (s *session) options() []command.Option {
	return []command.Option{
		{Name: "json", Set: command.Set(&s.json, command.ParseSwitch),
			Help: "Print the daemon's rows as JSON lines."},
		{Name: "admin", Value: "ADDR", Default: AdminDefault,
			Set:  command.Set(&s.admin, command.ParseServer),
			Help: "The daemon's private listener, host:port or URL; also CISTERN_ADMIN."},
		{Name: "admin-token", Value: "TOKEN", Secret: true,
			Set:  command.Set(&s.token, command.Text),
			Help: "Secret of the private listener, if it has one. Better in CISTERN_ADMIN_TOKEN."},
	}
}

// subcommand is a command of a family, such as repo.
type subcommand struct {
	name, arguments, usage string
	about                  string // "": the usage, as a sentence
	examples               string
	options                []command.Option // besides the options of session
}

// command returns the command of a family that runs act. Only the options of session are read from
// variables: others of the same names configure the daemon.
func (s *session) command(
	family string, c subcommand, act func(context.Context) error,
) *cli.Command {
	return &cli.Command{
		Name:  c.name,
		Usage: c.usage,
		UsageText: strings.TrimSpace("cistern " + family + " " + c.name + " [options] " +
			c.arguments),
		Description:        cmp.Or(c.about, strings.ToUpper(c.usage[:1])+c.usage[1:]+"."),
		Flags:              command.Flags(append(c.options, s.options()...)),
		CustomHelpTemplate: command.HelpTemplate + c.examples,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			env, errs := command.ReadEnviron(s.Environ, s.Known)
			_, _, own := command.Load(c.options, cmd, nil)
			_, _, common := command.Load(s.options(), cmd, env)
			if err := command.Mistakes(append(append(errs, own...), common...)); err != nil {
				return err
			}
			s.cmd = cmd
			s.client = client.New(s.admin, s.token, "its private listener with --admin")
			return s.UntilSignal(ctx, act)
		},
	}
}

// do sends a request with rows. With --json it prints the rows of the answer; otherwise it calls fn
// for each. next is the cursor of the next page.
func (s *session) do(ctx context.Context, method, path string, query url.Values, rows []any,
	fn func(json.RawMessage) error) (next string, err error) {
	return s.client.Do(ctx, method, path, query, rows, func(line json.RawMessage) error {
		if s.json {
			return s.printJSON(line)
		}
		return fn(line)
	})
}

// printJSON prints a row of an answer with --json.
func (s *session) printJSON(line json.RawMessage) error {
	if !s.json {
		return nil
	}
	_, err := fmt.Fprintf(s.Stdout, "%s\n", line)
	return err
}

// list prints a table of the rows that fill adds, or a sentence if there are none. With --json fill
// prints rows itself.
func (s *session) list(titles []string, none string,
	fill func(row func(cells ...string)) error) error {
	n, table := 0, s.NewTable()
	table.Add(titles...)
	err := fill(func(cells ...string) {
		n++
		table.Add(cells...)
	})
	switch {
	case err != nil || s.json:
		return err
	case n == 0:
		_, err = fmt.Fprintln(s.Stdout, none)
		return err
	}
	return table.Flush()
}

// unmarshalRow reads a row of an answer. Its error shows the beginning of the row.
func unmarshalRow(line json.RawMessage, row any) error {
	if err := json.Unmarshal(line, row); err != nil {
		return fmt.Errorf("row %s: %w", console.Clip(console.Printable(string(line)), 80), err)
	}
	return nil
}

// writeFields prints the fields of a JSON object in order, one a line. The fields of a nested
// object are prefixed with its name.
func writeFields(w io.Writer, prefix string, object json.RawMessage, without ...string) error {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil {
		return err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return err
		}
		name := fmt.Sprint(prefix, key)
		if slices.Contains(without, name) {
			continue
		}
		if value[0] == '{' {
			if err := writeFields(w, name+" ", value, without...); err != nil {
				return err
			}
			continue
		}
		text := string(value)
		if s := ""; json.Unmarshal(value, &s) == nil {
			text = s
		}
		_, err = fmt.Fprintf(w, "%-18s %s\n", console.Printable(name), console.Printable(text))
		if err != nil {
			return err
		}
	}
	return nil
}

// lines returns the lines of a file, - being standard input, without blank lines and # comments.
// what names them in errors.
func (o *Options) lines(file, what string) (all []string, err error) {
	in := o.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text != "" {
			all = append(all, text)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s from %s: %w", what, file, err)
	}
	return all, nil
}
