package backup_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/backup"
	"cistern/maintain"
	"cistern/objects"

	"github.com/prometheus/client_golang/prometheus"
)

// rows keeps the rows of operations in memory.
type rows map[string]maintain.Row

func (r rows) Load() ([]maintain.Row, error) { return slices.Collect(maps.Values(r)), nil }

func (r rows) Save(row maintain.Row) error { r[row.Name] = row; return nil }

// scheduled runs a daemon for some time that makes a backup every hour, and returns its metrics.
func scheduled(t *testing.T, m *made, d objects.Destination, keep rows, long time.Duration) *prometheus.Registry {
	t.Helper()
	reg := prometheus.NewRegistry()
	open := 0
	b, err := backup.NewMaker(backup.MakerOptions{Destination: d, Keep: 3, Epoch: m.src.Epoch,
		Registerer: reg, Checkpoint: func(context.Context) (backup.Source, func() error, error) {
			m.next()
			open++
			return m.src, func() error { open--; return nil }, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := maintain.New(maintain.Options{Keeper: keep, Operations: []maintain.Operation{{Name: "backup", Every: time.Hour, Last: b.Last,
		Run: func(ctx context.Context, _ *maintain.Progress) error { return b.Make(ctx, nil) }}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	if err := c.Run(ctx); err != nil {
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
		keep := rows{}
		scheduled(t, m, at, keep, 210*time.Minute)
		first := scheduled(t, m, at, keep, 10*time.Minute)
		if got := value(t, first, "cistern_backup_last_success_timestamp_seconds"); got != float64(begun.Add(3*time.Hour).Unix()) {
			t.Errorf("after a restart, the last success is %f", got)
		}
		reg := scheduled(t, m, at, keep, 50*time.Minute) // until 4:30
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
		reg := scheduled(t, m, broken, rows{}, 50*time.Minute)
		got := created(t, at, begun)
		failures := value(t, reg, "cistern_backup_failures_total")
		if len(got) != 1 || got[0] < 10*time.Minute || got[0] > 25*time.Minute || failures < 3 || failures > 6 {
			t.Errorf("backups at %v after %f failures", got, failures)
		}
	})
}

// TestMakeStopped: a backup that is told to stop before it is complete returns the error of its
// context, is no failure, and leaves no lock; one that is complete by then succeeded.
func TestMakeStopped(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		at   string // the stop comes when an object with this prefix is stored
		want error
	}{{"tables/", context.Canceled}, {"generations/", nil}} {
		at, m, reg := newDirectory(t), newMade(t, seeded(t)), prometheus.NewRegistry()
		m.next()
		ctx, cancel := context.WithCancel(t.Context())
		d := &stopping{Destination: at, prefix: row.at, stop: cancel}
		b, err := backup.NewMaker(backup.MakerOptions{Destination: d, Epoch: m.src.Epoch, Registerer: reg, Keep: 1,
			Checkpoint: func(context.Context) (backup.Source, func() error, error) {
				return m.src, func() error { return nil }, nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Make(ctx, nil); !errors.Is(err, row.want) {
			t.Errorf("stopped at %s: %v, want %v", row.at, err, row.want)
		}
		last, err := b.Last(t.Context())
		if err != nil || last.IsZero() != (row.want != nil) {
			t.Errorf("stopped at %s: the last one was at %s, %v", row.at, last, err)
		}
		if n := value(t, reg, "cistern_backup_failures_total"); n != 0 {
			t.Errorf("stopped at %s: %f failures", row.at, n)
		}
		if err := at.List(t.Context(), "locks/", func(o objects.Object) error { return errors.New(o.Name) }); err != nil {
			t.Errorf("stopped at %s: left %v", row.at, err)
		}
	}
}

// stopping is a destination that calls stop after it has stored a marker or a table.
type stopping struct {
	objects.Destination
	prefix string
	stop   func()
}

func (d *stopping) Put(ctx context.Context, name string, c objects.Content) error {
	err := d.Destination.Put(ctx, name, c)
	if strings.HasPrefix(name, d.prefix) && (d.prefix == "tables/" || strings.HasSuffix(name, "/complete")) {
		d.stop()
	}
	return err
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
