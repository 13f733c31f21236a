package main

import (
	"math"

	"cistern/api/admin"
	"cistern/chart"

	"github.com/prometheus/procfs"
)

// figures are what the charts of the dashboard show, in the order of chartSeries.
type figures struct {
	records, events, live, received float64
	lag, pending, resync            float64
	used, free, cpu, memory         float64
}

func chartSeries() []chart.Series {
	return []chart.Series{
		{Name: "records", Counter: true},  // stored
		{Name: "events", Counter: true},   // written to the log
		{Name: "live", Counter: true},     // messages read from firehoses
		{Name: "received", Counter: true}, // bytes read from hosts and firehoses
		{Name: "lag", Peak: true},         // of the connected source that is furthest behind, in seconds
		{Name: "pending"},                 // repositories that wait for a fetch
		{Name: "resync"},                  // repositories that wait after a failure
		{Name: "disk_used"},               // bytes that the store takes
		{Name: admin.FreeSeries},          // bytes
		{Name: "cpu", Counter: true},      // seconds of CPU: the rate is in processors
		{Name: "memory"},                  // resident bytes
	}
}

func (f *figures) values() []float64 {
	return []float64{f.records, f.events, f.live, f.received, f.lag, f.pending, f.resync, f.used,
		f.free, f.cpu, f.memory}
}

// newCharts makes the recorder of the charts.
func newCharts(d *daemon) (err error) {
	o := chart.Options{Series: chartSeries(), Read: func() []float64 {
		f := figuresOf(d)
		return f.values()
	}}
	if d.tune.charts != nil {
		d.tune.charts(&o)
	}
	d.charts, err = chart.New(o)
	return err
}

// figuresOf reads counters that are kept anyway. What cannot be read is NaN.
func figuresOf(d *daemon) figures {
	unknown := math.NaN()
	counts := d.store.Counts()
	f := figures{records: float64(counts["records"]), events: float64(d.store.Head()),
		received: float64(d.meter.Today(d.now()).Bytes),
		pending:  float64(counts["pending"]), resync: float64(counts["resync"]),
		lag: unknown, used: unknown, free: unknown, cpu: unknown, memory: unknown}
	for _, s := range d.sources.Status() {
		f.live += float64(s.Events)
		f.received += float64(s.Bytes)
		if lag := s.Lag.Seconds(); s.Running && !(f.lag >= lag) { // f.lag may be NaN
			f.lag = lag
		}
	}
	if sizes, err := d.api.Sizes(); err == nil {
		f.used = float64(sizes["total"])
	}
	if disk, err := freeDisk(d); err == nil {
		f.free = float64(disk.Free)
	}
	if p, err := procfs.Self(); err == nil {
		if stat, err := p.Stat(); err == nil {
			f.cpu, f.memory = stat.CPUTime(), float64(stat.ResidentMemory())
		}
	}
	return f
}

// freeDisk returns the disk of the store, with the part that must stay free.
func freeDisk(d *daemon) (admin.Disk, error) {
	free, total, err := d.tune.machine().Disk(d.cfg.Data)
	return admin.Disk{Free: free, Total: total, Reserve: d.cfg.Reserve.of(total)}, err
}
