package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"cistern/ingest"
)

// progress shows how far the index is: a line redrawn in place on a terminal, elsewhere a log
// line every few seconds while something changes.
type progress struct {
	term   *terminal
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

// sample is what the index had at one time.
type sample struct {
	at                              time.Time
	repos, records                  int64
	pending, syncing, resync        int64
	ratelimited, transport, generic int64
	done                            int64 // repositories that need no fetch
	behind, lacking                 int64 // known to have a later rev; not yet what the filter says

	sources, running int64         // of the firehose, and how many of them are connected
	frames           int64         // read from them
	lag              time.Duration // of the connected source furthest behind, in whole seconds
}

func newSample(at time.Time, counts map[string]int64, syncing int, sources []ingest.SourceStatus) sample {
	s := sample{
		at: at, repos: counts["repos"], records: counts["records"],
		pending: counts["pending"], syncing: int64(syncing), resync: counts["resync"],
		ratelimited: counts["error_ratelimited"], transport: counts["error_transport"], generic: counts["error_generic"],
		done:   counts["repos"] - counts["pending"] - counts["resync"],
		behind: counts["behind"], lacking: counts["lacking"],
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

// fetching says whether repositories wait for a fetch or are being fetched.
func (s *sample) fetching() bool { return s.pending > 0 || s.syncing > 0 }

const (
	drawEvery       = 200 * time.Millisecond
	logEveryDefault = 5 * time.Second
	// logLiveEvery is the pace of log lines while nothing but live events happens.
	logLiveEvery = time.Minute
	// lagShown is the lag from which the line tells of it.
	lagShown   = 5 * time.Second
	rateWindow = 3 * time.Second
	barMax     = 30
)

// Run shows progress until ctx ends.
func (p *progress) Run(ctx context.Context) error {
	every := p.logEvery
	if p.term.live() {
		every = drawEvery
		defer p.term.draw("")
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
	if p.term.live() {
		p.term.draw(p.line(s, p.term.columns()))
		return
	}
	still := p.logged
	still.at, still.lag = s.at, s.lag
	if s == still || !s.fetching() && !p.logged.fetching() && s.done == p.logged.done && s.at.Sub(p.logged.at) < logLiveEvery {
		return
	}
	p.logged = s
	if s.repos == 0 {
		return
	}
	p.log.Info("progress", "repos", s.repos, "done", s.done, "records", s.records, "new_records_per_second", p.rate(),
		"live_per_second", p.liveRate(), "sources", s.running, "lag", s.lag, "pending", s.pending, "syncing", s.syncing, "behind", s.behind, "lacking", s.lacking, "error_ratelimited", s.ratelimited,
		"error_transport", s.transport, "error_generic", s.generic)
}

// last shows how it ended, with the rate of the whole time, and leaves that standing.
func (p *progress) last(s sample) {
	p.recent = []sample{p.first, s}
	if p.term.live() {
		fmt.Fprintln(p.term, p.line(s, p.term.columns()))
		return
	}
	p.logged = sample{}
	p.show(s)
}

// rate is by how many records a second the store grew over the recent samples, 0 while it shrinks; liveRate is messages of the
// firehose.
func (p *progress) rate() int64 {
	return max(0, p.perSecond(func(s *sample) int64 { return s.records }))
}

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

// segment is a piece of the line; the rank says which pieces go first when room is short.
type segment struct {
	text  string
	color string
	rank  int
}

// line is the progress line, at most columns-1 wide so that no terminal wraps it.
func (p *progress) line(s sample, columns int) string {
	total := max(p.total, s.repos)
	segments := []segment{
		{text: thousands(s.done) + "/" + thousands(total) + " repos", color: bold},
		{text: thousands(s.records) + " records", rank: 1},
		{text: thousands(p.rate()) + "/s", color: cyan, rank: 2},
	}
	if s.syncing > 0 {
		segments = append(segments, segment{text: thousands(s.syncing) + " syncing", color: dim, rank: 4})
	}
	if s.pending > 0 {
		segments = append(segments, segment{text: thousands(s.pending) + " pending", color: dim, rank: 5})
	}
	if s.lacking > 0 {
		segments = append(segments, segment{text: thousands(s.lacking) + " to refilter", color: dim, rank: 5})
	}
	segments = append(append(segments, p.liveSegments(s)...), errorSegments(s)...)
	size := min(barMax, columns/5) // of the terminal alone, so that the bar stays where it is
	for len(segments) > 1 && size+width(segments) > columns-1 {
		segments = dropLeastImportant(segments)
	}
	var b strings.Builder
	if size+width(segments) <= columns-1 {
		b.WriteString(p.bar(s.done, total, size))
	}
	for _, g := range segments {
		if b.Len() > 0 {
			b.WriteString("  ")
		}
		b.WriteString(p.term.paint(g.color, clip(g.text, max(1, columns-1))))
	}
	return b.String()
}

// liveSegments tell of the firehose, if one is followed.
func (p *progress) liveSegments(s sample) []segment {
	var segments []segment
	if s.sources > 0 {
		segments = append(segments, segment{text: thousands(p.liveRate()) + "/s live", color: cyan, rank: 3})
	}
	if down := s.sources - s.running; down > 0 {
		segments = append(segments, segment{text: plural(down, "source", "sources") + " down", color: yellow, rank: 3})
	}
	if s.lag >= lagShown {
		segments = append(segments, segment{text: s.lag.String() + " behind", color: yellow, rank: 4})
	}
	return segments
}

// errorKind is how many repositories wait out failures of one kind.
type errorKind struct {
	n    int64
	name string
}

func errorKinds(s sample) []errorKind {
	all := []errorKind{{s.ratelimited, "rate-limited"}, {s.transport, "unreachable"}, {s.generic, "refused"}}
	return slices.DeleteFunc(all, func(k errorKind) bool { return k.n == 0 })
}

// errorSegments names the kinds of failure that repositories wait out.
func errorSegments(s sample) []segment {
	kinds := errorKinds(s)
	var names []string
	var sum int64
	for _, k := range kinds {
		names = append(names, thousands(k.n)+" "+k.name)
		sum += k.n
	}
	switch len(names) {
	case 0:
		return nil
	case 1:
		return []segment{{text: names[0], color: yellow, rank: 3}}
	}
	return []segment{{text: thousands(sum) + " failing", color: yellow, rank: 3},
		{text: "(" + strings.Join(names, ", ") + ")", color: yellow, rank: 6}}
}

func dropLeastImportant(segments []segment) []segment {
	worst := 0
	for i, g := range segments {
		if g.rank >= segments[worst].rank {
			worst = i
		}
	}
	return append(segments[:worst:worst], segments[worst+1:]...)
}

// width is the width of segments with the gaps before them.
func width(segments []segment) int {
	n := 0
	for _, g := range segments {
		n += 2 + textColumns(g.text)
	}
	return n
}

// bar draws done of total, size columns wide.
func (p *progress) bar(done, total int64, size int) string {
	filled := 0
	if total > 0 {
		filled = int(min(done, total) * int64(size) / total)
	}
	full, empty := "━", "─"
	if p.term.ascii {
		full, empty = "#", "-"
	}
	return p.term.paint(green, strings.Repeat(full, filled)) + p.term.paint(dim, strings.Repeat(empty, size-filled))
}
