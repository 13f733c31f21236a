package statuspage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"cistern/alert"
	"cistern/condition"
	"cistern/verdict"
)

// Problem is what fails or waits, by its public name.
type Problem struct {
	// Name is what the problem is about, such as firehose. The names are a closed set.
	Name  string `json:"name"`
	State string `json:"state"` // alert, failing or waiting
	Count int    `json:"count"` // of subjects of this name in this state
	Since string `json:"since"` // when the first of them began
}

// The states of problems. In the order of these words, the worst comes first.
const (
	stateAlert   = "alert"
	stateFailing = "failing" // in grace: it may recover by itself
	stateWaiting = "waiting" // a condition pauses backfill and crawling
)

// alertNames are the public names of the kinds of alerts.
var alertNames = map[alert.Kind]string{alert.Disk: "storage", alert.Hosts: "hosts",
	alert.Host: "hosts", alert.Directory: "identities", alert.Source: "firehose",
	alert.Subscription: "subscriptions", alert.Operation: "maintenance", alert.Condition: "machine"}

// conditionNames are the public names of conditions.
var conditionNames = map[string]string{"disk": "storage", "mount": "storage", "hours": "hours",
	"bandwidth": "bandwidth", "lag": "consumers", "cpu": "machine", "memory": "machine",
	"io": "machine"}

// otherName is the public name of what this package does not know.
const otherName = "other"

// parts are the parts of ingestion that may be paused, by their public names.
var parts = []string{"backfill", "crawler", "firehose"}

// problems returns alerts and what waits, the worst first, one for each name and state.
func problems(f Facts) []Problem {
	type key struct{ state, name string }
	type group struct {
		count int
		since time.Time
	}
	groups := map[key]*group{}
	add := func(state, name string, since time.Time) {
		k := key{state, cmp.Or(name, otherName)}
		if groups[k] == nil {
			groups[k] = &group{since: since}
		}
		if g := groups[k]; since.Before(g.since) {
			g.since = since
		}
		groups[k].count++
	}
	for _, a := range f.Alerts {
		state := stateFailing
		if a.Now == alert.Alert {
			state = stateAlert
		}
		add(state, alertNames[a.Kind], a.Since)
	}
	for _, c := range f.Conditions {
		if c.State == condition.Waiting {
			add(stateWaiting, conditionNames[c.Name], c.Since)
		}
	}
	all := []Problem{}
	for k, g := range groups {
		all = append(all, Problem{Name: k.name, State: k.state, Count: g.count, Since: moment(g.since)})
	}
	slices.SortFunc(all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.State, b.State), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// Verdict says in a few words whether the daemon is well.
type Verdict struct {
	Level string `json:"level"` // good, warn or bad
	Text  string `json:"text"`
}

// verdictOf returns the public verdict. Its level and its words come only from the facts that have
// a public part.
func verdictOf(f Facts, h Firehose) Verdict {
	level := verdict.Of(f.judged()).Level
	if level == verdict.Good {
		return Verdict{level, "all is well"}
	}
	alerting, failing := 0, 0
	for _, a := range f.Alerts {
		if a.Now == alert.Alert {
			alerting++
		} else {
			failing++
		}
	}
	var says, paused []string
	if alerting > 0 {
		says = append(says, counted(alerting, "alert"))
	}
	if f.Phase != "" {
		says = append(says, "stopping or suspended")
	}
	for _, part := range parts {
		if slices.Contains(f.Paused, part) {
			paused = append(paused, part)
		}
	}
	if len(paused) > 0 {
		says = append(says, strings.Join(paused, " and ")+" paused")
	}
	if h.Sources > 0 && h.Connected == 0 {
		says = append(says, "no firehose connected")
	}
	switch {
	case len(says) > 0:
		return Verdict{level, strings.Join(says, ", ")}
	case level == verdict.Bad:
		return Verdict{level, "a firehose is not connected"}
	case failing > 0:
		return Verdict{level, fmt.Sprintf("%d failing, may recover", failing)}
	}
	return Verdict{level, "a part is paused"} // a part without a public name
}

// judged returns the facts of which visitors see a part, as facts of the one rule.
func (f *Facts) judged() verdict.Facts {
	v := verdict.Facts{Now: f.Now, Alerts: f.Alerts, Paused: map[string][]string{}}
	if f.Phase != "" {
		v.Phase = &verdict.Phase{Name: f.Phase, Reached: true}
	}
	for _, part := range f.Paused {
		v.Paused[part] = []string{"paused"}
	}
	for _, s := range f.Sources {
		v.Sources = append(v.Sources, verdict.Source{URL: s.URL, Running: s.Running, Direct: s.Direct})
	}
	return v
}

// counted writes a number with its noun.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
