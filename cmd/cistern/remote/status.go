package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"time"

	"cistern/client"
	"cistern/cmd/cistern/command"
	"cistern/console"
	"cistern/status"

	"github.com/urfave/cli/v3"
)

const statusAbout = `Show on one screen what a running daemon does, through its private
listener at --admin, and whether it needs an operator. The exit code is

  0  all is well, or there are only notes (-): backfill or the crawler is
     paused, something fails that is no alert yet, the disk reaches its reserve
     in a week, the last 'cistern backup' failed, nothing is tracked, or an
     option of the filter is ignored
  1  a problem (!) needs an operator: an alert, a source that is not connected,
     a firehose that is paused, a daemon that is draining, suspended or not
     ready, or a disk that reaches its reserve within a day
  2  no daemon answers, or it refuses the request

--json prints one line with status (ok, attention or unready), problems, notes,
and the answer of GET /overview as overview. --probe asks only whether the
daemon is ready, prints ready, unready or unreachable, and exits with 0 or 1.`

const statusExamples = `  cistern status
  cistern status --json | jq -r '.problems[]'
  cistern status --probe || systemctl restart cistern
`

const (
	// statusMax bounds the wait for an answer. Health checks give up after ten seconds.
	statusMax = 8 * time.Second
	// statusHistory is how much of the past the answer contains, for rates.
	statusHistory = 10 * time.Minute
)

// ExitUnknown is the exit code of status, and of top without a terminal, if no daemon answers.
const ExitUnknown = 2

// statusSession is one run of the command status.
type statusSession struct {
	session
	probe bool
}

func (o *Options) statusCommand() *cli.Command {
	s := &statusSession{session: session{Options: o}}
	cmd := s.command("", subcommand{name: "status", usage: "show whether all is well in a daemon",
		about: statusAbout, examples: statusExamples, options: []command.Option{
			{Name: "probe", Set: command.Set(&s.probe, command.ParseSwitch),
				Help: "Print only whether the daemon is ready: for health checks."}}}, s.status)
	cmd.UsageText = "cistern status [options]"
	return cmd
}

// status is the command status.
func (s *statusSession) status(ctx context.Context) error {
	if err := command.NoArguments(s.cmd); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statusMax)
	defer cancel()
	if s.probe {
		return s.printProbe(s.unready(ctx))
	}
	text, answer, err := s.overview(ctx)
	if err != nil {
		return command.ExitError{Code: ExitUnknown, Err: err}
	}
	if s.json {
		err = s.printStatus(text, &answer.Verdict)
	} else {
		term := console.New(s.Stdout, s.Environ)
		view := status.View{ASCII: term.ASCII(), Paint: term.Paint}
		if term.Live() {
			view.Columns = term.Columns()
		}
		_, err = fmt.Fprint(s.Stdout, answer.Page(view))
	}
	if err == nil && answer.Verdict.Bad() {
		err = command.ExitError{Code: 1}
	}
	return err
}

// unready asks whether the daemon is ready. It returns why not, or an error if there is no answer.
func (s *statusSession) unready(ctx context.Context) (reason string, err error) {
	_, err = s.client.Do(ctx, "GET", "/readyz", nil, nil, func(json.RawMessage) error { return nil })
	if refused, ok := errors.AsType[*client.Refused](err); ok {
		return refused.Error(), nil
	}
	return "", err
}

// printProbe prints the word of --probe.
func (s *statusSession) printProbe(unready string, err error) error {
	word := "ready"
	switch {
	case err != nil:
		word = "unreachable"
	case unready != "":
		word = "unready"
	}
	if _, err := fmt.Fprintln(s.Stdout, word); err != nil {
		return err
	}
	if word != "ready" {
		return command.ExitError{Code: 1}
	}
	return nil
}

// overview asks for all that a page shows. The answer has the points of statusHistory.
func (s *statusSession) overview(ctx context.Context) (json.RawMessage, *status.Answer, error) {
	var text json.RawMessage
	query := url.Values{"hour": {strconv.FormatInt(time.Now().Add(-statusHistory).Unix(), 10)},
		"day": {strconv.Itoa(math.MaxInt32)}, "log": {strconv.Itoa(math.MaxInt64)}}
	_, err := s.client.Do(ctx, "GET", "/overview", query, nil, func(line json.RawMessage) error {
		text = append(text[:0], line...)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	answer, err := status.Decode(text)
	return text, answer, err
}

// printStatus prints the line of --json.
func (s *statusSession) printStatus(overview json.RawMessage, v *status.Verdict) error {
	row := struct {
		Status   string          `json:"status"`
		Problems []string        `json:"problems"`
		Notes    []string        `json:"notes"`
		Overview json.RawMessage `json:"overview"`
	}{"ok", append([]string{}, v.Problems...), append([]string{}, v.Notes...), overview}
	switch {
	case !v.Ready:
		row.Status = "unready"
	case v.Bad():
		row.Status = "attention"
	}
	return json.NewEncoder(s.Stdout).Encode(row)
}
