package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/console"
	"cistern/loop"
	"cistern/phase"

	"github.com/urfave/cli/v3"
)

const phaseAbout = `Show or change the phase of a running daemon through its private
listener, at --admin. While it is suspended, all that it has is in its data
directory and nothing is written there: copy the directory, or take a snapshot
of the volume, and then resume. Queries and streams go on in every phase.
A phase ends by itself after --for, and with the daemon.`

const phaseExamples = `  cistern phase suspend --for 5m && cp -a /var/lib/cistern /backup/; cistern phase resume
  cistern phase drain --for 1h       no new work over the network, as for an upgrade
  cistern phase
`

const phaseSuspendAbout = `Have the daemon end its work over the network, make everything
durable, and write nothing more to the disk. The command returns when that is
so: then the files may be copied. It fails if the daemon resumed before, so that
what follows && does not run. Requests that would write are refused until the
daemon resumes; acknowledgements are kept in memory and written then.`

// phaseEvery is how often the daemon is asked for its phase until that is reached.
const phaseEvery = 200 * time.Millisecond

// phaseRow has the fields of an answer of /phase.
type phaseRow struct {
	Phase   string     `json:"phase"`
	Wanted  string     `json:"wanted"`
	Reached bool       `json:"reached"`
	Until   *time.Time `json:"until"`
	Busy    []string   `json:"busy"`
	Failure string     `json:"failure"`
}

// phasePut is the request.
type phasePut struct {
	Phase string `json:"phase"`
	For   string `json:"for,omitempty"`
}

// phaseSession is one run of a phase command.
type phaseSession struct {
	session
	duration time.Duration
}

func (o *Options) phaseCommand() *cli.Command {
	show := o.phaseSubcommand("show", "show the phase of a daemon", "", nil,
		"  cistern phase show --json | jq -r .phase\n")
	root := o.phaseSubcommand("", "show the phase of a daemon, suspend it, resume it", phaseAbout, nil,
		phaseExamples)
	root.Name, root.UsageText = "phase", "cistern phase [COMMAND] [options]"
	root.Commands = []*cli.Command{show,
		o.phaseSubcommand("drain", "begin no new work over the network",
			"Have the daemon begin no new work over the network: no fetch, no page of a\n"+
				"crawl, no firehose, no webhook. The command returns when what had begun has\n"+
				"ended. It fails if the daemon resumed before.",
			&phaseTarget{phase.Draining}, "  cistern phase drain --for 1h\n"),
		o.phaseSubcommand("suspend", "write nothing more, so that the files may be copied",
			phaseSuspendAbout, &phaseTarget{phase.Suspended},
			"  cistern phase suspend --for 5m && cp -a /var/lib/cistern /backup/\n"),
		o.phaseSubcommand("resume", "do all work again", "", &phaseTarget{phase.Active},
			"  cistern phase resume\n"),
	}
	return root
}

// phaseTarget is the phase that a command requests.
type phaseTarget struct{ phase.Phase }

// phaseSubcommand returns a command that requests a phase, or shows the phase if to is nil.
func (o *Options) phaseSubcommand(
	name, usage, about string, to *phaseTarget, examples string,
) *cli.Command {
	s := &phaseSession{session: session{Options: o}}
	c := subcommand{name: name, usage: usage, about: about, examples: examples}
	if to != nil && to.Phase != phase.Active {
		c.options = s.options()
	}
	return s.command("phase", c, func(ctx context.Context) error {
		if err := command.NoArguments(s.cmd); err != nil {
			return err
		}
		if to == nil {
			return s.show(ctx)
		}
		return s.request(ctx, to.Phase)
	})
}

func (s *phaseSession) options() []command.Option {
	return []command.Option{{Name: "for", Value: "DURATION", Default: "10m",
		Set:  command.Set(&s.duration, parsePhaseFor),
		Help: "How long, from now; then the daemon resumes by itself. At most 24h."}}
}

// parsePhaseFor reads how long a phase lasts.
func parsePhaseFor(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > phase.DurationMax {
		return 0, fmt.Errorf("want a duration such as 90s, 10m or 2h, at most %s",
			strings.TrimSuffix(phase.DurationMax.String(), "0m0s"))
	}
	return d, nil
}

func (s *phaseSession) show(ctx context.Context) error {
	return s.send(ctx, "GET", nil, func(line json.RawMessage, r *phaseRow) error {
		if s.json {
			return s.printJSON(line)
		}
		_, err := fmt.Fprintln(s.Stdout, r.text())
		return err
	})
}

// text returns a phase as a sentence.
func (r *phaseRow) text() string {
	text := console.Printable(r.Phase)
	if !r.Reached {
		text += ", on the way to " + console.Printable(r.Wanted)
	}
	if len(r.Busy) > 0 {
		text += "; waiting for " + console.Printable(strings.Join(r.Busy, ", "))
	}
	if r.Failure != "" {
		text += "; the store cannot be frozen: " + console.Printable(r.Failure)
	}
	if r.Until != nil {
		text += "; resumes by itself at " + r.Until.Local().Format("2006-01-02 15:04:05 MST")
	}
	return text
}

// request requests a phase, and returns when it is reached. It fails if another one takes its
// place.
func (s *phaseSession) request(ctx context.Context, to phase.Phase) error {
	body := &phasePut{Phase: to.String()}
	if to != phase.Active {
		body.For = s.duration.String()
	}
	var last phaseRow
	var line json.RawMessage
	keep := func(l json.RawMessage, r *phaseRow) error {
		line, last = append(json.RawMessage(nil), l...), *r
		return nil
	}
	err := s.send(ctx, "PUT", body, keep)
	for shown := ""; err == nil && last.Wanted == to.String() && !last.Reached; {
		if text := last.text(); text != shown && !s.json {
			shown = text
			fmt.Fprintln(s.Stderr, text)
		}
		if loop.Sleep(ctx, phaseEvery, nil); ctx.Err() != nil {
			return fmt.Errorf("%s: interrupted; the daemon goes on to be %s", command.Subject(s.cmd), to)
		}
		err = s.send(ctx, "GET", nil, keep)
	}
	switch {
	case err != nil:
		return err
	case last.Wanted != to.String():
		return fmt.Errorf("%s: the daemon is %s, and not %s: its time was over, or another request "+
			"came", command.Subject(s.cmd), console.Printable(last.Phase), to)
	case s.json:
		return s.printJSON(line)
	}
	_, err = fmt.Fprintln(s.Stdout, last.text())
	return err
}

// send sends a request about the phase, and calls fn for the answer.
func (s *phaseSession) send(
	ctx context.Context, method string, body *phasePut, fn func(json.RawMessage, *phaseRow) error,
) error {
	var rows []any
	if body != nil {
		rows = append(rows, body)
	}
	_, err := s.client.Do(ctx, method, "/phase", nil, rows, func(line json.RawMessage) error {
		var r phaseRow
		if err := unmarshalRow(line, &r); err != nil {
			return err
		}
		return fn(line, &r)
	})
	return err
}
