package alert_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/alert"

	"pgregory.net/rapid"
)

// TestGraces: time and attempts are both demanded, a break begins a new grace, and what is final
// alerts at once.
func TestGraces(t *testing.T) {
	t.Parallel()
	begun := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		name   string
		policy alert.Policy
		steps  []alert.Failure // one a minute; without a name: nothing fails
		want   string          // the state after each step: - g a
	}{
		{"both", alert.Policy{After: 2 * time.Minute, Attempts: 3}, []alert.Failure{{Name: "x", Attempts: 1}, {Name: "x", Attempts: 9}, {Name: "x", Attempts: 9}}, "gga"},
		{"too few attempts", alert.Policy{After: time.Minute, Attempts: 3}, []alert.Failure{{Name: "x", Attempts: 1}, {Name: "x", Attempts: 1}, {Name: "x", Attempts: 2}, {Name: "x", Attempts: 3}}, "ggga"},
		{"a break", alert.Policy{After: time.Minute}, []alert.Failure{{Name: "x"}, {}, {Name: "x"}, {Name: "x"}, {}, {Name: "x"}}, "g-ga-g"},
		{"states since when", alert.Policy{After: time.Hour}, []alert.Failure{{Name: "x"}, {Name: "x", Since: begun.Add(-time.Hour)}}, "ga"},
		{"a time in the future", alert.Policy{After: time.Minute}, []alert.Failure{{Name: "x", Since: begun.Add(time.Hour)}, {Name: "x", Since: begun.Add(time.Hour)}}, "ga"},
		{"final", alert.Policy{After: time.Hour, Attempts: 100}, []alert.Failure{{Name: "x", Final: true}, {Name: "x"}}, "aa"},
		{"no grace", alert.Policy{}, []alert.Failure{{Name: "x"}, {}}, "a-"},
	} {
		b := alert.NewBoard(map[alert.Kind]alert.Policy{alert.Source: c.policy})
		got := ""
		for i, f := range c.steps {
			var all []alert.Failure
			if f.Kind = alert.Source; f.Name != "" {
				all = append(all, f)
			}
			turned := b.Look(begun.Add(time.Duration(i)*time.Minute), all)
			state := "-"
			for _, s := range b.Subjects() {
				state = string(s.Now[:1])
			}
			if last := strings.HasSuffix(got, "a"); (len(turned) == 1) != (last != (state == "a")) {
				t.Errorf("%s, step %d: %v turned", c.name, i, turned)
			}
			got += state
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestDue: a subject in grace has the earliest time of its alert and the attempts that it takes.
func TestDue(t *testing.T) {
	t.Parallel()
	begun := time.Unix(1_700_000_000, 0)
	b := alert.NewBoard(map[alert.Kind]alert.Policy{alert.Source: {After: time.Hour, Attempts: 3}})
	f := []alert.Failure{{Kind: alert.Source, Name: "x", Attempts: 3}}
	b.Look(begun, f)
	if s := b.Subjects()[0]; !s.Due.Equal(begun.Add(time.Hour)) || s.Least != 3 {
		t.Errorf("in grace: %+v", s)
	}
	f[0].Since = begun.Add(-time.Minute)
	b.Look(begun.Add(time.Second), f)
	if s := b.Subjects()[0]; !s.Due.Equal(begun.Add(59 * time.Minute)) {
		t.Errorf("it began earlier: %+v", s)
	}
	b.Look(begun.Add(time.Hour), f)
	if s := b.Subjects()[0]; s.Now != alert.Alert || !s.Due.IsZero() {
		t.Errorf("an alert: %+v", s)
	}
}

// TestBoardIsBounded: what fails beyond the bound is counted, and what is final finds a place.
func TestBoardIsBounded(t *testing.T) {
	t.Parallel()
	b := alert.NewBoard(alert.DefaultPolicies())
	var all []alert.Failure
	for i := range alert.SubjectsMax + 5 {
		all = append(all, alert.Failure{Kind: alert.Source, Name: fmt.Sprint(i), Error: strings.Repeat("é", 1000)})
	}
	all = append(all, alert.Failure{Kind: alert.Disk, Name: "/data", Final: true})
	turned := b.Look(time.Unix(0, 0), all)
	if len(turned) != 1 || turned[0].Kind != alert.Disk || len(b.Subjects()) != alert.SubjectsMax || b.Dropped() != 5 {
		t.Errorf("%v turned; %d subjects, %d dropped", turned, len(b.Subjects()), b.Dropped())
	}
	if n := len(b.Subjects()[1].Error); n > 256 {
		t.Errorf("an error of %d bytes", n)
	}
}

// history is how one subject fails in a random world.
type history struct {
	name  string
	fails []bool // at each look
}

// TestRandomHistories: a failure that is single, or whose runs are shorter than the grace, never
// alerts, among thousands of others; one that lasts always does, exactly when its grace is over, and
// once; and every alert that ends is told.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		policy := alert.Policy{After: time.Duration(rapid.IntRange(0, 30).Draw(t, "minutes")) * time.Minute, Attempts: rapid.IntRange(0, 6).Draw(t, "attempts")}
		b := alert.NewBoard(map[alert.Kind]alert.Policy{alert.Source: policy})
		looks := rapid.IntRange(10, 60).Draw(t, "looks")
		worlds := make([]history, rapid.IntRange(1, 12).Draw(t, "subjects"))
		for i := range worlds {
			h := &worlds[i]
			h.name = fmt.Sprintf("s%02d", i)
			h.fails = make([]bool, looks)
			switch rapid.IntRange(0, 2).Draw(t, "history") {
			case 0: // one failure
				h.fails[rapid.IntRange(0, looks-1).Draw(t, "at")] = true
			case 1: // lasts from some look on
				for at := rapid.IntRange(0, looks-1).Draw(t, "from"); at < looks; at++ {
					h.fails[at] = true
				}
			default:
				for at := range h.fails {
					h.fails[at] = rapid.IntRange(0, 5).Draw(t, "fails") > 0
				}
			}
		}
		noise := rapid.IntRange(0, 500).Draw(t, "noise") // others that fail once each, at each look
		now := time.Unix(1_700_000_000, 0)
		since, runs, alerting := map[string]time.Time{}, map[string]int{}, map[string]bool{}
		for look := range looks {
			now = now.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, "step")) * time.Second)
			var failures []alert.Failure
			var want []string
			for _, h := range worlds {
				if !h.fails[look] {
					if alerting[h.name] {
						want = append(want, h.name+" ok")
					}
					delete(since, h.name)
					runs[h.name], alerting[h.name] = 0, false
					continue
				}
				if runs[h.name]++; runs[h.name] == 1 {
					since[h.name] = now
				}
				failures = append(failures, alert.Failure{Kind: alert.Source, Name: h.name, Attempts: runs[h.name], Error: "no"})
				if !alerting[h.name] && now.Sub(since[h.name]) >= policy.After && runs[h.name] >= policy.Attempts {
					alerting[h.name] = true
					want = append(want, h.name+" alert")
				}
			}
			for i := range noise {
				f := alert.Failure{Kind: alert.Source, Name: fmt.Sprintf("z%d-%d", look, i), Attempts: 1}
				if policy.After > 0 || policy.Attempts > 1 { // else a single one is to alert
					failures = append(failures, f)
				}
			}
			var got []string
			for _, s := range b.Look(now, failures) {
				got = append(got, s.Name+" "+string(s.Now))
			}
			if slices.Sort(want); !slices.Equal(got, want) {
				t.Fatalf("look %d, policy %+v: %v turned, want %v", look, policy, got, want)
			}
			for _, s := range b.Subjects() {
				if (s.Now == alert.Alert) != alerting[s.Name] || strings.HasPrefix(s.Name, "s") && !s.Since.Equal(since[s.Name]) {
					t.Fatalf("look %d: %+v, alerting %t since %s", look, s, alerting[s.Name], since[s.Name])
				}
			}
		}
	})
}
