package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cistern/client"
	"cistern/cmd/cistern/command"
	"cistern/console"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"
)

const subscriptionAbout = `Control the durable subscriptions of a running daemon
through its private listener, at --admin. The daemon keeps what the consumer of
a subscription has acknowledged: the consumer connects to
/subscriptions/NAME/events, and gets what it has not acknowledged until it does;
or a webhook gets the events by requests, and acknowledges them by its answers.
Answers are tables; --json prints the daemon's rows as JSON lines instead.`

const subscriptionExamples = `  cistern subscription add search --collection app.bsky.feed.post --start oldest
  cistern subscription ls
  cistern subscription replay search 24h
`

const subscriptionLsAbout = `List the durable subscriptions. CONNECTIONS counts the open ones, or says what
the webhook is doing. LAG counts the events of the log, wanted or not, that the
subscription has not come to yet. UNACKED are events that were sent and not
acknowledged, and OLDEST is how long the first of them has been waiting. HOLDS
is the age of the oldest event that is in the log only because the subscription
has not acknowledged it: it takes disk space until it is. NEXT is where the log
goes on, behind the snapshot that is being delivered if there is one: then the
records of it that were chosen so far stand there.`

const subscriptionAddAbout = `Make a subscription, or change the filter of one with --replace.
Without options of a filter all events are wanted. Consumers connect to
/subscriptions/NAME/events, or --webhook has the events posted to a URL. Its
requests are signed as Standard Webhooks says. Unless --webhook-secrets gives a
secret, the daemon makes one and this command prints it, which nothing does
again: give it to the receiver.`

const subscriptionReplayAbout = `Have a subscription go on at another place of the log, back
or forward. START is snapshot (all current records, and then the events from
now on), oldest (the oldest event kept), head (the next event), the id of an
event, an age such as 90m or 7d, or a time such as 2026-01-02T15:04:05Z. Events
from there on are sent, acknowledged or not. Unacknowledged events before it
are not sent again. The connections of the subscription end, and begin
there when they are made again.`

// subscriptionRow has the fields of a row that ls shows.
type subscriptionRow struct {
	Name        string            `json:"name"`
	Filter      client.Filter     `json:"filter"`
	Next        uint64            `json:"next"`
	Lag         uint64            `json:"lag"`
	Outstanding int64             `json:"outstanding"`
	Oldest      *float64          `json:"oldest_outstanding_seconds"`
	HoldsLog    *float64          `json:"holds_log_seconds"`
	Redelivered int64             `json:"redelivered"`
	Share       string            `json:"share"`
	Connections []json.RawMessage `json:"connections"`
	Webhook     *webhookRow       `json:"webhook"`
	Snapshot    *struct {
		Records uint64 `json:"records"`
	} `json:"snapshot"`
}

// place returns where the subscription is, before the log or in it.
func (r *subscriptionRow) place() string {
	if r.Snapshot == nil {
		return strconv.FormatUint(r.Next, 10)
	}
	return "snapshot: " + humanize.Comma(int64(r.Snapshot.Records))
}

// consumers returns how many connections there are, or what the webhook is doing.
func (r *subscriptionRow) consumers() string {
	if r.Webhook != nil {
		return "webhook " + r.Webhook.State
	}
	return strconv.Itoa(len(r.Connections))
}

// startRow is the place in the log of a request.
type startRow struct {
	Start any `json:"start,omitempty"`
}

// subscriptionPut is a subscription as a request makes it.
type subscriptionPut struct {
	startRow
	Filter  client.Filter `json:"filter"`
	Share   string        `json:"share,omitempty"`
	Webhook *webhookPut   `json:"webhook,omitempty"`
}

func (o *Options) subscriptionCommand() *cli.Command {
	sub := o.subscriptionSubcommand
	return &cli.Command{
		Name:               "subscription",
		Usage:              "list, make, inspect, replay and remove subscriptions",
		UsageText:          "cistern subscription COMMAND [options]",
		Description:        subscriptionAbout,
		CustomHelpTemplate: command.HelpTemplate + subscriptionExamples,
		Commands: []*cli.Command{
			sub("ls", "", "list durable subscriptions", subscriptionLsAbout,
				(*subscriptionSession).ls, `  cistern subscription ls
  cistern subscription ls --json | jq -r 'select(.lag > 100000).name'
`),
			sub("show", "NAME", "show all that is known of a subscription", "",
				(*subscriptionSession).show, "  cistern subscription show search\n"),
			sub("add", "NAME", "make a subscription, or change its filter with --replace",
				subscriptionAddAbout, (*subscriptionSession).add,
				`  cistern subscription add search --collection app.bsky.feed.post --start oldest
  cistern subscription add search --replace --collection 'app.bsky.feed.*'
  cistern subscription add workers --share did
  cistern subscription add hook --start snapshot --webhook https://example.com/in \
    --webhook-events 50
`, "collection", "did", "kind", "action", "live", "historical", "start", "share", "replace",
				"webhook", "webhook-events", "webhook-requests", "webhook-secrets"),
			sub("rm", "NAME...", "remove subscriptions and what their consumers acknowledged", "",
				(*subscriptionSession).rm, "  cistern subscription rm search\n"),
			sub("replay", "NAME START", "have a subscription go on at another place of the log",
				subscriptionReplayAbout, (*subscriptionSession).replay,
				`  cistern subscription replay search oldest
  cistern subscription replay search 2026-01-02T15:04:05Z
  cistern subscription replay search head
  cistern subscription replay search snapshot
`),
			sub("rotate", "NAME", "replace the secrets with which a webhook is signed",
				subscriptionRotateAbout, (*subscriptionSession).rotate,
				`  echo "whsec_$(openssl rand -base64 32)" > new
  cat new old | cistern subscription rotate hook --webhook-secrets -
  cistern subscription rotate hook --webhook-secrets new
`, "webhook-secrets"),
			sub("resume", "NAME", "have a webhook that is parked, or backs off, send at once", "",
				(*subscriptionSession).resume, "  cistern subscription resume hook\n"),
		},
	}
}

// subscriptionSession is one run of a subscription command.
type subscriptionSession struct {
	session
	eventFilter
	hook    webhookOptions
	replace bool
	start   any
	share   string
}

func (s *subscriptionSession) options() []command.Option {
	all := append(s.eventFilter.options(), s.hook.options()...)
	return append(all, []command.Option{
		{Name: "start", Value: "START", Set: command.Set(&s.start, parseStart),
			Help: "Where a new subscription begins: snapshot (all current records, and then the " +
				"events from now on), oldest (the oldest event kept), head (the next event; the " +
				"default), the id of an event, an age such as 90m or 7d, or a time such as " +
				"2026-01-02T15:04:05Z."},
		{Name: "share", Value: "exclusive|did",
			Set: command.Set(&s.share, command.Choice(command.Text, "exclusive", "did")),
			Help: "How many connections there may be. exclusive: one (the default). did: " +
				"several, which divide the accounts."},
		{Name: "replace", Set: command.Set(&s.replace, command.ParseSwitch),
			Help: "Change the filter and the share of a subscription that exists. It goes on " +
				"where it is. Its webhook stays as far as no --webhook option changes it."},
	}...)
}

// parseStart reads a place of the log, as the daemon wants it in JSON.
func parseStart(s string) (any, error) {
	if s == "head" || s == "oldest" || s == "snapshot" {
		return s, nil
	}
	if id, err := strconv.ParseUint(s, 10, 64); err == nil && id > 0 {
		return id, nil
	}
	at, err := parseSince(s)
	if err != nil || s == "0" {
		return nil, errors.New("want snapshot, oldest, head, the id of an event, an age like 90m " +
			"or 7d, or a time like 2026-01-02T15:04:05Z")
	}
	return at.UTC().Format(time.RFC3339Nano), nil
}

// subscriptionSubcommand returns the command 'subscription NAME', with the options of these names
// and the options that locate the daemon.
func (o *Options) subscriptionSubcommand(name, arguments, usage, about string,
	act func(*subscriptionSession, context.Context) error, examples string,
	names ...string) *cli.Command {
	s := &subscriptionSession{session: session{Options: o}}
	c := subcommand{name: name, arguments: arguments, usage: usage, about: about, examples: examples}
	if len(names) > 0 {
		c.options = command.Only(s.options(), names...)
	}
	return s.command("subscription", c, func(ctx context.Context) error { return act(s, ctx) })
}

func (s *subscriptionSession) ls(ctx context.Context) error {
	if err := command.NoArguments(s.cmd); err != nil {
		return err
	}
	titles := []string{"NAME", "CONNECTIONS", "LAG", "UNACKED", "OLDEST", "HOLDS", "NEXT", "FILTER"}
	return s.list(titles, "no subscriptions", func(row func(...string)) error {
		return s.send(ctx, "GET", "", nil, func(_ json.RawMessage, r *subscriptionRow) error {
			wanted, err := json.Marshal(r.Filter)
			if err != nil {
				return err
			}
			if string(wanted) == "{}" {
				wanted = []byte("all events")
			}
			row(r.Name, r.consumers(), humanize.Comma(int64(r.Lag)),
				humanize.Comma(r.Outstanding), spell(r.Oldest), spell(r.HoldsLog),
				r.place(), string(wanted))
			return nil
		})
	})
}

// spell returns seconds as a duration, "" for nil.
func spell(seconds *float64) string {
	if seconds == nil {
		return ""
	}
	d := time.Duration(*seconds * float64(time.Second)).Round(time.Second)
	if days := d / (24 * time.Hour); days > 0 {
		return fmt.Sprintf("%dd%dh", days, (d % (24 * time.Hour) / time.Hour))
	}
	return d.String()
}

func (s *subscriptionSession) show(ctx context.Context) error {
	name, err := s.name("")
	if err != nil {
		return err
	}
	return s.send(ctx, "GET", "/"+name, nil, func(line json.RawMessage, _ *subscriptionRow) error {
		return writeFields(s.Stdout, "", line)
	})
}

func (s *subscriptionSession) add(ctx context.Context) error {
	name, err := s.name("")
	if err == nil {
		err = s.eventFilter.validate()
	}
	if err == nil && s.replace && s.start != nil {
		err = errors.New("give either --replace or --start: a subscription that exists goes on " +
			"where it is, and replay moves it")
	}
	if err != nil {
		return command.UsageError(err)
	}
	former, err := s.find(ctx, name)
	switch {
	case err != nil:
		return err
	case former != nil && !s.replace:
		return fmt.Errorf("there is a subscription %s: --replace changes its filter", name)
	case former == nil && s.replace:
		return fmt.Errorf("there is no subscription %s: leave out --replace to make it", name)
	case former == nil:
		former = &subscriptionRow{}
	}
	row := subscriptionPut{startRow{s.start}, s.wanted(), s.share, nil}
	if row.Webhook, err = s.wantedWebhook(former.Webhook); err != nil {
		return err
	}
	verb := "added"
	if s.replace {
		verb = "changed"
	}
	return s.send(ctx, "PUT", "/"+name, row, s.moved(verb))
}

// find returns the subscription of a name, which is a part of a path; nil if no
// subscription has it.
func (s *subscriptionSession) find(ctx context.Context, name string) (*subscriptionRow, error) {
	var found *subscriptionRow
	_, err := s.client.Do(ctx, "GET", "/subscriptions", nil, nil, func(line json.RawMessage) error {
		var r subscriptionRow
		err := unmarshalRow(line, &r)
		if url.PathEscape(r.Name) == name {
			found = &r
		}
		return err
	})
	return found, err
}

func (s *subscriptionSession) replay(ctx context.Context) error {
	name, err := s.name("START")
	if err != nil {
		return err
	}
	text := s.cmd.Args().Get(1)
	start, err := parseStart(text)
	if err != nil {
		return fmt.Errorf("%s: START %q: %w", command.Subject(s.cmd), text, err)
	}
	return s.send(ctx, "POST", "/"+name+"/replay", startRow{start}, s.moved("replayed"))
}

// moved returns a function that prints where a subscription goes on.
func (s *subscriptionSession) moved(verb string) func(json.RawMessage, *subscriptionRow) error {
	return func(_ json.RawMessage, r *subscriptionRow) error {
		after := ""
		if r.Snapshot != nil {
			after = " with a snapshot, and then"
		}
		_, err := fmt.Fprintf(s.Stdout, "%s %s%s from event %d on; lag %s\n",
			console.Printable(r.Name), verb, after, r.Next, humanize.Comma(int64(r.Lag)))
		if err != nil {
			return err
		}
		return r.Webhook.print(s.Stdout)
	}
}

func (s *subscriptionSession) rm(ctx context.Context) error {
	names := s.cmd.Args().Slice()
	if len(names) == 0 {
		return command.UsageError(fmt.Errorf("%s needs the NAME of a subscription",
			command.Subject(s.cmd)))
	}
	for _, name := range names {
		print := func(_ json.RawMessage, r *subscriptionRow) error {
			_, err := fmt.Fprintln(s.Stdout, console.Printable(r.Name), "removed")
			return err
		}
		if err := s.send(ctx, "DELETE", "/"+url.PathEscape(name), nil, print); err != nil {
			return err
		}
	}
	return nil
}

// name returns the first argument as a part of a path. more is the name of the second one, "" if
// there is only one.
func (s *subscriptionSession) name(more string) (string, error) {
	form := strings.Fields("NAME " + more)
	if err := command.WantArguments(s.cmd, len(form), strings.Join(form, " ")); err != nil {
		return "", err
	}
	return url.PathEscape(s.cmd.Args().First()), nil
}

// send sends a request about subscriptions, with a row unless it is nil. With --json it prints the
// rows of the answer; otherwise it calls fn for each.
func (s *subscriptionSession) send(ctx context.Context, method, path string, row any,
	fn func(json.RawMessage, *subscriptionRow) error) error {
	var rows []any
	if row != nil {
		rows = append(rows, row)
	}
	_, err := s.do(ctx, method, "/subscriptions"+path, nil, rows, func(line json.RawMessage) error {
		var r subscriptionRow
		if err := unmarshalRow(line, &r); err != nil {
			return err
		}
		return fn(line, &r)
	})
	return err
}
