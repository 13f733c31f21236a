package remote

import (
	"context"
	"encoding/json"
	"net/url"

	"cistern/cmd/cistern/command"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"
)

const alertsAbout = `List what fails in a running daemon, through its private listener, at --admin.
What is in grace may recover by itself. What has failed for long enough and
often enough is an alert.`

// alertRow has the fields of a subject that the command shows.
type alertRow struct {
	Kind, Subject, State, Since, Error string
	Attempts                           int64
}

func (o *Options) alertsCommand() *cli.Command {
	r := &session{Options: o}
	cmd := r.command("", subcommand{name: "alerts", usage: "list what fails in a daemon",
		about: alertsAbout, examples: "  cistern alerts\n"}, r.alerts)
	cmd.UsageText = "cistern alerts [options]"
	return cmd
}

func (r *session) alerts(ctx context.Context) error {
	if err := command.NoArguments(r.cmd); err != nil {
		return err
	}
	titles := []string{"KIND", "SUBJECT", "STATE", "SINCE", "ATTEMPTS", "ERROR"}
	return r.list(titles, "nothing fails", func(row func(...string)) error {
		for query := (url.Values{}); ; {
			next, err := r.do(ctx, "GET", "/alerts", query, nil, func(line json.RawMessage) error {
				var s alertRow
				if err := unmarshalRow(line, &s); err != nil {
					return err
				}
				row(s.Kind, s.Subject, s.State, ago(s.Since),
					humanize.Comma(s.Attempts), s.Error)
				return nil
			})
			if err != nil || next == "" {
				return err
			}
			query.Set("cursor", next)
		}
	})
}
