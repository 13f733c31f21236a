package backup_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/backup"
	"cistern/objects"

	"github.com/prometheus/client_golang/prometheus"
)

// scheduled runs backups every hour for some time, and returns its metrics.
func scheduled(t *testing.T, m *made, d objects.Destination, long time.Duration) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewRegistry()
	open := 0
	s, err := backup.NewSchedule(backup.ScheduleOptions{Destination: d, Every: time.Hour, Keep: 3, Epoch: m.src.Epoch,
		Registerer: reg, Checkpoint: func(context.Context) (backup.Source, func() error, error) {
			m.next()
			open++
			return m.src, func() error { open--; return nil }, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	if open != 0 {
		t.Errorf("%d checkpoints were not released", open)
	}
	return reg
}

// created returns the times of the generations, after a time.
func created(t *testing.T, d objects.Destination, after time.Time) (all []time.Duration) {
	t.Helper()
	list, err := backup.List(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range list {
		all = append(all, g.Created.Sub(after).Round(time.Minute))
	}
	return all
}

// TestSchedule: one backup an hour, also over a restart, and old ones are deleted.
func TestSchedule(t *testing.T) {
	t.Parallel()
	at, rng := newDirectory(t), seeded(t)
	m := newMade(t, rng)
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		scheduled(t, m, at, 210*time.Minute)
		reg := scheduled(t, m, at, time.Hour) // until 4:30
		want := []time.Duration{2 * time.Hour, 3 * time.Hour, 4 * time.Hour}
		if got := created(t, at, begun); len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
			t.Errorf("backups at %v, want %v", got, want)
		}
		stamp := float64(begun.Add(4 * time.Hour).Unix())
		if got := value(t, reg, "cistern_backup_last_success_timestamp_seconds"); got != stamp {
			t.Errorf("last success %f, want %f", got, stamp)
		}
		if got := value(t, reg, "cistern_backup_uploaded_bytes_total"); got <= 0 {
			t.Errorf("%f bytes uploaded", got)
		}
	})
}

// TestScheduleRetries: a failure is counted and tried again soon.
func TestScheduleRetries(t *testing.T) {
	t.Parallel()
	at, rng := newDirectory(t), seeded(t)
	m := newMade(t, rng)
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		broken := &failing{Destination: at, until: begun.Add(10 * time.Minute)}
		reg := scheduled(t, m, broken, 50*time.Minute)
		got := created(t, at, begun)
		failures := value(t, reg, "cistern_backup_failures_total")
		if len(got) != 1 || got[0] < 10*time.Minute || got[0] > 25*time.Minute || failures < 3 || failures > 6 {
			t.Errorf("backups at %v after %f failures", got, failures)
		}
	})
}

// failing is a destination that stores no table until some time.
type failing struct {
	objects.Destination
	until time.Time
}

func (d *failing) Put(ctx context.Context, name string, c objects.Content) error {
	if strings.HasPrefix(name, "tables/") && time.Now().Before(d.until) {
		return errTorn
	}
	return d.Destination.Put(ctx, name, c)
}

func value(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
