package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cistern/maintain"
)

// schedulable are the operations that --schedule may name.
var schedulable = []string{"compact", "export", "gc", "offload", "prune", "reconcile", "verify"}

// expensive are the operations whose scheduled runs begin in the quiet hours.
var expensive = []string{"compact", "reconcile", "verify"}

// lasting are the operations that cannot be switched off: the log and the disk would fill. They run
// at least once in lastingEveryMax.
var lasting = []string{"gc", "prune"}

const lastingEveryMax = time.Hour

// schedule is a value of --schedule.
type schedule struct {
	operation string
	every     time.Duration // 0: on request only
}

// parseSchedule reads the period of an operation.
func parseSchedule(s string) (schedule, error) {
	name, period, ok := strings.Cut(s, "=")
	switch {
	case name == "backup":
		return schedule{}, errors.New("backups run every --backup-every")
	case !ok || !slices.Contains(schedulable, name):
		return schedule{}, fmt.Errorf("want OPERATION=PERIOD, such as verify=7d, or OPERATION=off; the "+
			"operations are %s", strings.Join(schedulable, ", "))
	}
	last := slices.Contains(lasting, name)
	if period == "off" && !last {
		return schedule{operation: name}, nil
	}
	every, err := parsePeriod(period)
	switch {
	case last && (err != nil || every > lastingEveryMax):
		return schedule{}, fmt.Errorf("%s cannot be switched off: want a duration from 1m to %s", name,
			lastingEveryMax)
	case err != nil:
		return schedule{}, fmt.Errorf("%w, or off", err)
	}
	return schedule{name, every}, nil
}

// schedules reports whether --schedule names an operation.
func schedules(all []schedule, operation string) bool {
	return slices.ContainsFunc(all, func(s schedule) bool { return s.operation == operation })
}

// twice returns the operation that --schedule names twice, "" if it names each once.
func twice(all []schedule) string {
	for i, s := range all {
		if schedules(all[:i], s.operation) {
			return s.operation
		}
	}
	return ""
}

// scheduled gives operations the periods and the hours that an operator chose.
func scheduled(all []maintain.Operation, periods []schedule,
	quiet maintain.Hours) []maintain.Operation {
	for i := range all {
		op := &all[i]
		for _, s := range periods {
			if s.operation == op.Name {
				op.Every = s.every
			}
		}
		if slices.Contains(expensive, op.Name) {
			op.Hours = quiet
		}
	}
	return all
}
