package alert

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// State is the state of a subject.
type State string

const (
	OK    State = "ok"
	Grace State = "grace" // it fails, and may recover by itself
	Alert State = "alert"
)

// Failure is a subject that fails at the moment.
type Failure struct {
	Kind Kind
	Name string // unique among the subjects of the kind
	// Since is when it began to fail. Zero: when the Board saw it first.
	Since time.Time
	// Attempts that failed in a row.
	Attempts int
	// Error is the last one, for people.
	Error string
	// Final means that it will not recover by itself: it alerts at once.
	Final bool
}

// Subject is a subject that fails, or that has ceased to.
type Subject struct {
	Kind     Kind
	Name     string
	Now      State
	Since    time.Time // when it began to fail; for OK, when it ceased to
	Alerted  time.Time // when it turned to Alert; zero if it did not
	Attempts int
	Error    string
	// Due is the earliest time at which a subject in Grace alerts, and Least the attempts that must
	// have failed by then. Due is zero in other states.
	Due   time.Time
	Least int
}

type subjectKey struct {
	kind Kind
	name string
}

// Board follows the subjects that fail. It is a plain value without a clock. Make one by NewBoard.
type Board struct {
	policies map[Kind]Policy
	subjects map[subjectKey]*Subject // that fail
	dropped  int                     // failures of the last look without a place
}

// NewBoard returns a Board with a grace for each kind. A kind without one alerts at once.
func NewBoard(policies map[Kind]Policy) *Board {
	return &Board{policies: policies, subjects: map[subjectKey]*Subject{}}
}

// Look takes all failures of this moment, and returns the subjects that have turned to Alert, or
// from Alert to OK. Whatever is not among the failures is ok. A subject must not occur twice.
func (b *Board) Look(now time.Time, failures []Failure) (turned []Subject) {
	failing := make(map[subjectKey]bool, len(failures))
	for i := range failures {
		f := &failures[i]
		f.Name, f.Error = clip(f.Name, nameBytesMax), clip(f.Error, errorBytesMax)
		failing[subjectKey{f.Kind, f.Name}] = true
	}
	for key, s := range b.subjects {
		if failing[key] {
			continue
		}
		delete(b.subjects, key)
		if s.Now == Alert {
			s.Now, s.Since = OK, now
			turned = append(turned, *s)
		}
	}
	b.dropped = 0
	for _, f := range failures {
		if s := b.note(now, f); s != nil {
			turned = append(turned, *s)
		}
	}
	slices.SortFunc(turned, compare)
	return turned
}

// note takes one failure, and returns its subject if that turns to Alert.
func (b *Board) note(now time.Time, f Failure) *Subject {
	key := subjectKey{f.Kind, f.Name}
	s := b.subjects[key]
	if s == nil {
		if len(b.subjects) >= subjectsMax && !b.evict(f) {
			b.dropped++
			return nil
		}
		s = &Subject{Kind: f.Kind, Name: f.Name, Now: Grace, Since: now}
		b.subjects[key] = s
	}
	// A time in the future is a clock that was set back.
	if !f.Since.IsZero() && f.Since.Before(s.Since) {
		s.Since = f.Since
	}
	if s.Since.After(now) {
		s.Since = now
	}
	s.Attempts, s.Error = f.Attempts, f.Error
	p := b.policies[f.Kind]
	s.Least = p.Attempts
	if s.Now == Grace {
		s.Due = s.Since.Add(p.After)
	}
	if s.Now == Alert || !f.Final && (now.Sub(s.Since) < p.After || f.Attempts < p.Attempts) {
		return nil
	}
	s.Now, s.Alerted, s.Due = Alert, now, time.Time{}
	return s
}

// evict makes room for a failure that is final, in place of a subject in grace.
func (b *Board) evict(f Failure) bool {
	if !f.Final {
		return false
	}
	for key, s := range b.subjects {
		if s.Now == Grace {
			delete(b.subjects, key)
			return true
		}
	}
	return false
}

// Subjects returns the subjects that fail, in order of kind and name.
func (b *Board) Subjects() []Subject {
	all := make([]Subject, 0, len(b.subjects))
	for _, s := range b.subjects {
		all = append(all, *s)
	}
	slices.SortFunc(all, compare)
	return all
}

// Dropped returns how many failures the last look left out because the Board is full.
func (b *Board) Dropped() int { return b.dropped }

func compare(a, b Subject) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
}

// clip bounds a text and makes it fit for rows and logs.
func clip(text string, most int) string {
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '\uFFFD' {
			return -1
		}
		return c
	}, text)
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}
