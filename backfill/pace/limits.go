package pace

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// Limits bound what one host is asked.
type Limits struct {
	Min, Max  int // bounds of the adaptive number of requests at a time
	PerSecond int // requests that begin in any second; 0: no limit, as with the next two
	PerHour   int
	PerDay    int
}

// Override replaces parts of the limits of a host; a part that is 0 stays as it is.
type Override struct {
	Concurrency int `json:"concurrency,omitempty"` // requests at a time, at most
	PerSecond   int `json:"per_second,omitempty"`
	PerHour     int `json:"per_hour,omitempty"`
	PerDay      int `json:"per_day,omitempty"`
}

// Bounds of an override. More requests at a time are in effect no limit, and the requests of a
// window must be a measurable time apart.
const (
	concurrencyMax = 1000
	perSecondMax   = 100_000
	perHourMax     = 3600 * perSecondMax
	perDayMax      = 24 * perHourMax
)

// Validate returns an error that names the first invalid part.
func (o Override) Validate() error {
	for _, part := range []struct {
		name     string
		n, limit int
	}{{"concurrency", o.Concurrency, concurrencyMax}, {"per_second", o.PerSecond, perSecondMax},
		{"per_hour", o.PerHour, perHourMax}, {"per_day", o.PerDay, perDayMax}} {
		if part.n < 0 || part.n > part.limit {
			return fmt.Errorf("%s %d is not from 1 to %d", part.name, part.n, part.limit)
		}
	}
	if o == (Override{}) {
		return errors.New("no limit is set: want concurrency, per_second, per_hour or per_day")
	}
	return nil
}

// Over returns the limits with the override applied.
func (o Override) Over(l Limits) Limits {
	if o.Concurrency > 0 {
		l.Max, l.Min = o.Concurrency, min(l.Min, o.Concurrency)
	}
	if o.PerSecond > 0 {
		l.PerSecond = o.PerSecond
	}
	if o.PerHour > 0 {
		l.PerHour = o.PerHour
	}
	if o.PerDay > 0 {
		l.PerDay = o.PerDay
	}
	return l
}

// Rule sets limits or a ban for every host whose name matches a pattern.
type Rule struct {
	Glob     string // for path.Match on host:port; a glob without a port matches every port
	Override Override
	Banned   bool
}

// ParseGlob checks a pattern of host names and returns it in lower case.
func ParseGlob(s string) (string, error) {
	s = strings.ToLower(s)
	if _, err := path.Match(s, ""); err != nil || s == "" || strings.ContainsAny(s, "/@ ") {
		return "", errors.New("want a host or a pattern of hosts, as in pds.example.com or *.example.com")
	}
	return s, nil
}

// OverrideForm is the form that ParseOverride reads.
const OverrideForm = "CONCURRENCY[:PER_SECOND[:PER_HOUR[:PER_DAY]]]"

// ParseOverride reads limits in OverrideForm, such as 2:4; a number left out or 0 sets no limit.
func ParseOverride(s string) (o Override, err error) {
	errForm := errors.New("want " + OverrideForm +
		", such as 2:4 for 2 requests at a time and 4 a second")
	parts := []*int{&o.Concurrency, &o.PerSecond, &o.PerHour, &o.PerDay}
	fields := strings.Split(s, ":")
	if len(fields) > len(parts) {
		return Override{}, fmt.Errorf("%d numbers: %w", len(fields), errForm)
	}
	for i, field := range fields {
		if field = strings.TrimSpace(field); field == "" {
			continue
		}
		if *parts[i], err = strconv.Atoi(field); err != nil {
			return Override{}, fmt.Errorf("%.40q is not a number: %w", field, errForm)
		}
	}
	return o, o.Validate()
}

// String returns the override as ParseOverride reads it, "" for none.
func (o Override) String() string {
	var fields []string
	for _, n := range []int{o.Concurrency, o.PerSecond, o.PerHour, o.PerDay} {
		field := ""
		if n > 0 {
			field = strconv.Itoa(n)
		}
		fields = append(fields, field)
	}
	return strings.TrimRight(strings.Join(fields, ":"), ":")
}

// ParseRule reads a glob, = and limits in OverrideForm.
func ParseRule(s string) (Rule, error) {
	glob, numbers, ok := strings.Cut(s, "=")
	if !ok {
		return Rule{}, errors.New("want HOST=" + OverrideForm + ", such as *.example.com=4:10:5000")
	}
	glob, err := ParseGlob(glob)
	if err != nil {
		return Rule{}, err
	}
	o, err := ParseOverride(numbers)
	return Rule{Glob: glob, Override: o}, err
}

// Rules are in order of precedence. A host is banned if any rule that matches it bans, and has the
// limits of the first rule that matches it and sets some.
type Rules []Rule

// matches reports whether the rule applies to a host. A glob without a port matches every port, so
// that a banned host does not escape by another port.
func (r Rule) matches(host string) bool {
	if ok, err := path.Match(r.Glob, host); err != nil || ok {
		return ok
	}
	name, _, found := strings.Cut(host, ":")
	if !found || strings.Contains(r.Glob, ":") {
		return false
	}
	ok, _ := path.Match(r.Glob, name)
	return ok
}

// Of returns the limits and the ban that the rules set for a host.
func (rules Rules) Of(host string) (o Override, banned bool) {
	limited := false
	for _, r := range rules {
		if !r.matches(host) {
			continue
		}
		banned = banned || r.Banned
		if !limited && r.Override != (Override{}) {
			o, limited = r.Override, true
		}
	}
	return o, banned
}
