package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"cistern/client"
	"cistern/cmd/cistern/command"
	"cistern/console"
	"cistern/loop"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"
)

const maintainAbout = `List, run and cancel the maintenance of a running daemon
through its private listener, at --admin. Operations that must not overlap wait
for each other. The daemon runs them by itself where a schedule says so, see
'cistern run --schedule':

  prune       removes from the log what is beyond its retention
  gc          frees the space of replaced, deleted and wiped records
  compact     rewrites all tables, so that deleted rows take no space; on
              request
  verify      compares the store with itself, and repairs it; on request
  reconcile   compares the listings of all hosts and sources with what is held;
              on request
  checkpoint  makes what 'cistern backup DEST' copies, on its request
  backup      backs up to --backup, every --backup-every
  export      writes all records as files to --export; on request
  offload     moves old events of the log to --offload, every hour by default

While the disk is short of space, prune, gc and offload go first, and compact,
checkpoint and backup wait.`

const maintainExamples = `  cistern maintain ls
  cistern maintain run compact
`

const maintainRunAbout = `Run an operation and wait until it has ended. The run begins after the request:
if the operation is running already, another run follows. Ctrl-C takes the
request back; the run then stops unless something else waits for it, and keeps
what it has done.`

// operationRow has the fields of an operation that the commands show.
type operationRow struct {
	Name, State, Waits, Succeeded, Ended, Error, Due string
	Every                                            float64 `json:"every_seconds"`
	Progress                                         *struct {
		Done, Total int64
		Item        string
	}
}

// maintenanceRow is the answer of GET /maintenance.
type maintenanceRow struct {
	Paused     string         `json:"paused"`
	Short      string         `json:"disk_short"`
	Exhausted  bool           `json:"disk_exhausted"`
	Operations []operationRow `json:"operations"`
}

func (o *Options) maintainCommand() *cli.Command {
	sub := o.maintainSubcommand
	return &cli.Command{
		Name:               "maintain",
		Usage:              "list, run and cancel the maintenance of a daemon",
		UsageText:          "cistern maintain COMMAND [options]",
		Description:        maintainAbout,
		CustomHelpTemplate: command.HelpTemplate + maintainExamples,
		Commands: []*cli.Command{
			sub("ls", "", "list operations and what they do", "", (*maintainSession).ls,
				"  cistern maintain ls\n"),
			sub("run", "OPERATION", "run an operation and wait for its end", maintainRunAbout,
				(*maintainSession).run, `  cistern maintain run compact
  cistern maintain run compact --no-wait
`),
			sub("cancel", "OPERATION...", "cancel the requests of operations, and stop them", "",
				(*maintainSession).cancel, "  cistern maintain cancel compact\n"),
		},
	}
}

// maintainSession is one run of a maintain command.
type maintainSession struct {
	session
	noWait bool
}

// maintainSubcommand returns the command 'maintain NAME'.
func (o *Options) maintainSubcommand(name, arguments, usage, about string,
	act func(*maintainSession, context.Context) error, examples string) *cli.Command {
	s := &maintainSession{session: session{Options: o}}
	var options []command.Option
	if name == "run" {
		options = []command.Option{{Name: "no-wait", Set: command.Set(&s.noWait, command.ParseSwitch),
			Help: "Only request the run. It survives a restart of the daemon."}}
	}
	return s.command("maintain", subcommand{name, arguments, usage, about, examples, options},
		func(ctx context.Context) error { return act(s, ctx) })
}

// view reads the state of all operations.
func (s *maintainSession) view(ctx context.Context,
	fn func(json.RawMessage, maintenanceRow) error) error {
	_, err := s.client.Do(ctx, "GET", "/maintenance", nil, nil, func(line json.RawMessage) error {
		var v maintenanceRow
		if err := unmarshalRow(line, &v); err != nil {
			return err
		}
		return fn(line, v)
	})
	return err
}

func (s *maintainSession) ls(ctx context.Context) error {
	if err := command.NoArguments(s.cmd); err != nil {
		return err
	}
	return s.view(ctx, func(line json.RawMessage, v maintenanceRow) error {
		if s.json {
			return s.printJSON(line)
		}
		table := s.NewTable()
		table.Add("OPERATION", "STATE", "PROGRESS", "SUCCEEDED", "EVERY", "NEXT", "NOTE")
		for _, o := range v.Operations {
			table.Add(o.Name, o.State, o.progress(), ago(o.Succeeded), period(o.Every), ago(o.Due),
				cmp.Or(o.Waits, o.Error))
		}
		if err := table.Flush(); err != nil {
			return err
		}
		if v.Exhausted {
			fmt.Fprintln(s.Stdout, "operations that free space have ended, and did not free enough:",
				console.Printable(v.Short))
		}
		return nil
	})
}

// period writes a period as an operator would: 7d, 12h or 1m30s. It returns "" for 0.
func period(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	const day = 24 * time.Hour
	switch {
	case d == 0:
		return ""
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return d.String()
}

// ago says how far a time of an answer is from now, "" without a time.
func ago(moment string) string {
	t, err := time.Parse(time.RFC3339Nano, moment)
	if err != nil {
		return ""
	}
	return humanize.Time(t)
}

// progress returns how far a run is, "" if that is unknown.
func (o *operationRow) progress() string {
	p := o.Progress
	switch {
	case p == nil:
		return ""
	case p.Total == 0:
		return strings.TrimSpace(humanize.Comma(p.Done) + " " + p.Item)
	}
	return strings.TrimSpace(fmt.Sprintf("%d%% %s", 100*p.Done/p.Total, p.Item))
}

func (s *maintainSession) run(ctx context.Context) error {
	if err := command.WantArguments(s.cmd, 1, "OPERATION"); err != nil {
		return err
	}
	name := s.cmd.Args().First()
	if s.noWait {
		return s.request(ctx, s.client, "POST", name, nil)
	}
	g, ctx := errgroup.WithContext(ctx)
	watch, stop := context.WithCancel(ctx)
	g.Go(func() error {
		defer stop()
		return s.request(ctx, s.client.Patient(), "POST", name, url.Values{"wait": {"true"}})
	})
	g.Go(func() error { return s.watch(watch, name) })
	return g.Wait()
}

// watchEvery is how often the progress of a run is shown.
const watchEvery = time.Second

// watch shows the progress of an operation until ctx ends. The error of a request that fails is
// that of the run too.
func (s *maintainSession) watch(ctx context.Context, name string) error {
	shown := s.Progress(name, console.Unit{})
	return shown.During(ctx, func(ctx context.Context) error {
		for ctx.Err() == nil {
			err := s.view(ctx, func(_ json.RawMessage, v maintenanceRow) error {
				for _, o := range v.Operations {
					if o.Name == name {
						shown.Set(o.work())
					}
				}
				return nil
			})
			if err != nil {
				return nil
			}
			loop.Sleep(ctx, watchEvery, nil)
		}
		return nil
	})
}

// work returns how far a run is, and what it waits for.
func (o *operationRow) work() console.Work {
	w := console.Work{More: strings.TrimSuffix(o.State+": "+o.Waits, ": ")}
	if p := o.Progress; p != nil {
		w.Done, w.Total, w.Item = p.Done, p.Total, p.Item
	}
	return w
}

func (s *maintainSession) cancel(ctx context.Context) error {
	names := s.cmd.Args().Slice()
	if len(names) == 0 {
		return command.UsageError(errors.New(command.Subject(s.cmd) + " needs the name of an OPERATION"))
	}
	for _, name := range names {
		if err := s.request(ctx, s.client, "DELETE", name, nil); err != nil {
			return err
		}
	}
	return nil
}

// request sends a request about an operation and prints the result.
func (s *maintainSession) request(ctx context.Context, c *client.Client, method, name string,
	query url.Values) error {
	path := "/maintenance/" + url.PathEscape(name)
	_, err := c.Do(ctx, method, path, query, nil, func(line json.RawMessage) error {
		if s.json {
			return s.printJSON(line)
		}
		var row struct{ Name, Result string }
		if err := unmarshalRow(line, &row); err != nil {
			return err
		}
		_, err := fmt.Fprintln(s.Stdout, console.Printable(row.Name), console.Printable(row.Result))
		return err
	})
	return err
}
