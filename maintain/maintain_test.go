package maintain_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cistern/maintain"
)

func nothing(context.Context, *maintain.Progress) error { return nil }

// rest lets time pass, and everything that is due happen.
func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// run starts a coordinator in the bubble of the test, which ends it.
func run(t *testing.T, o maintain.Options) *maintain.Coordinator {
	t.Helper()
	if o.Keeper == nil {
		o.Keeper = &shelf{}
	}
	if o.Location == nil {
		o.Location = time.UTC
	}
	c, err := maintain.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return c
}

func TestOptions(t *testing.T) {
	t.Parallel()
	two := []maintain.Operation{{Name: "a", Run: nothing}, {Name: "b", Run: nothing}}
	alone := []maintain.Operation{{Name: "a", Run: nothing}, {Name: "b", Run: nothing, Alone: true}}
	one := func(op maintain.Operation) []maintain.Operation { return []maintain.Operation{op} }
	for _, c := range []struct {
		ops  []maintain.Operation
		with []maintain.Pair
		want string // part of the error; empty: no error
	}{
		{two, []maintain.Pair{{"b", "a"}}, ""},
		{alone, nil, ""},
		{nil, nil, "0 operations"},
		{slices.Repeat(two, 33), nil, "66 operations"},
		{[]maintain.Operation{two[0], two[0]}, nil, `"a": its name`},
		{one(maintain.Operation{Run: nothing}), nil, `"": its name`},
		{one(maintain.Operation{Name: "a"}), nil, "no function"},
		{one(maintain.Operation{Name: "a", Run: nothing, Space: 3}), nil, "unknown space 3"},
		{one(maintain.Operation{Name: "a", Run: nothing, Every: -1}), nil, "negative period"},
		{one(maintain.Operation{Name: "a", Run: nothing, Hours: maintain.Hours{From: 24 * time.Hour}}), nil, "hours 24h0m0s to 0s"},
		{one(maintain.Operation{Name: "a", Run: nothing, Hours: maintain.Hours{From: time.Hour, To: time.Hour}}), nil, "two different"},
		{two, []maintain.Pair{{"a", "c"}}, `["a" "c"]: these are not two`},
		{two, []maintain.Pair{{"a", "a"}}, "these are not two"},
		{two, []maintain.Pair{{"a", "b"}, {"b", "a"}}, "already"},
		{alone, []maintain.Pair{{"a", "b"}}, "alone"},
	} {
		_, err := maintain.New(maintain.Options{Operations: c.ops, Together: c.with, Keeper: &shelf{}})
		if err == nil != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v, %v: %v; want %q", c.ops, c.with, err, c.want)
		}
	}
	if _, err := maintain.New(maintain.Options{Operations: two}); err == nil || !strings.Contains(err.Error(), "no keeper") {
		t.Errorf("without a keeper: %v", err)
	}
}

// diary has the times at which an operation began, since it was read last.
type diary struct {
	mu    sync.Mutex
	start time.Time
	began []time.Duration
	fails int // so many runs fail
}

func (d *diary) run(context.Context, *maintain.Progress) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.began = append(d.began, time.Since(d.start))
	if d.fails > 0 {
		d.fails--
		return errors.New("not now")
	}
	return nil
}

// read takes what was noted, and has the next runs fail.
func (d *diary) read(fails int) (began []time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	began, d.began, d.fails = d.began, nil, fails
	return began
}

// TestSchedule: the next run is due one period after the last success; after failures earlier, after
// delays that double; and in the hours only, unless it was requested.
func TestSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &diary{start: time.Now()} // midnight, UTC
		c := run(t, maintain.Options{Operations: []maintain.Operation{{Name: "verify", Run: d.run,
			Every: 36 * time.Hour, Hours: maintain.Hours{From: 22 * time.Hour, To: 2 * time.Hour}}}})
		began := func(fails int, want ...time.Duration) {
			t.Helper()
			if got := d.read(fails); !slices.Equal(got, want) {
				t.Errorf("after %s runs began at %s, want %s", time.Since(d.start), got, want)
			}
		}
		began(0, 0) // never succeeded
		if due := c.View().Operations[0].Due.Sub(d.start); due != 46*time.Hour {
			t.Errorf("due at %s, want at 22:00 of the next day", due)
		}
		rest(10 * time.Hour)
		if err := c.Await(t.Context(), "verify"); err != nil { // now it is due at 46h
			t.Error(err)
		}
		began(4, 10*time.Hour)
		rest(37 * time.Hour)
		first := 46 * time.Hour
		began(1<<20, first, first+time.Minute, first+3*time.Minute, first+7*time.Minute, first+15*time.Minute)
		if s := c.View().Operations[0]; s.Failures != 0 || s.Error != "" || s.Succeeded.Sub(d.start) != first+15*time.Minute {
			t.Errorf("after a success: %+v", s)
		}
		rest(60 * time.Hour) // due after 82h15m, at a quarter past ten in the morning: 94h
		first = 94 * time.Hour
		began(0, first, first+time.Minute, first+3*time.Minute, first+7*time.Minute, first+15*time.Minute,
			first+31*time.Minute, first+63*time.Minute, first+127*time.Minute)
		if s := c.View().Operations[0]; s.Error != "not now" || s.Failures != 8 {
			t.Errorf("after failures: %+v", s)
		}
		rest(36 * time.Hour)
		began(0, 118*time.Hour) // the delay of 256 minutes ended outside of the hours
	})
}

// TestHours: also over midnight, and on days of 23 and 25 hours.
func TestHours(t *testing.T) {
	t.Parallel()
	vienna, err := time.LoadLocation("Europe/Vienna")
	if err != nil {
		t.Skip(err)
	}
	night, noon := maintain.Hours{From: 22*time.Hour + 30*time.Minute, To: 6 * time.Hour}, maintain.Hours{From: 11 * time.Hour, To: 13 * time.Hour}
	late := maintain.Hours{From: 2*time.Hour + 30*time.Minute, To: 24 * time.Hour}
	for _, c := range []struct {
		hours   maintain.Hours
		t, next string // in Vienna
	}{
		{maintain.Hours{}, "2026-05-01 12:00", "2026-05-01 12:00"},
		{night, "2026-05-01 12:00", "2026-05-01 22:30"},
		{night, "2026-05-01 22:29", "2026-05-01 22:30"},
		{night, "2026-05-01 22:30", "2026-05-01 22:30"},
		{night, "2026-05-01 05:59", "2026-05-01 05:59"},
		{night, "2026-05-01 06:00", "2026-05-01 22:30"},
		{noon, "2026-05-01 10:59", "2026-05-01 11:00"},
		{noon, "2026-05-01 12:59", "2026-05-01 12:59"},
		{noon, "2026-05-31 13:00", "2026-06-01 11:00"},
		{noon, "2026-03-28 13:00", "2026-03-29 11:00"}, // a day of 23 hours
		{noon, "2026-10-25 00:00", "2026-10-25 11:00"}, // one of 25
		{late, "2026-03-28 02:00", "2026-03-28 02:30"},
		{late, "2026-03-29 01:00", "2026-03-29 03:30"}, // there is no half past two
	} {
		at, _ := time.ParseInLocation("2006-01-02 15:04", c.t, vienna)
		next := maintain.NextIn(c.hours, at)
		if got := next.Format("2006-01-02 15:04"); got != c.next {
			t.Errorf("%s from %s: %s, want %s", c.hours, c.t, got, c.next)
		}
	}
	if s := night.String(); s != "22:30-06:00" {
		t.Error(s)
	}
}

// TestDueWaitsForItsHours: a due run that could not begin in the hours begins in the next ones, but
// an interrupted one continues, and a request is met at any time.
func TestDueWaitsForItsHours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &diary{start: time.Now()}
		long := maintain.Operation{Name: "long", Run: func(ctx context.Context, _ *maintain.Progress) error {
			select {
			case <-time.After(5 * time.Hour):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		nightly := maintain.Operation{Name: "nightly", Run: d.run, Every: time.Hour,
			Hours: maintain.Hours{From: 2 * time.Hour, To: 4 * time.Hour}}
		c := run(t, maintain.Options{Operations: []maintain.Operation{long, nightly}})
		c.Schedule("long")
		rest(26*time.Hour - time.Second)
		if began := d.read(0); len(began) != 0 {
			t.Errorf("began at %s", began)
		}
		if s := c.View().Operations[1]; s.Condition != maintain.Pending || s.Waits != "outside of the hours 02:00-04:00" {
			t.Errorf("%+v", s)
		}
		rest(2 * time.Hour)
		if began, want := d.read(0), []time.Duration{26 * time.Hour, 27 * time.Hour}; !slices.Equal(began, want) {
			t.Errorf("began at %s, want %s", began, want)
		}
		rest(4 * time.Hour)
		if err := c.Await(t.Context(), "nightly"); err != nil || len(d.read(0)) != 1 {
			t.Errorf("on request: %v", err)
		}
	})
}

// TestPeriods: a row that is due far ahead, as after a period that was shortened or a clock that was
// wrong, counts as due one period from now at most. The result survives the restart.
func TestPeriods(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var ran atomic.Int64
		row := maintain.Row{Name: "a", Ended: start.Add(-time.Hour), Succeeded: start.Add(-2 * time.Hour), Error: "bad", Failures: 3,
			Due: start.AddDate(10, 0, 0)}
		k := &shelf{rows: map[string]maintain.Row{"a": row, "removed": {Name: "removed", Began: true, Behind: []string{"a"}}}}
		c := run(t, maintain.Options{Keeper: k, Operations: []maintain.Operation{{Name: "a", Every: time.Hour,
			Run: func(context.Context, *maintain.Progress) error { ran.Add(1); return nil }}}})
		s := c.View().Operations[0]
		if s.Ended != row.Ended || s.Succeeded != row.Succeeded || s.Error != "bad" || s.Failures != 3 || s.Due.Sub(start) != time.Hour {
			t.Errorf("%+v", s)
		}
		rest(time.Hour - 1)
		if ran.Load() != 0 {
			t.Error("it ran early")
		}
		rest(1)
		if ran.Load() != 1 || k.rows["a"].Succeeded != time.Now() {
			t.Errorf("%d runs, row %+v", ran.Load(), k.rows["a"])
		}
	})
}

// TestStaleRows: rows that name operations which wait no more, or in a circle, as a crash or another
// version may leave them, are corrected at once.
func TestStaleRows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &diary{start: time.Now()}
		var all []maintain.Operation
		k := &shelf{rows: map[string]maintain.Row{}}
		for name, row := range map[string]maintain.Row{
			"checkpoint": {Waiting: []string{"backup"}}, // the backup was cancelled
			"backup":     {},
			"a":          {Began: true, Behind: []string{"b", "a"}},
			"b":          {Began: true, Behind: []string{"a"}},
		} {
			row.Name = name
			k.rows[name] = row
			all = append(all, maintain.Operation{Name: name, Run: d.run})
		}
		run(t, maintain.Options{Operations: all, Keeper: k})
		if began := d.read(0); len(began) != 2 {
			t.Errorf("%d operations began, not a and b only", len(began))
		}
		for _, row := range k.rows {
			if row.Began || row.Next || len(row.Behind)+len(row.Waiting) > 0 {
				t.Errorf("in the end there is %+v", row)
			}
		}
	})
}

// TestKeeperFails: Run ends with the error, after what runs was told to stop, and releases waiters.
func TestKeeperFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("the disk is full")
		k := &shelf{}
		long := func(ctx context.Context, _ *maintain.Progress) error { <-ctx.Done(); return ctx.Err() }
		c, err := maintain.New(maintain.Options{Keeper: k, Operations: []maintain.Operation{{Name: "a", Run: long}, {Name: "b", Run: long}}})
		if err != nil {
			t.Fatal(err)
		}
		ended, awaited := make(chan error, 1), make(chan error, 1)
		go func() { ended <- c.Run(t.Context()) }()
		go func() { awaited <- c.Await(t.Context(), "a") }()
		synctest.Wait()
		k.mu.Lock()
		k.fail = full
		k.mu.Unlock()
		c.Schedule("b")
		if err := <-ended; !errors.Is(err, full) || !strings.Contains(err.Error(), "operation b") {
			t.Errorf("run: %v", err)
		}
		if err := <-awaited; !errors.Is(err, maintain.ErrStopped) {
			t.Errorf("await: %v", err)
		}
		c, _ = maintain.New(maintain.Options{Keeper: k, Operations: []maintain.Operation{{Name: "a", Run: long}}})
		if err := c.Run(t.Context()); !errors.Is(err, full) {
			t.Errorf("run: %v", err)
		}
	})
}

// TestNeedsEndlessly: an operation that never proceeds fails instead of running others for ever, and
// so does one that needs itself, or an operation that does not exist (invariant 4).
func TestNeedsEndlessly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ran := map[string]int{}
		op := func(name, needs string) maintain.Operation {
			return maintain.Operation{Name: name, Run: func(context.Context, *maintain.Progress) error {
				ran[name]++
				if needs == "" {
					return nil
				}
				return maintain.Needs(needs)
			}}
		}
		c := run(t, maintain.Options{Operations: []maintain.Operation{op("a", "b"), op("b", ""), op("self", "self"), op("lost", "x"),
			op("p", "q"), op("q", "r"), op("r", "p")}})
		for name, want := range map[string]string{
			"a":    "a needs b first: one run needed others 9 times",
			"self": "self needs self first: self waits for self",
			"lost": "lost needs x first: unknown operation",
			"p":    "p needs q first: q needs r first: r needs p first: p waits for r",
		} {
			err := c.Await(t.Context(), name)
			if need := new(maintain.NeedError); err == nil || err.Error() != want || !errors.As(err, &need) || need.Operation != name {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		}
		if ran["a"] != 9 || ran["b"] != 8 {
			t.Errorf("ran %v", ran)
		}
		if err := c.Schedule("x"); !errors.Is(err, maintain.ErrUnknown) {
			t.Errorf("schedule x: %v", err)
		}
		if _, err := c.Cancel("x"); !errors.Is(err, maintain.ErrUnknown) {
			t.Errorf("cancel x: %v", err)
		}
		if err := c.Await(t.Context(), "x"); !errors.Is(err, maintain.ErrUnknown) {
			t.Errorf("await x: %v", err)
		}
	})
}

// TestShortOfDisk: what frees space is tried every minute while the disk stays short, and the view
// says that it does not suffice, and why a consumer waits.
func TestShortOfDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var prunes, backups atomic.Int64
		c := run(t, maintain.Options{Operations: []maintain.Operation{
			{Name: "prune", Space: maintain.Frees, Run: func(context.Context, *maintain.Progress) error {
				prunes.Add(1)
				time.Sleep(10 * time.Second)
				return nil
			}},
			{Name: "backup", Space: maintain.Consumes, Run: func(context.Context, *maintain.Progress) error { backups.Add(1); return nil }},
		}})
		c.SetDisk("3 GiB free, 5 GiB needed")
		c.Schedule("backup")
		rest(time.Second)
		if v := c.View(); v.Exhausted || v.Shortage != "3 GiB free, 5 GiB needed" || v.Operations[1].Waits != "the disk is short: 3 GiB free, 5 GiB needed" {
			t.Errorf("while it prunes: %+v", v)
		}
		rest(10 * time.Second)
		if v := c.View(); !v.Exhausted || prunes.Load() != 1 {
			t.Errorf("after pruning %d times: %+v", prunes.Load(), v)
		}
		rest(10 * time.Minute)
		if prunes.Load() != 11 || backups.Load() != 0 {
			t.Errorf("%d prunes, %d backups", prunes.Load(), backups.Load())
		}
		c.SetDisk("")
		rest(time.Minute)
		if v := c.View(); v.Exhausted || v.Shortage != "" || backups.Load() != 1 || prunes.Load() != 11 {
			t.Errorf("with space: %d prunes, %d backups, %+v", prunes.Load(), backups.Load(), v)
		}
	})
}

// TestProgress: it stays while a run is interrupted, and is gone with the run.
func TestProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		next := 0
		c := run(t, maintain.Options{Operations: []maintain.Operation{{Name: "a", Run: func(ctx context.Context, p *maintain.Progress) error {
			for ; next < 10; next++ {
				p.Set(int64(next), 10)
				p.Item(fmt.Sprintf("item %d", next), 1, 2)
				select {
				case <-ctx.Done():
					return fmt.Errorf("item %d: %w", next, ctx.Err())
				case <-time.After(time.Minute):
				}
			}
			return nil
		}}}})
		c.Schedule("a")
		rest(90 * time.Second)
		want := maintain.Work{Done: 1, Total: 10, Item: "item 1", ItemDone: 1, ItemTotal: 2}
		check := func(condition maintain.Condition, want maintain.Work) {
			t.Helper()
			synctest.Wait()
			if s := c.View().Operations[0]; s.Condition != condition || s.Work != want || s.Since.IsZero() == (condition == maintain.Running) {
				t.Errorf("%+v", s)
			}
		}
		check(maintain.Running, want)
		c.Schedule("a")
		if s := c.View().Operations[0]; !s.Requested {
			t.Errorf("%+v", s)
		}
		if err := c.Pause(t.Context(), "a test"); err != nil {
			t.Error(err)
		}
		check(maintain.Interrupted, want)
		c.Resume()
		check(maintain.Running, want)
		rest(time.Hour)
		check(maintain.Idle, maintain.Work{})
	})
}

// TestWaitersAreBounded: the next caller gets an error that names the operation.
func TestWaitersAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := make(chan struct{})
		c := run(t, maintain.Options{Operations: []maintain.Operation{{Name: "a", Run: func(context.Context, *maintain.Progress) error {
			<-begin
			return nil
		}}}})
		c.Schedule("a")
		synctest.Wait()
		var all sync.WaitGroup
		for range 1024 {
			all.Go(func() {
				if err := c.Await(t.Context(), "a"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if err := c.Await(t.Context(), "a"); !errors.Is(err, maintain.ErrBusy) || err.Error() != "a: too many callers wait: 1024 is the most" {
			t.Errorf("one more: %v", err)
		}
		close(begin)
		all.Wait()
	})
}

// TestErrorTextIsBounded: of a long error the beginning is kept, in whole characters.
func TestErrorTextIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &shelf{}
		c := run(t, maintain.Options{Keeper: k, Operations: []maintain.Operation{{Name: "a", Run: func(context.Context, *maintain.Progress) error {
			return errors.New("x" + strings.Repeat("é", 1000))
		}}}})
		if err := c.Await(t.Context(), "a"); len(err.Error()) != 2001 {
			t.Errorf("the caller gets %v", err)
		}
		if s := c.View().Operations[0]; s.Error != "x"+strings.Repeat("é", 511) || k.rows["a"].Error != s.Error {
			t.Errorf("kept are %d bytes: %s", len(s.Error), s.Error)
		}
	})
}

// TestErrorTextIsText: an error that quotes what is not UTF-8 is kept without that.
func TestErrorTextIsText(t *testing.T) {
	t.Parallel()
	for quoted, want := range map[string]string{
		strings.Repeat("\xbf", 2000):                    "", // no character begins in it
		"answer \xff\xfe":                               "answer ",
		strings.Repeat("x", 1020) + "\xf0\x9f\x98\x80y": strings.Repeat("x", 1020) + "😀",
		strings.Repeat("x", 1021) + "\xf0\x9f\x98\x80y": strings.Repeat("x", 1021),
	} {
		synctest.Test(t, func(t *testing.T) {
			k := &shelf{}
			c := run(t, maintain.Options{Keeper: k, Operations: []maintain.Operation{{Name: "a",
				Run: func(context.Context, *maintain.Progress) error { return errors.New(quoted) }}}})
			if err := c.Await(t.Context(), "a"); err == nil || err.Error() != quoted {
				t.Errorf("the caller gets %v", err)
			}
			if row := k.rows["a"]; row.Error != want || row.Failures != 1 {
				t.Errorf("kept is %q, want %q", row.Error, want)
			}
		})
	}
}
