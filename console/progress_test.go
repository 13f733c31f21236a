package console

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-runewidth"
)

// TestProgressLine: the line has the share, the counts, the rate of this run, the time that is left,
// and what is worked on, as far as they are known.
func TestProgressLine(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		unit Unit
		work Work
		want string
	}{
		{Bytes(), Work{Done: 1 << 30, Total: 2 << 30, Item: "000007.sst", More: "3 of 9 files"}, "50%  1.0 GiB of 2.0 GiB  102 MiB/s  10s left  3 of 9 files  000007.sst"},
		{Unit{Noun: "records"}, Work{Done: 1_500_000, Total: 3_000_000, Found: 500_000}, "50%  1,500,000 of 3,000,000 records  100,000/s  15s left"},
		{Unit{Noun: "records"}, Work{Done: 20}, "20 records  2/s"},
		{Unit{}, Work{Total: 7, Item: "a\x1b[2J"}, "0%  0 of 7  0/s  a·[2J"},
		{Unit{}, Work{Done: 9, Total: 7}, "100%  9 of 7  0/s"},
		{Unit{Share: true}, Work{Done: 100, Total: 400, More: "3 of 9 repositories", Item: "records"}, "25%  30s left  3 of 9 repositories  records"},
		{Unit{}, Work{Done: 1, Total: math.MaxInt64}, "0%  1 of 9,223,372,036,854,775,807  0/s"},
	} {
		p := NewProgress(New(new(bytes.Buffer), nil), "working", row.unit)
		if got := strings.Join(p.parts(row.work, 10*time.Second), "  "); got != row.want {
			t.Errorf("%+v: %q, want %q", row.work, got, row.want)
		}
	}
}

// TestProgressFits: the drawn line is narrower than the terminal, however long its parts are.
func TestProgressFits(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	term := &Terminal{out: &out, fd: math.MaxInt32} // its size cannot be read: it is terminalColumns
	p := NewProgress(term, "storing", Bytes())
	p.Set(Work{Done: 1 << 40, Total: 3 << 40, Item: strings.Repeat("日本", 99)})
	p.write(time.Hour)
	line := strings.TrimPrefix(out.String(), "\r\x1b[K")
	if n := runewidth.StringWidth(line); n >= terminalColumns || !strings.Contains(line, "33%") || !strings.Contains(line, "━") {
		t.Errorf("%d columns: %q", n, line)
	}
}

// TestProgressWithoutTerminal: a line is written every ten seconds, and none after the end.
func TestProgressWithoutTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := NewProgress(New(&out, nil), "storing", Bytes())
		failed := errors.New("failed")
		err := p.During(t.Context(), func(context.Context) error {
			for i := range int64(25) {
				p.Set(Work{Done: i << 20, Total: 25 << 20})
				time.Sleep(time.Second)
			}
			return failed
		})
		if !errors.Is(err, failed) {
			t.Error(err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[1], "of 25 MiB") || !strings.HasPrefix(lines[0], "storing  ") {
			t.Errorf("%q", lines)
		}
	})
}
