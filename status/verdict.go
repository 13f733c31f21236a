package status

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cistern/console"
)

// Verdict is whether a daemon needs an operator. This is the rule:
//
//	problem   the daemon is not ready; an alert; a firehose that is down, unless Cistern added it;
//	          the daemon drains or is suspended; the firehose is paused; the disk reaches its
//	          reserve within diskSoon
//	note      backfill or the crawler is paused; a subject fails in the grace of its alert; the disk
//	          reaches its reserve within diskLater
//	all well  neither
//
// Commands exit with 1 if there is a problem, with 2 if no daemon answers, and else with 0.
type Verdict struct {
	Problems []string // need an operator, a sentence each
	Notes    []string // say what the daemon does not do at the moment, or what may become a problem
	alerts   int      // that one sentence of Problems counts together, 0 if there is no such one
}

const (
	// diskSoon is how soon the disk reaches its reserve where that is a problem, and diskLater where
	// it is a note.
	diskSoon  = 24 * time.Hour
	diskLater = 7 * 24 * time.Hour
)

// Verdict judges the answer. unready is why the daemon is not ready, "" if it is.
func (a *Answer) Verdict(unready string) (v Verdict) {
	if unready != "" {
		v.Problems = append(v.Problems, unready)
	}
	a.judgePhase(&v)
	known := a.judgeAlerts(&v)
	if len(a.Stats.Paused["firehose"]) == 0 { // otherwise no source is to be connected
		for _, s := range a.Sources.Items {
			if !s.Running && !s.Direct && !known["source "+s.URL] {
				v.Problems = append(v.Problems, strings.TrimSuffix("not connected: "+s.URL+": "+s.failure(), ": "))
			}
		}
	}
	if d := a.Disk; d != nil && d.Short != "" {
		text := "the disk reaches its reserve " + a.ago(d.Short)
		switch left := parse(d.Short).Sub(a.now()); {
		case left < diskSoon:
			v.Problems = append(v.Problems, text)
		case left < diskLater:
			v.Notes = append(v.Notes, text)
		}
	}
	return v
}

// judgePhase looks at the phase and at what is paused.
func (a *Answer) judgePhase(v *Verdict) {
	if p := a.Stats.Phase; p != nil {
		v.Problems = append(v.Problems, "the daemon is "+a.phase().text+
			": it takes no new data; 'cistern phase resume' ends that")
		return // which pauses everything
	}
	for _, name := range slices.Sorted(maps.Keys(a.Stats.Paused)) {
		text := name + " is paused: " + strings.Join(a.Stats.Paused[name], ", ")
		if name == "firehose" {
			v.Problems = append(v.Problems, text)
		} else {
			v.Notes = append(v.Notes, text)
		}
	}
}

// judgeAlerts looks at what fails. It returns the kinds and subjects of the alerts that are problems.
func (a *Answer) judgeAlerts(v *Verdict) map[string]bool {
	known := map[string]bool{}
	for _, s := range a.Alerts.Items {
		if s.State != "alert" {
			v.Notes = append(v.Notes, fmt.Sprintf("%s %s fails: %s", s.Kind, s.Subject, a.grace(&s)))
			continue
		}
		known[s.Kind+" "+s.Subject] = true
		v.Problems = append(v.Problems, fmt.Sprintf("alert: %s %s since %s: %s", s.Kind, s.Subject,
			a.ago(s.Since), s.Error))
	}
	if v.alerts = max(0, a.Alerting-len(known)); v.alerts > 0 {
		v.Problems = append(v.Problems, console.Count(int64(v.alerts), "alert")+" more: see 'cistern alerts'")
	}
	return known
}

// grace says when a subject that fails will be an alert.
func (a *Answer) grace(s *Alert) string {
	switch due := parse(s.Due); {
	case due.IsZero():
		return "not for long enough for an alert"
	case due.After(a.now()):
		return "an alert " + a.ago(s.Due)
	}
	return fmt.Sprintf("an alert after %s, %d so far", console.Count(s.Least, "failed attempt"),
		s.Attempts)
}

// count returns how many problems there are.
func (v *Verdict) count() int { return len(v.Problems) + max(0, v.alerts-1) }

// words returns the verdict in a few words, and their colour.
func (v *Verdict) words() span {
	notes := console.Count(int64(len(v.Notes)), "note")
	switch {
	case len(v.Problems) == 0 && len(v.Notes) == 0:
		return span{console.Green, "all is well"}
	case len(v.Problems) == 0:
		return span{console.Yellow, "no problem, " + notes}
	case len(v.Notes) == 0:
		return span{console.Red, console.Count(int64(v.count()), "problem")}
	}
	return span{console.Red, console.Count(int64(v.count()), "problem") + ", " + notes}
}

// lines returns the sentences, at most rows of them, problems first.
func (v *Verdict) lines(rows int) (lines []line) {
	for _, p := range v.Problems {
		lines = append(lines, line{{console.Red, "! "}, {"", p}})
	}
	for _, n := range v.Notes {
		lines = append(lines, line{{console.Yellow, "- "}, {"", n}})
	}
	if len(lines) > rows {
		more := fmt.Sprintf("  and %d more", len(lines)-rows)
		lines = append(lines[:rows], line{{console.Red, more}})
	}
	return lines
}

// failure returns why a source is not connected, "" if that is unknown.
func (s *Source) failure() string {
	if s.LastFailure == nil {
		return ""
	}
	return s.LastFailure.Detail
}
