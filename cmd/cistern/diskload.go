package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/procfs"
)

// diskLoad returns counters of what this process reads from disks and writes to them. What the page
// cache answers is not counted. Where the system does not tell, they are 0.
func diskLoad() []prometheus.Collector {
	io := func() (io procfs.ProcIO) {
		if p, err := procfs.Self(); err == nil {
			io, _ = p.IO() // its zero value says that nothing is known
		}
		return io
	}
	return []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "cistern_process_disk_read_bytes_total",
			Help: "Bytes that the process has read from disks."},
			func() float64 { return float64(io().ReadBytes) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "cistern_process_disk_written_bytes_total",
			Help: "Bytes that the process has written to disks."},
			func() float64 { return float64(io().WriteBytes) }),
	}
}
