package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"cistern/console"
	"cistern/ingest/firehose"
	"cistern/store"

	"github.com/dustin/go-humanize"
	"github.com/mattn/go-runewidth"
)

// progress shows how complete the index is: on a terminal as a line redrawn in place, elsewhere as
// a log line every few seconds while something changes.
type progress struct {
	term   *console.Terminal
	log    *slog.Logger
	sample func() sample
	// logEvery is the pace of log lines.
	logEvery time.Duration
	// total is how many repositories there will be; 0: as many as are known.
	total int64

	// owned by Run:
	first, logged sample
	recent        []sample // of the last rateWindow, oldest first
}

// sample is the state of the index at one time.
type sample struct {
	at                              time.Time
	repos, records                  int64
	pending, syncing, resync        int64
	ratelimited, transport, generic int64
	done                            int64 // repositories that need no fetch
	behind, lacking                 int64 // have an old rev; do not agree with the filter yet

	sources, running int64         // firehose sources, and how many of them are connected
	frames           int64         // messages read from the sources
	lag              time.Duration // of the connected source that is furthest behind, in seconds
	waiting          string        // what backfill and crawling wait for, "" for nothing
}

func newSample(at time.Time, counts map[string]int64, syncing int,
	sources []firehose.Status) sample {
	s := sample{
		at: at, repos: counts["repos"], records: counts["records"],
		pending: counts["pending"], syncing: int64(syncing), resync: counts["resync"],
		ratelimited: counts["error_ratelimited"], transport: counts["error_transport"],
		generic: counts["error_generic"],
		done:    counts["repos"] - counts["pending"] - counts["resync"],
		behind:  counts["behind"], lacking: counts["lacking"],
		sources: int64(len(sources)),
	}
	for _, src := range sources {
		s.frames += src.Events
		if src.Running {
			s.running++
			s.lag = max(s.lag, src.Lag.Truncate(time.Second))
		}
	}
	return s
}

// fetching reports whether repositories wait for a fetch or are being fetched.
func (s *sample) fetching() bool { return s.pending > 0 || s.syncing > 0 }

const (
	drawEvery       = 200 * time.Millisecond
	logEveryDefault = 5 * time.Second
	// logLiveEvery is the pace of log lines while only live events change the index.
	logLiveEvery = time.Minute
	// lagShown is the smallest lag that the line shows.
	lagShown   = 5 * time.Second
	rateWindow = 3 * time.Second
	barMax     = 30
)

// Run shows progress until ctx ends.
func (p *progress) Run(ctx context.Context) error {
	every := p.logEvery
	if p.term.Live() {
		every = drawEvery
		defer p.term.Draw("")
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		p.show(p.sample())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (p *progress) show(s sample) {
	if p.recent == nil {
		p.first = s
	}
	p.recent = append(p.recent, s)
	for len(p.recent) > 2 && s.at.Sub(p.recent[1].at) >= rateWindow {
		p.recent = p.recent[1:]
	}
	if p.term.Live() {
		p.term.Draw(p.line(s, p.term.Columns()))
		return
	}
	still := p.logged
	still.at, still.lag, still.waiting = s.at, s.lag, s.waiting
	onlyLive := !s.fetching() && !p.logged.fetching() && s.done == p.logged.done
	if s == still || onlyLive && s.at.Sub(p.logged.at) < logLiveEvery {
		return
	}
	p.logged = s
	if s.repos == 0 {
		return
	}
	p.log.Info("progress", "repos", s.repos, "done", s.done, "records", s.records,
		"new_records_per_second", p.rate(), "live_per_second", p.liveRate(), "sources", s.running,
		"lag", s.lag, "pending", s.pending, "syncing", s.syncing, "behind", s.behind,
		"lacking", s.lacking, "error_ratelimited", s.ratelimited, "error_transport", s.transport,
		"error_generic", s.generic, "waiting", s.waiting)
}

// last shows the final state, with the average rate of the whole run, and leaves it on the
// terminal.
func (p *progress) last(s sample) {
	p.recent = []sample{p.first, s}
	if p.term.Live() {
		fmt.Fprintln(p.term, p.line(s, p.term.Columns()))
		return
	}
	p.logged = sample{}
	p.show(s)
}

// rate returns how many records a second the store gained over the recent samples, 0 while it
// shrinks.
func (p *progress) rate() int64 {
	return max(0, p.perSecond(func(s *sample) int64 { return s.records }))
}

// liveRate returns how many messages a second arrived from the firehose.
func (p *progress) liveRate() int64 {
	return p.perSecond(func(s *sample) int64 { return s.frames })
}

func (p *progress) perSecond(count func(*sample) int64) int64 {
	first, last := &p.recent[0], &p.recent[len(p.recent)-1]
	seconds := last.at.Sub(first.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return int64(float64(count(last)-count(first)) / seconds)
}

// segment is a part of the line. If the line is too long, segments with the highest rank are
// dropped first.
type segment struct {
	rank        int
	color, text string
}

// line returns the progress line, at most columns-1 wide so that no terminal wraps it.
func (p *progress) line(s sample, columns int) string {
	total := max(p.total, s.repos)
	segments := p.segments(s, total)
	size := min(barMax, columns/5) // depends on the terminal only, so that the bar does not move
	for len(segments) > 1 && size+width(segments) > columns-1 {
		worst := slices.MaxFunc(segments, func(a, b segment) int { return a.rank - b.rank })
		segments = slices.DeleteFunc(segments, func(g segment) bool { return g == worst })
	}
	var parts []string
	if size+width(segments) <= columns-1 {
		parts = append(parts, p.term.Bar(s.done, total, size))
	}
	for _, g := range segments {
		parts = append(parts, p.term.Paint(g.color, console.Clip(g.text, max(1, columns-1))))
	}
	return strings.Join(parts, "  ")
}

// segments returns the segments of the line in order. A count of zero has no segment.
func (p *progress) segments(s sample, total int64) []segment {
	all := []segment{
		{0, console.Bold, humanize.Comma(s.done) + "/" + humanize.Comma(total) + " repos"},
		{1, "", humanize.Comma(s.records) + " records"},
		{2, console.Cyan, humanize.Comma(p.rate()) + "/s"},
	}
	add := func(shown bool, rank int, color, text string) {
		if shown {
			all = append(all, segment{rank, color, text})
		}
	}
	add(s.waiting != "", 1, console.Yellow, "waiting: "+s.waiting)
	add(s.syncing > 0, 4, console.Dim, humanize.Comma(s.syncing)+" syncing")
	add(s.pending > 0, 5, console.Dim, humanize.Comma(s.pending)+" pending")
	add(s.lacking > 0, 5, console.Dim, humanize.Comma(s.lacking)+" to refilter")
	add(s.sources > 0, 3, console.Cyan, humanize.Comma(p.liveRate())+"/s live")
	down := s.sources - s.running
	add(down > 0, 3, console.Yellow, console.Count(down, "source")+" down")
	add(s.lag >= lagShown, 4, console.Yellow, s.lag.String()+" behind")
	failing, kinds := s.ratelimited+s.transport+s.generic, s.failures()
	add(len(kinds) == 1, 3, console.Yellow, strings.Join(kinds, ""))
	add(len(kinds) > 1, 3, console.Yellow, humanize.Comma(failing)+" failing")
	add(len(kinds) > 1, 6, console.Yellow, "("+strings.Join(kinds, ", ")+")")
	return all
}

// failures counts the repositories that wait to be fetched again, for each kind of failure.
func (s *sample) failures() (kinds []string) {
	for _, k := range []struct {
		n    int64
		name string
	}{{s.ratelimited, store.RateLimited.String()},
		{s.transport, store.Transport.String()}, {s.generic, store.Generic.String()}} {
		if k.n > 0 {
			kinds = append(kinds, humanize.Comma(k.n)+" "+k.name)
		}
	}
	return kinds
}

// width returns the width of segments with the gaps before them.
func width(segments []segment) int {
	n := 0
	for _, g := range segments {
		n += 2 + runewidth.StringWidth(g.text)
	}
	return n
}
