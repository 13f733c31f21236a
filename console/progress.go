package console

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"
)

// Work is how far a long command is.
type Work struct {
	Done, Total int64  // in the unit of the Progress; Total is 0 if it is unknown
	Found       int64  // the part of Done that a former run has done
	Item        string // what is worked on, "" if that is not known
	More        string // further counts
}

// Unit is what a Progress counts.
type Unit struct {
	Noun   string             // plural, such as records; "" if Number names it
	Number func(int64) string // writes a number of it. Default: with commas
	Share  bool               // show the share alone: the numbers mean nothing to a reader
}

// Bytes is the unit of files.
func Bytes() Unit {
	return Unit{Number: func(n int64) string { return humanize.IBytes(uint64(max(0, n))) }}
}

// Progress shows how far a long command is: on a terminal as a line that is redrawn in place,
// elsewhere as a line from time to time.
type Progress struct {
	term *Terminal
	verb string
	unit Unit

	// mu guards:
	mu     sync.Mutex
	sample func() Work
}

const (
	// drawEvery is how often the line is redrawn, and tellEvery how often a line is written where
	// none can be redrawn.
	drawEvery = 200 * time.Millisecond
	tellEvery = 10 * time.Second
	// progressBar is the width of the bar.
	progressBar = 15
)

// NewProgress returns a Progress on a terminal. verb says what is done, such as exporting.
func NewProgress(term *Terminal, verb string, unit Unit) *Progress {
	if unit.Number == nil {
		unit.Number = humanize.Comma
	}
	return &Progress{term: term, verb: verb, unit: unit, sample: func() Work { return Work{} }}
}

// Set states how far the command is. It may be called often.
func (p *Progress) Set(w Work) { p.Sample(func() Work { return w }) }

// Sample has fn state how far the command is, whenever that is shown.
func (p *Progress) Sample(fn func() Work) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sample = fn
}

// During shows progress while fn runs, and returns the error of fn. The line is gone then.
func (p *Progress) During(ctx context.Context, fn func(context.Context) error) error {
	begun := time.Now()
	showing, stop := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		p.show(showing, begun)
		return nil
	})
	defer g.Wait() // the other goroutine has ended when fn panics, too
	defer stop()
	return fn(ctx)
}

// Above runs fn, which may write to the terminal, while the line is gone.
func (p *Progress) Above(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.term.Draw("")
	fn()
}

// show shows the line until ctx ends.
func (p *Progress) show(ctx context.Context, begun time.Time) {
	every := tellEvery
	if p.term.Live() {
		every = drawEvery
		defer p.term.Draw("")
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.write(now.Sub(begun))
		}
	}
}

// write writes the line once.
func (p *Progress) write(spent time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.sample()
	parts := p.parts(w, spent)
	if !p.term.Live() {
		// A line that cannot be written is no reason to end the command.
		_, _ = p.term.Write([]byte(strings.Join(append([]string{p.verb}, parts...), "  ") + "\n"))
		return
	}
	columns := p.term.Columns() - 1
	head := p.verb + "  "
	tail := strings.Join(parts, "  ")
	if w.Total <= 0 || columns < len(head)+progressBar+2 {
		p.term.Draw(Clip(head+tail, columns))
		return
	}
	tail = Clip("  "+tail, columns-len(head)-progressBar)
	p.term.Draw(head + p.term.Bar(w.Done, w.Total, progressBar) + tail)
}

// parts returns the parts of the line behind its verb, after some time.
func (p *Progress) parts(w Work, spent time.Duration) (parts []string) {
	done := p.unit.Number(w.Done)
	if w.Total > 0 {
		share := float64(min(w.Done, w.Total)) / float64(w.Total)
		parts = append(parts, humanize.Comma(int64(100*share))+"%")
		done += " of " + p.unit.Number(w.Total)
	}
	rate := float64(w.Done-w.Found) / max(spent.Seconds(), 0.001)
	if !p.unit.Share {
		parts = append(parts, strings.TrimSpace(done+" "+p.unit.Noun), p.unit.Number(int64(rate))+"/s")
	}
	if left := float64(w.Total - w.Done); left > 0 && rate > 0 && left/rate < etaMax.Seconds() {
		eta := time.Duration(left / rate * float64(time.Second))
		parts = append(parts, eta.Round(time.Second).String()+" left")
	}
	for _, text := range []string{w.More, w.Item} {
		if text != "" {
			parts = append(parts, Printable(text))
		}
	}
	return parts
}

// etaMax bounds an estimate: what takes longer is not known.
const etaMax = 1000 * time.Hour

// Bar draws done of total, size columns wide.
func (t *Terminal) Bar(done, total int64, size int) string {
	filled := 0
	if total > 0 {
		filled = int(float64(size) * float64(max(0, min(done, total))) / float64(total))
	}
	full, empty := "━", "─"
	if t.ascii {
		full, empty = "#", "-"
	}
	return t.Paint(Green, strings.Repeat(full, filled)) +
		t.Paint(Dim, strings.Repeat(empty, size-filled))
}
