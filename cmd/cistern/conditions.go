package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"cistern/api/durable"
	"cistern/cmd/cistern/command"
	"cistern/condition"
	"cistern/gate"
	"cistern/loop"
	"cistern/maintain"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// pressureLimit is a value of --pause-pressure.
type pressureLimit struct {
	of      condition.Resource
	percent float64
}

func parsePressure(s string) (p pressureLimit, err error) {
	name, share, _ := strings.Cut(s, "=")
	p.of = condition.Resource(name)
	p.percent, err = strconv.ParseFloat(strings.TrimSuffix(share, "%"), 64)
	// NaN fails both comparisons.
	if err != nil || !slices.Contains(condition.Resources[:], p.of) ||
		!(p.percent > 0 && p.percent < 1000) {
		return pressureLimit{}, errors.New("want cpu, memory or io and a percentage, such as " +
			"memory=10")
	}
	return p, nil
}

// parseLag reads a value of --pause-lag: a number of events, or a duration.
func parseLag(s string) (limit condition.LagLimit, err error) {
	if limit.Events, err = strconv.ParseUint(s, 10, 63); err == nil && limit.Events > 0 {
		return limit, nil
	}
	if limit.Age, err = command.ParseAge(s); err == nil && limit.Age >= time.Second {
		return limit, nil
	}
	return condition.LagLimit{}, errors.New("want a number of events, such as 1000000, or a " +
		"duration of a second or more, such as 10m or 1d")
}

func parseHours(s string) (*maintain.Hours, error) {
	h, err := maintain.ParseHours(s)
	return &h, err
}

func parseMount(s string) (string, error) {
	if !filepath.IsAbs(s) {
		return "", errors.New("want the absolute path of a mount point, such as /srv")
	}
	return filepath.Clean(s), nil
}

// lagLimit returns the strictest limits of --pause-lag.
func (c *Config) lagLimit() (limit condition.LagLimit) {
	for _, l := range c.PauseLag {
		if l.Events > 0 && (limit.Events == 0 || l.Events < limit.Events) {
			limit.Events = l.Events
		}
		if l.Age > 0 && (limit.Age == 0 || l.Age < limit.Age) {
			limit.Age = l.Age
		}
	}
	return limit
}

// machine returns what reads the machine.
func (t *tuning) machine() condition.Probe {
	p := condition.System()
	if t.probe != nil {
		t.probe(&p)
	}
	return p
}

// checkDisk fails if the daemon would stop at once because of its disk, or if its directory is not
// on --data-mount. It runs before the store is created, so it looks at the nearest existing
// directory above it.
func (d *daemon) checkDisk() error {
	dir, p := nearest(d.cfg.Data), d.tune.machine()
	if d.cfg.DataMount != "" {
		r, err := condition.Mount(p, dir, d.cfg.DataMount).Read(time.Time{})
		if err != nil {
			return fmt.Errorf("--data-mount %s: %w", d.cfg.DataMount, err)
		}
		if r.Level == condition.Bad {
			return fmt.Errorf("--data-mount %s: %s: mount the disk, or correct the option",
				d.cfg.DataMount, r.Subject)
		}
	}
	r, err := condition.Disk(p, dir, d.cfg.Reserve.of).Read(time.Time{})
	return errors.Join(err, r.Stop)
}

// nearest returns dir, or the nearest directory above it that exists.
func nearest(dir string) string {
	for {
		_, err := os.Stat(dir)
		above := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || above == dir {
			return dir
		}
		dir = above
	}
}

// newConditions makes the meter of what hosts send, which goes on with the count of the day, and
// the watcher of all that pauses backfill and crawling without the operator.
func (d *daemon) newConditions() error {
	today, err := d.store.Traffic()
	if err != nil {
		return err
	}
	d.meter = condition.NewMeter(d.cfg.Bandwidth, condition.Traffic(today))
	o := condition.Options{Gates: []*gate.Gate{&d.gates.backfill, &d.gates.crawler},
		Conditions: d.demands(), Now: time.Now, Logger: d.log, Registerer: d.metrics}
	if d.tune.conditions != nil {
		d.tune.conditions(&o)
	}
	d.now = o.Now
	d.conditions, err = condition.New(o)
	return err
}

// demands returns the conditions of the options.
func (d *daemon) demands() (all []condition.Condition) {
	p, c := d.tune.machine(), &d.cfg
	if c.DataMount != "" {
		all = append(all, condition.Mount(p, c.Data, c.DataMount))
	}
	if c.Reserve != (reserve{}) {
		disk := condition.Disk(p, c.Data, c.Reserve.of)
		disk.Told = diskShort(d)
		all = append(all, disk)
	}
	if c.BackfillHours != nil {
		all = append(all, condition.Hours(*c.BackfillHours))
	}
	if limit := c.lagLimit(); limit != (condition.LagLimit{}) {
		// newAPI makes d.api before the first look.
		all = append(all, condition.Lag(limit, func(now time.Time, ages bool) (
			[]condition.Backlog, error) {
			return backlogs(d.store, d.api.Subscriptions(), now, ages)
		}))
	}
	if c.BandwidthDay > 0 {
		all = append(all, condition.Quota(d.meter, c.BandwidthDay))
	}
	for _, limit := range c.Pressure {
		all = append(all, condition.Pressure(p, limit.of, limit.percent))
	}
	return all
}

// trafficEvery is how often what was received in the day is saved: a crash forgets that much.
const trafficEvery = 10 * time.Second

// runConditions looks at the conditions, and saves what was received, until ctx ends.
func (d *daemon) runConditions(ctx context.Context) error {
	if d.cfg.BandwidthDay == 0 {
		return d.conditions.Run(ctx)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.conditions.Run(ctx) })
	g.Go(func() error {
		for ctx.Err() == nil {
			loop.Sleep(ctx, trafficEvery, nil)
			if err := saveTraffic(d.store, d.meter.Today(d.now())); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// saveTraffic writes what was received in the day, unless it is written or the store is frozen.
func saveTraffic(s *store.Store, today condition.Traffic) error {
	saved, err := s.Traffic()
	if err != nil || saved == store.Traffic(today) {
		return err
	}
	b := s.NewBatch()
	b.PutTraffic(store.Traffic(today))
	if err := b.CommitUnlessFrozen(); !errors.Is(err, store.ErrFrozen) {
		return err
	}
	return nil // the next time
}

// backlogs returns how far durable subscriptions are behind the log of a store.
func backlogs(of *store.Store, subscriptions []durable.Status, now time.Time, ages bool) (
	all []condition.Backlog, err error) {
	for _, s := range subscriptions {
		b := condition.Backlog{Name: s.Name, Events: s.Lag}
		if ages && s.Lag > 0 {
			if b.Age, err = ageOf(of, s.Next, now); err != nil {
				return nil, err
			}
		}
		all = append(all, b)
	}
	return all, nil
}

// ageOf returns the age of the event with an id, 0 if the log ends before it.
func ageOf(s *store.Store, id uint64, now time.Time) (time.Duration, error) {
	us, err := s.TimeOf(id)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	return max(0, now.Sub(time.UnixMicro(us))), err
}

// waiting returns the reasons to wait for the progress line, "" without one.
func waiting(conditions []condition.Status) (reasons string) {
	for _, s := range conditions {
		if s.State != condition.Waiting {
			continue
		}
		if reasons != "" {
			reasons += "; "
		}
		reasons += s.Reason
	}
	return reasons
}
