package verdict

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cistern/alert"
	"cistern/console"

	"github.com/dustin/go-humanize"
)

// Verdict is whether a daemon needs an operator, as answers contain it. This is the rule:
//
//	problem   the daemon is not ready; an alert; a firehose that is down, unless Cistern added it;
//	          the daemon drains or is suspended; the firehose is paused; the disk reaches its
//	          reserve within diskSoon, and no alert says that it has
//	note      backfill or the crawler is paused; a subject fails in the grace of its alert; the disk
//	          reaches its reserve within diskLater; the last 'cistern backup' to a destination
//	          failed; nothing is tracked, and nothing can be found; an option of the filter is
//	          ignored; the daemon only answers (--read-only)
//	all well  neither
type Verdict struct {
	Level string `json:"level"` // Bad with a problem, Warn with notes only, else Good
	Text  string `json:"text"`  // the verdict in a few words
	Ready bool   `json:"ready"`
	Count int    `json:"count"` // of problems, also those that Problems leaves out
	// Problems need an operator, a sentence each.
	Problems []string `json:"problems"`
	// Notes say what the daemon does not do at the moment, or what may become a problem.
	Notes []string `json:"notes"`
}

// The levels of verdicts.
const (
	Good = "good"
	Warn = "warn"
	Bad  = "bad"
)

const (
	// diskSoon is how soon the disk reaches its reserve where that is a problem, and diskLater where
	// it is a note.
	diskSoon  = 24 * time.Hour
	diskLater = 7 * 24 * time.Hour
	// sentencesMax bounds the problems and the notes of a verdict: a screen shows fewer.
	sentencesMax = 50
)

// Of returns the verdict on facts.
func Of(f Facts) Verdict {
	v := Verdict{Ready: f.Unready == "", Problems: []string{}, Notes: []string{}}
	if f.Unready != "" {
		v.problem("%s", f.Unready)
	}
	v.judgePhase(&f)
	v.judgeAlerts(&f)
	v.judgeSources(&f)
	v.judgeDisk(&f)
	v.judgeBackups(&f)
	v.judgeFilter(&f)
	v.Count = len(v.Problems)
	v.Level, v.Text = words(v.Count, len(v.Notes))
	v.Problems, v.Notes = first(v.Problems, "problem"), first(v.Notes, "note")
	return v
}

func (v *Verdict) problem(format string, args ...any) {
	v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
}

func (v *Verdict) note(format string, args ...any) {
	v.Notes = append(v.Notes, fmt.Sprintf(format, args...))
}

// judgePhase looks at the phase and at what is paused.
func (v *Verdict) judgePhase(f *Facts) {
	if f.Phase != nil && f.Phase.Reason != "" {
		v.note("the daemon is %s until it ends: %s", f.Phase.text(), f.Phase.Reason)
		return
	}
	if f.Phase != nil {
		v.problem("the daemon is %s: it takes no new data; 'cistern phase resume' ends that",
			f.Phase.text())
		return // which pauses everything
	}
	for _, name := range slices.Sorted(maps.Keys(f.Paused)) {
		add := v.note
		if name == "firehose" {
			add = v.problem
		}
		add("%s is paused: %s", name, strings.Join(f.Paused[name], ", "))
	}
}

// text returns the phase, with what it waits for.
func (p *Phase) text() string {
	switch {
	case p.Failure != "":
		return p.Name + ": " + p.Failure
	case !p.Reached:
		return p.Name + ", on the way to " + p.Wanted
	}
	return p.Name
}

// judgeAlerts looks at the subjects that fail.
func (v *Verdict) judgeAlerts(f *Facts) {
	for _, s := range f.Alerts {
		if s.Now == alert.Alert {
			v.problem("alert: %s %s since %s: %s", s.Kind, s.Name, ago(s.Since, f.Now), s.Error)
		} else {
			v.note("%s %s fails: %s", s.Kind, s.Name, grace(&s, f.Now))
		}
	}
}

// grace says when a subject that fails will be an alert.
func grace(s *alert.Subject, now time.Time) string {
	switch {
	case s.Due.IsZero():
		return "not for long enough for an alert"
	case s.Due.After(now):
		return "an alert " + ago(s.Due, now)
	}
	return fmt.Sprintf("an alert after %s, %d so far",
		console.Count(int64(s.Least), "failed attempt"), s.Attempts)
}

// judgeSources looks for firehoses that are not connected and have no alert that says so.
func (v *Verdict) judgeSources(f *Facts) {
	if len(f.Paused["firehose"]) > 0 {
		return // no source is to be connected
	}
	known := map[string]bool{}
	for _, s := range f.Alerts {
		known[s.Name] = known[s.Name] || s.Kind == alert.Source && s.Now == alert.Alert
	}
	for _, s := range f.Sources {
		if !s.Running && !s.Direct && !known[s.URL] {
			v.problem("%s", strings.TrimSuffix("not connected: "+s.URL+": "+s.Failure, ": "))
		}
	}
}

// judgeDisk looks at when the disk will be short. An alert says that it is.
func (v *Verdict) judgeDisk(f *Facts) {
	isShort := func(s alert.Subject) bool { return s.Kind == alert.Disk }
	if f.DiskShort.IsZero() || slices.ContainsFunc(f.Alerts, isShort) {
		return
	}
	const text = "the disk reaches its reserve %s"
	switch left := f.DiskShort.Sub(f.Now); {
	case left < diskSoon:
		v.problem(text, ago(f.DiskShort, f.Now))
	case left < diskLater:
		v.note(text, ago(f.DiskShort, f.Now))
	}
}

// judgeBackups looks at backups by commands. Those of the daemon are alerts.
func (v *Verdict) judgeBackups(f *Facts) {
	for _, b := range f.Backups {
		v.note("the last backup by command to %s failed %s: %s", b.Destination, ago(b.Ended, f.Now),
			b.Error)
	}
}

// judgeFilter looks for a filter by which nothing is copied, and for options that it ignores.
func (v *Verdict) judgeFilter(f *Facts) {
	if t := f.Tracking; t != nil && t.Repos == 0 && !t.Finds {
		if t.Full {
			v.note("nothing is tracked: name a source by --relay, --pds or --crawl, or run " +
				"'cistern repo add DID'")
		} else {
			v.note("nothing is tracked: run 'cistern repo add DID', or set mode full (PATCH " +
				"/filter); mode filter finds nothing without --signal or --crawl")
		}
	}
	for _, o := range f.Ignored {
		v.note("%s is ignored: the store keeps %s, which PATCH /filter changes", o.Option, o.Held)
	}
}

// words returns the level and the text of a verdict.
func words(problems, notes int) (level, text string) {
	noted := console.Count(int64(notes), "note")
	switch {
	case problems == 0 && notes == 0:
		return Good, "all is well"
	case problems == 0:
		return Warn, "no problem, " + noted
	case notes == 0:
		return Bad, console.Count(int64(problems), "problem")
	}
	return Bad, console.Count(int64(problems), "problem") + ", " + noted
}

// first returns at most sentencesMax sentences, of which the last says how many are left out.
func first(all []string, noun string) []string {
	if len(all) <= sentencesMax {
		return all
	}
	left := console.Count(int64(len(all)-sentencesMax+1), noun)
	return append(all[:sentencesMax-1], left+" more: see 'cistern alerts'")
}

// ago says how far a time is from now.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return humanize.RelTime(t, now, "ago", "from now")
}
