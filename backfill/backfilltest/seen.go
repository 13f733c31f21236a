package backfilltest

import (
	"bytes"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Buffer is a log that is read while it is written.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer // mu guards
}

// Write appends to the log.
func (s *Buffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// String returns the log.
func (s *Buffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Counted returns the sum of a counter, or of its series with a label value.
func Counted(t testing.TB, reg *prometheus.Registry, name, value string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() != "cistern_backfill_"+name {
				continue
			}
			if value == "" || m.GetLabel()[0].GetValue() == value {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}
