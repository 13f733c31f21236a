package hosts

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	parkings prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, t *Table) (*metrics, error) {
	m := &metrics{parkings: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "cistern_backfill_parkings_total",
		Help: "Times that a host was not asked for a while, because it answered 429 or failed.",
	})}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: name, Help: help,
		}, f)
	}
	for _, c := range []prometheus.Collector{
		m.parkings,
		gauge("cistern_backfill_known_hosts", "Hosts with an entry in memory.", t.known),
		gauge("cistern_backfill_parked_hosts",
			"Hosts that are not asked for a while, because they answered 429 or failed.", t.parked),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (t *Table) known() float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return float64(len(t.hosts))
}

func (t *Table) parked() (n float64) {
	now := t.opts.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.hosts {
		if h.Parked(now) {
			n++
		}
	}
	return n
}
