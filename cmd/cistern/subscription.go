package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"cistern/client"
	"cistern/console"
	"cistern/filter"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"
)

const subscriptionAbout = `Control the durable subscriptions of a running daemon
through its private listener, at --admin. The daemon keeps what the consumer of
a subscription has acknowledged: the consumer connects to
/subscriptions/NAME/events, and gets what it has not acknowledged until it does.
Answers are tables; --json prints the daemon's rows as JSON lines instead.`

const subscriptionExamples = `  cistern subscription add search --collection app.bsky.feed.post --start oldest
  cistern subscription ls
  cistern subscription replay search 24h
`

const subscriptionLsAbout = `List the durable subscriptions. LAG counts the events of the
log, wanted or not, that the subscription has not come to yet. UNACKED are
events that were sent and not acknowledged, and OLDEST is how long the first of
them has been waiting. HOLDS is the age of the oldest event that is in the log
only because the subscription has not acknowledged it: it takes disk space until
it is. NEXT is where the log goes on, behind the snapshot that is being delivered
if there is one: then the records of it that were chosen so far stand there.`

const subscriptionReplayAbout = `Have a subscription go on at another place of the log, back
or forward. START is snapshot (all current records, and then the events from
now on), oldest (the oldest event kept), head (the next event), the id of an
event, an age such as 90m or 7d, or a time such as 2026-01-02T15:04:05Z. Events
from there on are sent, also those that were acknowledged. Unacknowledged events before it are not sent again. The
connections of the subscription end, and begin there when they are made again.`

// subscriptionRow has the fields of a row that ls shows.
type subscriptionRow struct {
	Name        string            `json:"name"`
	Filter      map[string]any    `json:"filter"`
	Next        uint64            `json:"next"`
	Lag         uint64            `json:"lag"`
	Outstanding int64             `json:"outstanding"`
	Oldest      *float64          `json:"oldest_outstanding_seconds"`
	HoldsLog    *float64          `json:"holds_log_seconds"`
	Redelivered int64             `json:"redelivered"`
	Share       string            `json:"share"`
	Connections []json.RawMessage `json:"connections"`
	Webhook     map[string]any    `json:"webhook"`
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

// startRow is the place in the log of a request.
type startRow struct {
	Start any `json:"start,omitempty"`
}

func (a *app) subscriptionCommand() *cli.Command {
	sub := a.subscriptionSubcommand
	return &cli.Command{
		Name:               "subscription",
		Usage:              "list, make, inspect, replay and remove durable subscriptions of a daemon",
		UsageText:          "cistern subscription COMMAND [options]",
		Description:        subscriptionAbout,
		CustomHelpTemplate: helpTemplate + subscriptionExamples,
		Commands: []*cli.Command{
			sub("ls", "", "list durable subscriptions", subscriptionLsAbout,
				(*subscriptionSession).ls, `  cistern subscription ls
  cistern subscription ls --json | jq -r 'select(.lag > 100000).name'
`),
			sub("show", "NAME", "show all that is known of a subscription", "",
				(*subscriptionSession).show, "  cistern subscription show search\n"),
			sub("add", "NAME", "make a subscription, or change its filter with --replace", "",
				(*subscriptionSession).add,
				`  cistern subscription add search --collection app.bsky.feed.post --start oldest
  cistern subscription add search --replace --collection 'app.bsky.feed.*'
  cistern subscription add workers --share did
`, "collection", "did", "kind", "action", "live", "historical", "start", "share", "replace"),
			sub("rm", "NAME...", "remove subscriptions and what their consumers acknowledged", "",
				(*subscriptionSession).rm, "  cistern subscription rm search\n"),
			sub("replay", "NAME START", "have a subscription go on at another place of the log",
				subscriptionReplayAbout, (*subscriptionSession).replay,
				`  cistern subscription replay search oldest
  cistern subscription replay search 2026-01-02T15:04:05Z
  cistern subscription replay search head
  cistern subscription replay search snapshot
`),
		},
	}
}

// subscriptionSession is one run of a subscription command.
type subscriptionSession struct {
	*app
	cmd    *cli.Command
	client *client.Client

	collections, dids, kinds, actions []string
	live, historical, replace, json   bool
	start                             any
	share                             string
	admin, token                      string
}

func (s *subscriptionSession) options() []option {
	return []option{
		{name: "collection", value: "NSID", repeat: true, set: add(&s.collections, parsePattern),
			help: "Record events of this collection only, such as app.bsky.feed.post or " +
				"app.bsky.*. Account and identity events stay unless --kind leaves them out."},
		{name: "did", value: "DID", repeat: true, set: add(&s.dids, parseDID),
			help: "Events of this account only."},
		{name: "kind", value: "KIND", repeat: true,
			set:  add(&s.kinds, choice(text, filter.EventKinds...)),
			help: "Events of this kind only: " + strings.Join(filter.EventKinds, ", ") + "."},
		{name: "action", value: "ACTION", repeat: true,
			set:  add(&s.actions, choice(text, filter.EventActions...)),
			help: "Record events of this action only: create, update or delete."},
		{name: "live", set: set(&s.live, parseSwitch),
			help: "Record events from the firehose only."},
		{name: "historical", set: set(&s.historical, parseSwitch),
			help: "Record events from fetched repositories only."},
		{name: "start", value: "START", set: set(&s.start, parseStart),
			help: "Where a new subscription begins: snapshot (all current records, and then the " +
				"events from now on), oldest (the oldest event kept), head (the next event; the " +
				"default), the id of an event, an age such as 90m or 7d, or a time such as " +
				"2026-01-02T15:04:05Z."},
		{name: "share", value: "exclusive|did", set: set(&s.share, choice(text, "exclusive", "did")),
			help: "How many connections there may be. exclusive: one (the default). did: " +
				"several, which divide the accounts."},
		{name: "replace", set: set(&s.replace, parseSwitch),
			help: "Change the filter and the share of a subscription that exists. It goes on " +
				"where it is."},
		{name: "json", set: set(&s.json, parseSwitch),
			help: "Print the daemon's rows as JSON lines."},
		{name: "admin", value: "ADDR", standard: adminDefault, set: set(&s.admin, parseServer),
			help: "The daemon's private listener, host:port or URL; also CISTERN_ADMIN."},
		{name: "admin-token", value: "TOKEN", secret: true, set: set(&s.token, text),
			help: "Secret of the private listener, if it has one. Better in CISTERN_ADMIN_TOKEN."},
	}
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
func (a *app) subscriptionSubcommand(name, arguments, usage, about string,
	act func(*subscriptionSession, context.Context) error, examples string,
	names ...string) *cli.Command {
	s := &subscriptionSession{app: a}
	options := only(s.options(), append(names, "json", "admin", "admin-token")...)
	return &cli.Command{
		Name:  name,
		Usage: usage,
		UsageText: strings.TrimSpace("cistern subscription " + name + " [options] " +
			arguments),
		Description:        cmp.Or(about, strings.ToUpper(usage[:1])+usage[1:]+"."),
		Flags:              flags(options),
		CustomHelpTemplate: helpTemplate + examples,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			env, errs := readEnviron(a.environ)
			_, _, more := load(options, cmd, env)
			if err := mistakes(append(errs, more...)); err != nil {
				return err
			}
			s.cmd, s.client = cmd, client.New(s.admin, s.token, "its private listener with --admin")
			return a.untilSignal(ctx, func(ctx context.Context) error { return act(s, ctx) })
		},
	}
}

func (s *subscriptionSession) ls(ctx context.Context) error {
	if err := noArguments(s.cmd); err != nil {
		return err
	}
	n, table := 0, newTable(s.stdout)
	addRow(table, "NAME", "CONNECTIONS", "LAG", "UNACKED", "OLDEST", "HOLDS", "NEXT", "FILTER")
	err := s.do(ctx, "GET", "", nil, func(_ json.RawMessage, r *subscriptionRow) error {
		n++
		wanted := "all events"
		if len(r.Filter) > 0 {
			text, err := json.Marshal(r.Filter)
			if err != nil {
				return err
			}
			wanted = string(text)
		}
		addRow(table, r.Name, strconv.Itoa(len(r.Connections)), humanize.Comma(int64(r.Lag)),
			humanize.Comma(r.Outstanding), spell(r.Oldest), spell(r.HoldsLog),
			r.place(), console.Clip(wanted, 60))
		return nil
	})
	switch {
	case err != nil || s.json:
		return err
	case n == 0:
		_, err = fmt.Fprintln(s.stdout, "no subscriptions")
		return err
	}
	return table.Flush()
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
	return s.do(ctx, "GET", "/"+name, nil, func(line json.RawMessage, _ *subscriptionRow) error {
		return writeFields(s.stdout, "", line)
	})
}

func (s *subscriptionSession) add(ctx context.Context) error {
	name, err := s.name("")
	if err == nil && s.live && s.historical {
		err = errors.New("give either --live or --historical; without them both are wanted")
	}
	if err == nil && s.replace && s.start != nil {
		err = errors.New("give either --replace or --start: a subscription that exists goes on " +
			"where it is, and replay moves it")
	}
	if err == nil {
		err = s.exists(ctx, name)
	}
	if err != nil {
		return err
	}
	wanted := map[string]any{}
	for field, values := range map[string][]string{"collections": s.collections, "dids": s.dids,
		"kinds": s.kinds, "actions": s.actions} {
		if len(values) > 0 {
			wanted[field] = values
		}
	}
	if s.live || s.historical {
		wanted["live"] = s.live
	}
	row := struct {
		startRow
		Filter map[string]any `json:"filter"`
		Share  string         `json:"share,omitempty"`
	}{startRow{s.start}, wanted, s.share}
	verb := "added"
	if s.replace {
		verb = "changed"
	}
	return s.do(ctx, "PUT", "/"+name, row, s.moved(verb))
}

// exists compares whether there is the subscription with what --replace says.
func (s *subscriptionSession) exists(ctx context.Context, name string) error {
	var all []string
	hooked := false // the subscription has a webhook
	_, err := s.client.Do(ctx, "GET", "/subscriptions", nil, nil, func(line json.RawMessage) error {
		var r subscriptionRow
		err := unmarshalRow(line, &r)
		all = append(all, url.PathEscape(r.Name))
		hooked = hooked || url.PathEscape(r.Name) == name && r.Webhook != nil
		return err
	})
	switch found := slices.Contains(all, name); {
	case err != nil:
		return err
	case found && !s.replace:
		return fmt.Errorf("there is a subscription %s: --replace changes its filter", name)
	case hooked:
		return fmt.Errorf("subscription %s has a webhook, which --replace would remove: change "+
			"both by PUT /subscriptions/%s", name, name)
	case !found && s.replace:
		return fmt.Errorf("there is no subscription %s: leave out --replace to make it", name)
	}
	return nil
}

func (s *subscriptionSession) replay(ctx context.Context) error {
	name, err := s.name("START")
	if err != nil {
		return err
	}
	text := s.cmd.Args().Get(1)
	start, err := parseStart(text)
	if err != nil {
		return fmt.Errorf("%s: START %q: %w", subject(s.cmd), text, err)
	}
	return s.do(ctx, "POST", "/"+name+"/replay", startRow{start}, s.moved("replayed"))
}

// moved returns a function that prints where a subscription goes on.
func (s *subscriptionSession) moved(verb string) func(json.RawMessage, *subscriptionRow) error {
	return func(_ json.RawMessage, r *subscriptionRow) error {
		after := ""
		if r.Snapshot != nil {
			after = " with a snapshot, and then"
		}
		_, err := fmt.Fprintf(s.stdout, "%s %s%s from event %d on; lag %s\n",
			console.Printable(r.Name), verb, after, r.Next, humanize.Comma(int64(r.Lag)))
		return err
	}
}

func (s *subscriptionSession) rm(ctx context.Context) error {
	names := s.cmd.Args().Slice()
	if len(names) == 0 {
		return fmt.Errorf("%s needs the NAME of a subscription", subject(s.cmd))
	}
	for _, name := range names {
		print := func(_ json.RawMessage, r *subscriptionRow) error {
			_, err := fmt.Fprintln(s.stdout, console.Printable(r.Name), "removed")
			return err
		}
		if err := s.do(ctx, "DELETE", "/"+url.PathEscape(name), nil, print); err != nil {
			return err
		}
	}
	return nil
}

// name returns the first argument as a part of a path. more is the name of the second one, "" if
// there is only one.
func (s *subscriptionSession) name(more string) (string, error) {
	want := []string{"NAME"}
	if more != "" {
		want = append(want, more)
	}
	if s.cmd.NArg() != len(want) || s.cmd.Args().First() == "" {
		return "", fmt.Errorf("%s has %d arguments, want %s", subject(s.cmd), s.cmd.NArg(),
			strings.Join(want, " "))
	}
	return url.PathEscape(s.cmd.Args().First()), nil
}

// do sends a request about subscriptions, with a row unless it is nil. With --json it prints the
// rows of the answer; otherwise it calls fn for each.
func (s *subscriptionSession) do(ctx context.Context, method, path string, row any,
	fn func(json.RawMessage, *subscriptionRow) error) error {
	var rows []any
	if row != nil {
		rows = append(rows, row)
	}
	_, err := s.client.Do(ctx, method, "/subscriptions"+path, nil, rows,
		func(line json.RawMessage) error {
			if s.json {
				_, err := fmt.Fprintf(s.stdout, "%s\n", line)
				return err
			}
			var r subscriptionRow
			if err := unmarshalRow(line, &r); err != nil {
				return err
			}
			return fn(line, &r)
		})
	return err
}
