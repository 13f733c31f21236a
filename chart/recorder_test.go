package chart_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/chart"
)

// world is a clock, and two figures that a Recorder reads.
type world struct {
	*chart.Recorder
	now           time.Time
	counter, peak float64
}

func newWorld(t *testing.T) *world {
	w := &world{now: time.Unix(1_800_000_000, 0)}
	var err error
	w.Recorder, err = chart.New(chart.Options{
		Series: []chart.Series{{Name: "counter", Counter: true}, {Name: "peak", Peak: true}},
		Read:   func() []float64 { return []float64{w.counter, w.peak} },
		Now:    func() time.Time { return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// want compares the values of a series in a view, "-" for an unknown one.
func want(t *testing.T, what string, v chart.View, series int, want string) {
	t.Helper()
	var text []string
	for _, value := range v.Values[series] {
		s := fmt.Sprint(value)
		if value != value {
			s = "-"
		}
		text = append(text, s)
	}
	if got := strings.Join(text, " "); got != want {
		t.Errorf("%s from %s on: %s, want %s", what, v.Start, got, want)
	}
}

// TestRecorder: points are at their times, counters are recorded by their growth, and steps without a
// look are unknown.
func TestRecorder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	begin := w.now
	for i, c := range []struct {
		pass          time.Duration
		counter, peak float64
	}{
		{0, 1000, 5},
		{10 * time.Second, 1100, 7},
		{10 * time.Second, 1100, math.NaN()},
		{10 * time.Second, 50, 3}, // the counter was reset
		{30 * time.Second, 80, 1}, // two steps without a look
	} {
		w.now, w.counter, w.peak = w.now.Add(c.pass), c.counter, c.peak
		w.Look()
		if v := w.Hour(time.Unix(0, 0)); !v.Start.Equal(begin) || v.Step != 10*time.Second {
			t.Errorf("look %d: begins at %s, a step is %s", i, v.Start, v.Step)
		}
	}
	want(t, "counter", w.Hour(time.Unix(0, 0)), 0, "- 10 0 0 - - 1")
	want(t, "peak", w.Hour(time.Unix(0, 0)), 1, "5 7 - 3 - - 1")
	want(t, "the mean of the day", w.Day(time.Unix(0, 0)), 0, "2.75")
	want(t, "the peak of the day", w.Day(time.Unix(0, 0)), 1, "7")
	want(t, "the newest points", w.Hour(w.now.Add(-10*time.Second)), 1, "- 1")
	want(t, "the future", w.Hour(w.now.Add(time.Minute)), 1, "")
	w.now = w.now.Add(5 * time.Minute)
	w.peak = -2
	w.Look()
	want(t, "the next five minutes", w.Day(time.Unix(0, 0)), 1, "7 -2")
}

// TestRings: a range has a fixed number of points. A long pause leaves none of the earlier ones, and
// neither does a clock that goes back.
func TestRings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 2000 {
		w.now = w.now.Add(10 * time.Second)
		w.counter += 20
		w.Look()
	}
	hour, day := w.Hour(time.Unix(0, 0)), w.Day(time.Unix(0, 0))
	if n := len(hour.Values[0]); n != 360 || hour.Values[0][0] != 2 || w.now.Sub(hour.Start) != 359*10*time.Second {
		t.Errorf("an hour has %d points from %s on: %v", n, hour.Start, hour.Values[0][:3])
	}
	if hour.Span != time.Hour || day.Span != 24*time.Hour {
		t.Errorf("ranges of %s and %s", hour.Span, day.Span)
	}
	if n := len(day.Values[0]); n != 67 {
		t.Errorf("5 h 33 min have %d points of five minutes", n)
	}
	w.now = w.now.Add(48 * time.Hour)
	w.Look()
	if v := w.Hour(time.Unix(0, 0)).Values[1]; len(v) != 360 || v[358] == v[358] || v[359] != 0 {
		t.Errorf("after a pause: %v", v)
	}
	w.now = w.now.Add(-time.Second) // in the same step, or the one before
	w.Look()
	if n := len(w.Hour(time.Unix(0, 0)).Values[1]); n != 360 {
		t.Errorf("a small step of the clock leaves %d points", n)
	}
	w.now = w.now.Add(-time.Hour)
	w.Look()
	if v := w.Hour(time.Unix(0, 0)); len(v.Values[1]) != 1 || len(w.Day(time.Unix(0, 0)).Values[1]) != 1 {
		t.Errorf("the clock went back, and there are %v", v)
	}
}

// TestRun: a figure is read once a step, and Run ends with its context.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		r, err := chart.New(chart.Options{Series: []chart.Series{{Name: "looks"}}, Read: func() []float64 {
			looks++
			time.Sleep(3 * time.Second)
			return []float64{float64(looks)}
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute-time.Second)
		defer cancel()
		if err := r.Run(ctx); err != nil || looks != 60 {
			t.Errorf("%d looks in ten minutes: %v", looks, err)
		}
		for i, v := range r.Hour(time.Unix(0, 0)).Values[0] {
			if v != float32(i+1) {
				t.Fatalf("point %d is %v", i, v)
			}
		}
	})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	read := func() []float64 { return nil }
	for _, o := range []chart.Options{
		{Read: read},
		{Series: make([]chart.Series, 1)},
		{Series: make([]chart.Series, 65), Read: read},
		{Series: make([]chart.Series, 1), Read: read, Step: -1},
	} {
		if _, err := chart.New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestTrend(t *testing.T) {
	t.Parallel()
	unknown := float32(math.NaN())
	for _, c := range []struct {
		values []float32
		want   float64
		ok     bool
	}{
		{[]float32{1, 2, 3}, 0.1, true},
		{[]float32{5, unknown, 3, unknown, 1}, -0.1, true},
		{[]float32{7, 7, 7, 7}, 0, true},
		{[]float32{4e12, 3e12, 2e12}, -1e11, true},
		{[]float32{0, 10, 0, 10, 0}, 0, true}, // a sawtooth, as compactions make it
		{[]float32{1, 2, unknown}, 0, false},
		{nil, 0, false},
	} {
		got, ok := chart.Trend(10*time.Second, c.values, 3)
		if ok != c.ok || math.Abs(got-c.want) > 1e-6*math.Abs(c.want)+1e-9 {
			t.Errorf("%v: %v, %t, want %v", c.values, got, ok, c.want)
		}
	}
}
