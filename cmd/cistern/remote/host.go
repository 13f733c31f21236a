package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"

	"cistern/backfill/pace"
	"cistern/cmd/cistern/command"
	"cistern/console"

	"github.com/urfave/cli/v3"
)

const hostAbout = `Show the hosts that a running daemon fetches from, and limit or ban requests to
them, through its private listener, at --admin. What slows a backfill is mostly
one host: 'cistern host ls' has the longest queue first. Limits and bans hold at
once, and across restarts.`

const hostExamples = `  cistern host ls
  cistern host limit pds.example.com 2:4
`

const hostLimitAbout = `Limit the requests to a host: at most CONCURRENCY at a time, PER_SECOND a
second, PER_HOUR an hour and PER_DAY a day, such as 2:4. A number that is left
out or 0 stays as the daemon chooses it. 'cistern host ls' shows the limits that
were set under OVERRIDE. Until 'cistern host unlimit' they take the place of
those of 'cistern run --host-limit', which has the same form, and is for hosts
that are not known yet.`

// hostSession is one run of a host command.
type hostSession struct {
	session
	state string
	limit uint64
}

func (o *Options) hostCommand() *cli.Command {
	return &cli.Command{
		Name:               "host",
		Usage:              "list, limit and ban the hosts of repositories",
		UsageText:          "cistern host COMMAND [options]",
		Description:        hostAbout,
		CustomHelpTemplate: command.HelpTemplate + hostExamples,
		Commands: []*cli.Command{
			o.hostSubcommand("ls", "", "list hosts, the longest queue first", "", (*hostSession).ls,
				"  cistern host ls --state failing\n"),
			o.hostSubcommand("show", "HOST", "show all that is known of a host", "", (*hostSession).show,
				"  cistern host show pds.example.com\n"),
			o.hostSubcommand("limit", "HOST "+pace.OverrideForm, "limit the requests to a host",
				hostLimitAbout, (*hostSession).restrict, "  cistern host limit pds.example.com 2:4\n"),
			o.hostSubcommand("unlimit", "HOST", "take the limits of a host back", "",
				askHost("DELETE", "limits"), "  cistern host unlimit pds.example.com\n"),
			o.hostSubcommand("ban", "HOST", "send no more requests to a host; its repositories stay queued",
				"", askHost("PUT", "ban"), "  cistern host ban pds.example.com\n"),
			o.hostSubcommand("unban", "HOST", "take the ban of a host back", "",
				askHost("DELETE", "ban"), "  cistern host unban pds.example.com\n"),
		},
	}
}

// hostSubcommand returns the command 'host NAME'.
func (o *Options) hostSubcommand(name, arguments, usage, about string,
	act func(*hostSession, context.Context) error, examples string) *cli.Command {
	s := &hostSession{session: session{Options: o}}
	c := subcommand{name: name, arguments: arguments, usage: usage, about: about, examples: examples}
	if name == "ls" {
		c.options = []command.Option{
			{Name: "state", Value: "STATE", Set: command.Set(&s.state, command.Text),
				Help: "Only hosts in this state: ok, parked (asked for a pause), failing or banned."},
			{Name: "limit", Value: "N", Default: "20",
				Set:  command.Set(&s.limit, command.Number(0, math.MaxInt32)),
				Help: "Most hosts to list. 0 lists all."},
		}
	}
	return s.command("host", c, func(ctx context.Context) error { return act(s, ctx) })
}

// ls reads all hosts, which the daemon lists in the order of their discovery, and sorts them.
func (s *hostSession) ls(ctx context.Context) error {
	if err := command.NoArguments(s.cmd); err != nil {
		return err
	}
	rows, err := s.all(ctx)
	if err != nil {
		return err
	}
	slices.SortStableFunc(rows, func(a, b hostRow) int {
		return cmp.Or(cmp.Compare(b.Queued, a.Queued), cmp.Compare(b.Accounts, a.Accounts))
	})
	total := len(rows)
	if s.limit > 0 {
		rows = rows[:min(len(rows), int(s.limit))]
	}
	err = s.list(hostTitles(), "no hosts", func(row func(...string)) error {
		for _, r := range rows {
			if s.json {
				if err := s.printJSON(r.line); err != nil {
					return err
				}
				continue
			}
			row(r.cells()...)
		}
		return nil
	})
	if err == nil && len(rows) < total {
		fmt.Fprintf(s.Stderr, "%d of %d hosts: --limit 0 lists all\n", len(rows), total)
	}
	return err
}

// all returns all hosts, or those in the state that was asked for.
func (s *hostSession) all(ctx context.Context) (rows []hostRow, err error) {
	query := url.Values{"limit": {strconv.Itoa(pageMax)}}
	if s.state != "" {
		query.Set("state", s.state)
	}
	for {
		next, err := s.client.Do(ctx, "GET", "/hosts", query, nil, func(line json.RawMessage) error {
			r := hostRow{line: slices.Clone(line)}
			err := unmarshalRow(line, &r)
			rows = append(rows, r)
			return err
		})
		if err != nil || next == "" {
			return rows, err
		}
		query.Set("cursor", next)
	}
}

func (s *hostSession) show(ctx context.Context) error { return s.ask(ctx, "GET", "", nil) }

// askHost returns the action of a command that sends a request without a body.
func askHost(method, part string) func(*hostSession, context.Context) error {
	return func(s *hostSession, ctx context.Context) error { return s.ask(ctx, method, "/"+part, nil) }
}

// restrict sets the limits of a host, which have the form that --host-limit has.
func (s *hostSession) restrict(ctx context.Context) error {
	err := command.WantArguments(s.cmd, 2, "HOST "+pace.OverrideForm+" (such as pds.example.com 2:4)")
	if err != nil {
		return err
	}
	limits, err := pace.ParseOverride(s.cmd.Args().Get(1))
	if err != nil {
		return command.UsageError(fmt.Errorf("limits %q: %w", s.cmd.Args().Get(1), err))
	}
	return s.ask(ctx, "PUT", "/limits", limits)
}

// ask sends a request about the host that is the first argument, and prints the host as it is then.
func (s *hostSession) ask(ctx context.Context, method, part string, body any) error {
	var rows []any
	if body != nil {
		rows = append(rows, body)
	} else if s.cmd.NArg() != 1 {
		return command.UsageError(fmt.Errorf("%s needs one HOST, such as pds.example.com",
			command.Subject(s.cmd)))
	}
	path := "/hosts/" + url.PathEscape(s.cmd.Args().First()) + part
	_, err := s.do(ctx, method, path, nil, rows, func(line json.RawMessage) error {
		var r hostRow
		if err := unmarshalRow(line, &r); err != nil {
			return err
		}
		return s.print(&r)
	})
	return err
}

// print prints all that is known of a host.
func (s *hostSession) print(r *hostRow) error {
	for _, fact := range r.facts() {
		_, err := fmt.Fprintf(s.Stdout, "%-13s %s\n", fact[0], cmp.Or(console.Printable(fact[1]), "-"))
		if err != nil {
			return err
		}
	}
	return nil
}
