package status

import (
	"strconv"
	"strings"
)

// Counters are counters of a daemon that its overview does not have.
type Counters struct {
	Requests float64 // answered
	Commits  float64 // read from firehoses
	Received float64 // bytes read from hosts and firehoses
	CPU      float64 // seconds of processors that the process has used
	Memory   float64 // bytes that the process has in memory now
	Read     float64 // bytes that the process has read from disks
	Written  float64 // bytes that it has written to disks
}

// ParseCounters reads the counters from the text of GET /metrics. What is missing is 0.
func ParseCounters(text string) (c Counters) {
	for line := range strings.Lines(text) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		family, labels, _ := strings.Cut(name, "{")
		var sum *float64
		switch family {
		case "cistern_api_requests_total":
			sum = &c.Requests
		case "cistern_ingest_messages_total":
			if !strings.Contains(labels, `kind="commit"`) {
				continue
			}
			sum = &c.Commits
		case "cistern_ingest_received_bytes_total", "cistern_backfill_received_bytes_total":
			sum = &c.Received
		case "process_cpu_seconds_total":
			sum = &c.CPU
		case "process_resident_memory_bytes":
			sum = &c.Memory
		case "cistern_process_disk_read_bytes_total":
			sum = &c.Read
		case "cistern_process_disk_written_bytes_total":
			sum = &c.Written
		default:
			continue
		}
		if value, err := strconv.ParseFloat(number, 64); err == nil {
			*sum += value
		}
	}
	return c
}

// Sample is what a daemon answered at one time.
type Sample struct {
	*Answer
	Counters
}

// Rates are changes a second between two samples.
type Rates struct {
	Records  float64 `json:"records"` // stored; negative while more are deleted than arrive
	Commits  float64 `json:"commits"`
	Requests float64 `json:"requests"`
	Received float64 `json:"received_bytes"`
	CPU      float64 `json:"cpu_seconds"` // processors in use
	Read     float64 `json:"disk_read_bytes"`
	Written  float64 `json:"disk_written_bytes"`
}

// RatesSince returns the rates since an earlier sample. They are 0 if that is nil, not earlier, or
// of another run of the daemon.
func (s *Sample) RatesSince(before *Sample) (r Rates) {
	if before == nil || before.Started != s.Started {
		return r
	}
	seconds := s.now().Sub(before.now()).Seconds()
	if seconds <= 0 {
		return r
	}
	return Rates{
		Records:  float64(s.Stats.Counts["records"]-before.Stats.Counts["records"]) / seconds,
		Commits:  (s.Commits - before.Commits) / seconds,
		Requests: (s.Requests - before.Requests) / seconds,
		Received: (s.Received - before.Received) / seconds,
		CPU:      (s.CPU - before.CPU) / seconds,
		Read:     (s.Read - before.Read) / seconds,
		Written:  (s.Written - before.Written) / seconds,
	}
}
