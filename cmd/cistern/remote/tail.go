package remote

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os/signal"
	"syscall"
	"time"

	"cistern/client"
	"cistern/cmd/cistern/command"
	"cistern/console"

	"github.com/urfave/cli/v3"
)

const tailAbout = `Print the events of a running daemon: each change of a record, of the status of
an account or of its handle, one a line. --kind repo prints which copies became
complete, fail or ended. It begins with the next event and goes on until Ctrl-C.
A lost connection is made again, and no event is missed or repeated. Each option
of a filter that is given must match; the values of a repeated option are
alternatives.`

const tailExamples = `  cistern tail --collection app.bsky.feed.post --live
  cistern tail --since 1h --follow=false --json | jq -r .record.collection | sort | uniq -c
`

// tailDefault is the public listener of a daemon on this machine.
const tailDefault = "http://127.0.0.1" + ListenDefault

// tailOptions is what a user can choose of tail. It reads no variables: variables of the same
// names configure the daemon.
type tailOptions struct {
	eventFilter
	url          string
	follow, json bool
	cursor       *uint64
	since        time.Time
	limit        uint64
}

func (o *tailOptions) options() []command.Option {
	cursor := func(s string) (*uint64, error) {
		id, err := command.Number(0, math.MaxUint64)(s)
		return &id, err
	}
	all := []command.Option{{Name: "url", Value: "URL", Default: tailDefault,
		Set:  command.Set(&o.url, command.ParseServer),
		Help: "The daemon's public listener, URL or host:port."}}
	all = append(all, o.eventFilter.options()...)
	return append(all, []command.Option{
		{Name: "cursor", Value: "N", Set: command.Set(&o.cursor, cursor),
			Help: "Begin at the event with this id; 0 is the oldest event kept. The default is " +
				"the next event, or with --follow=false the oldest."},
		{Name: "since", Value: "TIME", Set: command.Set(&o.since, parseSince),
			Help: "Begin at the first event that the daemon wrote at this time or later: an age " +
				"such as 90m or 7d, or a time such as 2026-01-02T15:04:05Z."},
		{Name: "limit", Value: "N", Set: command.Set(&o.limit, command.Number(1, math.MaxUint64)),
			Help: "End after this many events."},
		{Name: "follow", Default: "true", Set: command.Set(&o.follow, command.ParseSwitch),
			Help: "Wait for new events. --follow=false ends at the newest event that the daemon " +
				"has at the start."},
		{Name: "json", Set: command.Set(&o.json, command.ParseSwitch),
			Help: "Print each event as the daemon sent it, as JSON lines."},
	}...)
}

// validate returns the mistakes that no single option shows.
func (o *tailOptions) validate() (errs []error) {
	if err := o.eventFilter.validate(); err != nil {
		errs = append(errs, err)
	}
	if o.cursor != nil && !o.since.IsZero() {
		errs = append(errs, errors.New("give either --cursor or --since"))
	}
	return errs
}

// parseSince reads an age or a time.
func parseSince(s string) (time.Time, error) {
	if age, err := command.ParseAge(s); err == nil {
		return time.Now().Add(-age), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return at, errors.New("want an age like 90m or 7d, or a time like 2026-01-02T15:04:05Z")
	}
	return at, nil
}

func (a *Options) tailCommand() *cli.Command {
	var o tailOptions
	return &cli.Command{
		Name:               "tail",
		Usage:              "print the events of a running daemon as they happen",
		UsageText:          "cistern tail [options]",
		Description:        tailAbout,
		Flags:              command.Flags(o.options()),
		CustomHelpTemplate: command.HelpTemplate + tailExamples,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			_, _, errs := command.Load(o.options(), cmd, nil)
			errs = append(errs, o.validate()...)
			if err := errors.Join(command.NoArguments(cmd), command.Mistakes(errs)); err != nil {
				return err
			}
			return a.UntilSignal(ctx, func(ctx context.Context) error { return a.tail(ctx, &o) })
		},
	}
}

// tail prints events until ctx ends, the limit is reached or the reader of the output is gone.
func (a *Options) tail(ctx context.Context, o *tailOptions) error {
	signal.Ignore(syscall.SIGPIPE) // a reader like head ends the command, without an error
	c := client.New(o.url, "", "its public listener with --url")
	lines := client.NewLines(console.New(a.Stdout, a.Environ))
	show := lines.Line
	if o.json {
		show = lines.Row
	}
	left := o.limit
	err := c.Follow(ctx, client.Follow{
		Filter: o.wanted(), Cursor: o.cursor, Since: o.since, UntilHead: !o.follow,
		Event: func(e *client.Event) error {
			if _, err := fmt.Fprintln(a.Stdout, show(e)); err != nil {
				return err
			}
			if left--; left == 0 {
				return client.ErrStop
			}
			return nil
		},
		Lost: func(err error, next uint64, wait time.Duration) {
			place := "at the beginning"
			if next > 0 {
				place = fmt.Sprintf("at event %d", next)
			}
			fmt.Fprintf(a.Stderr, "cistern: no connection: %v; tail connects again in %s and goes on "+
				"%s\n", err, wait, place)
		},
	})
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}
