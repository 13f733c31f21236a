package status

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cistern/console"

	"github.com/dustin/go-humanize"
)

// size returns bytes as a person would write them.
func size[N int64 | uint64](bytes N) string { return humanize.IBytes(uint64(max(0, bytes))) }

// counted returns the counts that are not zero, in order, with their names.
func counted(counts map[string]int64, names ...string) (all []string) {
	for i := 0; i+1 < len(names); i += 2 {
		if n := counts[names[i]]; n > 0 {
			all = append(all, humanize.Comma(n)+" "+names[i+1])
		}
	}
	return all
}

func (a *Answer) repositories() part {
	c := a.Stats.Counts
	first := humanize.Comma(c["synced"]) + " of " + humanize.Comma(c["repos"]) + " synced"
	others := counted(c, "pending", "pending", "syncing", "syncing", "draining", "draining",
		"gone", "gone", "idle", "idle", "lacking", "to refilter")
	p := part{"Repositories", []line{plain(first)}}
	if len(others) > 0 {
		p.lines = append(p.lines, plain(strings.Join(others, ", ")))
	}
	if again := a.again(); again != "" {
		p.lines = append(p.lines, line{{console.Yellow, again}})
	}
	held := console.Count(c["records"], "record")
	if a.Stats.Ephemeral {
		held = "events only"
	}
	p.lines = append(p.lines, plain(held+", "+console.Count(c["events"], "event")+" in the log"))
	return p
}

// again says how many repositories wait to be fetched again, and how many of them for each kind of
// failure. It returns "" if all of them could be fetched.
func (a *Answer) again() string {
	c := a.Stats.Counts
	if c["resync"] == 0 {
		return ""
	}
	text := humanize.Comma(c["resync"]) + " to fetch again"
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if kind, ok := strings.CutPrefix(name, "error_"); ok {
			names = append(names, name, kind)
		}
	}
	if kinds := counted(c, names...); len(kinds) > 0 {
		text += ": " + strings.Join(kinds, ", ")
	}
	return text
}

func (a *Answer) backfill() part {
	p := part{name: "Backfill"}
	text := "complete"
	if n := a.Stats.Counts["resync"]; n > 0 {
		text = "complete but for " + humanize.Comma(n) + " to fetch again"
	}
	if n := a.waiting(); n > 0 {
		text = humanize.Comma(n) + " left"
		if d, ok := a.left(); ok {
			text += ", about " + spell(d.Round(1e9).Seconds())
		}
	}
	if rate, ok := a.latest("records"); ok {
		text += ", " + humanize.Comma(int64(rate)) + " records/s"
	}
	if rate, ok := a.latest("received"); ok {
		text += ", " + size(int64(rate)) + "/s"
	}
	p.lines = append(p.lines, plain(text))
	for _, name := range slices.Sorted(maps.Keys(a.Stats.Paused)) {
		p.lines = append(p.lines, line{{console.Yellow,
			name + " paused: " + strings.Join(a.Stats.Paused[name], ", ")}})
	}
	return p
}

func (a *Answer) disk() part {
	p := part{name: "Disk"}
	used := size(a.Stats.Sizes["total"]) + " used"
	d := a.Disk
	if d == nil {
		p.lines = append(p.lines, plain(used))
		return p
	}
	color := ""
	if d.Free < d.Reserve {
		color = console.Red
	}
	p.lines = append(p.lines, line{{"", used + ", "},
		{color, fmt.Sprintf("%s of %s free", size(d.Free), size(d.Total))},
		{"", ", reserve " + size(d.Reserve)}})
	if d.Short != "" {
		p.lines = append(p.lines, line{{console.Yellow, "reaches the reserve " + a.ago(d.Short)}})
	}
	if s := a.Maintenance.Short; s != "" {
		p.lines = append(p.lines, line{{console.Red, s}})
	}
	return p
}

func (a *Answer) conditions() part {
	p := part{name: "Conditions"}
	for _, c := range a.Conditions {
		if c.State == "ok" {
			continue
		}
		p.lines = append(p.lines, line{{console.Yellow, c.Name + " " + c.State + ": " +
			cmp.Or(c.Reason, c.Error)}})
	}
	if len(p.lines) == 0 && len(a.Conditions) > 0 {
		p.lines = append(p.lines, plain("all met"))
	}
	return p
}

// sources returns at most rows firehoses, those that fail or are furthest behind first.
func (a *Answer) sources(columns, rows int) part {
	f := a.Stats.Firehose
	if f == nil {
		return part{"Firehose", []line{{{console.Dim, "none is followed"}}}}
	}
	p := part{"Firehose", []line{plain(fmt.Sprintf("%s of %s connected", humanize.Comma(f.Running),
		humanize.Comma(f.Sources)))}}
	if len(a.Stats.Paused["firehose"]) > 0 {
		p.lines[0] = append(p.lines[0], span{console.Yellow, ", paused"})
	}
	var cells [][]span
	for _, s := range a.Sources.Items[:min(rows, len(a.Sources.Items))] {
		row := []span{{"", s.URL}, {console.Green, "ok"}, {"", spell(s.Stats.Lag) + " behind"}}
		if !s.Running {
			row = []span{{"", s.URL}, {console.Red, "down"}, {"", s.failure()}}
		}
		cells = append(cells, row)
	}
	p.lines = append(p.lines, table(cells, columns)...)
	return p.more(a.Sources.Total - len(cells))
}

// more adds how many rows were left out.
func (p part) more(n int) part {
	if n > 0 {
		p.lines = append(p.lines, line{{console.Dim, "and " + humanize.Comma(int64(n)) + " more"}})
	}
	return p
}

func (a *Answer) hostStates() part {
	text := console.Count(int64(a.Hosts.Total), "host")
	states := counted(a.Hosts.States, "ok", "ok", "failing", "failing", "parked", "parked",
		"banned", "banned")
	if len(states) > 0 {
		text += ": " + strings.Join(states, ", ")
	}
	return part{"Hosts", []line{plain(text)}}
}

// hosts returns the hosts that fail, and those with the longest queues.
func (a *Answer) hosts(columns int) part {
	p := a.hostStates()
	cells := [][]span{{{console.Dim, "HOST"}, {console.Dim, "STATE"}, {console.Dim, "QUEUED"},
		{console.Dim, "IN FLIGHT"}, {console.Dim, "LAST ERROR"}}}
	for _, h := range a.Hosts.Items {
		color := console.Green
		if h.State != "ok" {
			color = console.Red
		}
		cells = append(cells, []span{{"", h.Host}, {color, h.State}, {"", humanize.Comma(h.Queued)},
			{"", fmt.Sprintf("%d of %d", h.InFlight, h.Limits.Concurrency)}, {"", a.lastError(&h)}})
	}
	if len(cells) > 1 {
		p.lines = append(p.lines, table(cells, columns)...)
	}
	return p.more(a.Hosts.Total - len(a.Hosts.Items))
}

// lastError returns the last error of a host with its age: the host may have recovered since.
func (a *Answer) lastError(h *Host) string {
	if h.LastErrorAt == "" {
		return h.LastError
	}
	return a.ago(h.LastErrorAt) + ": " + h.LastError
}

// subscriptions returns at most rows subscriptions, those that are furthest behind first.
func (a *Answer) subscriptions(columns, rows int) part {
	all := slices.SortedStableFunc(slices.Values(a.Subscriptions), func(a, b Subscription) int {
		return cmp.Compare(b.Lag, a.Lag)
	})
	var cells [][]span
	for _, s := range all[:min(rows, len(all))] {
		state := span{"", console.Count(s.Connections, "connection")}
		if s.Webhook != "" {
			state.text = strings.TrimSuffix("webhook "+s.Webhook+": "+s.WebhookError, ": ")
		}
		if s.WebhookError != "" {
			state.color = console.Red
		}
		cells = append(cells, []span{{"", s.Name}, {"", humanize.Comma(int64(s.Lag)) + " behind"}, state})
	}
	p := part{"Subscriptions", table(cells, columns)}
	if len(all) == 0 {
		p.lines = []line{{{console.Dim, "none"}}}
	}
	return p.more(len(all) - len(cells))
}

// operations returns the operations that do something or have failed.
func (a *Answer) operations(columns int, ascii bool) part {
	const bars = 15
	p := part{name: "Operations"}
	for _, o := range a.Maintenance.Operations {
		l := line{{"", o.Name + " "}}
		switch pr := o.Progress; {
		case o.State == "idle" && o.Failures > 0:
			l = append(l, span{console.Red, "failed " + a.ago(o.Ended) + ": " + o.Error})
		case o.State == "idle":
			continue
		case pr != nil && pr.Total > 0:
			l = append(append(l, span{"", o.State + " "}), bar(pr.Done, pr.Total, bars, ascii)...)
			l = append(l, span{"", fmt.Sprintf(" %d%% %s", 100*pr.Done/pr.Total, pr.Item)})
		case pr != nil:
			l = append(l, span{"", o.State + " " + humanize.Comma(pr.Done) + " " + pr.Item})
		default:
			l = append(l, span{"", strings.TrimSuffix(o.State+": "+o.Waits, ": ")})
		}
		p.lines = append(p.lines, l.clip(columns))
	}
	if len(p.lines) == 0 {
		p.lines = []line{{{console.Dim, "none runs"}}}
	}
	return p
}

// failing returns what fails, but not long enough for an alert. The notes say when it will be one.
func (a *Answer) failing(columns, rows int) part {
	var cells [][]span
	n := 0
	for _, s := range a.Alerts.Items {
		if s.State == "alert" {
			continue
		}
		if n++; n <= rows {
			cells = append(cells, []span{{"", s.Kind}, {"", s.Subject}, {"", s.Error}})
		}
	}
	p := part{"Failing", table(cells, columns)}
	return p.more(a.Alerts.Total - a.Alerting - len(cells))
}

// failure returns why a source is not connected, "" if that is unknown.
func (s *Source) failure() string {
	if s.LastFailure == nil {
		return ""
	}
	return s.LastFailure.Detail
}
