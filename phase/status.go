package phase

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Status describes the phase of the daemon.
type Status struct {
	Phase  Phase // that it is in
	Wanted Phase
	// Reached means that Wanted is reached: in Draining, all that had begun has ended.
	Reached bool
	Since   time.Time // when Phase began
	Until   time.Time // when the daemon becomes active by itself; zero: not by itself
	// Busy are the parts that still work on what they began, as sentences. Only a Keeper that drains
	// has any.
	Busy []string
	// Reason is why the daemon is suspended until it ends; "" if it is not.
	Reason string
	// Failure is why the disk could not be shut at the last try, "" if it could.
	Failure string
}

// register adds the metric of the phase.
func (k *Keeper) register(r prometheus.Registerer) error {
	return r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "cistern_phase",
		Help: "Phase of the daemon: 0 active, 1 draining, 2 suspended."},
		func() float64 { return float64(k.Status().Phase) }))
}
