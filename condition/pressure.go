package condition

import (
	"errors"
	"fmt"
	"time"
)

// Resource is what tasks of the machine compete for.
type Resource string

const (
	CPU    Resource = "cpu"
	Memory Resource = "memory"
	IO     Resource = "io"
)

// Resources are all of them.
var Resources = [...]Resource{CPU, Memory, IO}

// Pressure waits while some task of the machine was kept waiting for a resource for more than limit
// percent of the last ten seconds. It ends at three quarters of the limit.
//
// A kernel without these figures has others. The load must then not exceed the processors by more
// than limit percent, and limit percent of the memory must be available. There are no others of io.
func Pressure(p Probe, of Resource, limit float64) Condition {
	return Condition{Name: string(of), Read: func(time.Time) (Reading, error) {
		stalled, err := p.Stalled(of)
		if err == nil {
			return Reading{Level: atMost(stalled, limit, limit-limit/slack), Text: fmt.Sprintf(
				"tasks wait %.1f %% of the time, %.1f %% allowed", stalled, limit)}, nil
		}
		r, second := fallback(p, of, limit)
		if second != nil {
			return r, errors.Join(err, second)
		}
		return r, nil
	}}
}

func fallback(p Probe, of Resource, limit float64) (r Reading, err error) {
	var measure float64
	switch of {
	case CPU:
		measure, err = p.Overload()
		r = Reading{Level: atMost(measure, limit, limit-limit/slack), Text: fmt.Sprintf(
			"the load exceeds the processors by %.1f %%, %.1f %% allowed", measure, limit)}
	case Memory:
		measure, err = p.Available()
		r = Reading{Level: atLeast(measure, limit, limit+limit/slack), Text: fmt.Sprintf(
			"%.1f %% of the memory is available, %.1f %% needed", measure, limit)}
	default:
		err = errors.New("nothing else tells")
	}
	return r, err
}
