package fetch_test

import (
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/backfill/fetch"
)

// drip is a body of which so many bytes come each second.
type drip struct{ left, each int }

func (d *drip) Read(p []byte) (int, error) {
	if d.left <= 0 {
		return 0, io.EOF
	}
	time.Sleep(time.Second)
	n := min(d.left, d.each, len(p))
	d.left -= n
	return n, nil
}

// TestSteadyTransfer: a body that keeps arriving may take hours, and one that does not is cancelled
// within a minute.
func TestSteadyTransfer(t *testing.T) {
	for name, c := range map[string]struct {
		body    drip
		options fetch.Options
		want    string // the error
		within  time.Duration
	}{
		"8 Mbit/s for an hour":   {drip{3600 << 20, 1 << 20}, fetch.Options{}, "", time.Hour},
		"4 KiB/s for five hours": {drip{5 * 3600 << 12, 1 << 12}, fetch.Options{}, "", 5 * time.Hour},
		"one that never ends":    {drip{1 << 40, 1 << 12}, fetch.Options{}, "too long", 6 * time.Hour},
		"one beyond what is set": {drip{1 << 40, 1 << 12}, fetch.Options{FetchTimeout: 10 * time.Minute}, "too long", 10 * time.Minute},
		"1 KiB/s":                {drip{1 << 30, 1 << 10}, fetch.Options{}, "too slowly", time.Minute},
		"1 byte/s":               {drip{1 << 30, 1}, fetch.Options{}, "too slowly", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				err := fetch.Transfer(t.Context(), c.options, &c.body)
				if took := time.Since(begin); took > c.within+time.Minute || took < c.within-31*time.Second {
					t.Errorf("it ended after %s", took)
				}
				if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// TestLongTransfers: long transfers hold at most a part of the permits while other repositories
// wait, whatever their hosts send. While permits are free they continue.
func TestLongTransfers(t *testing.T) {
	for name, c := range map[string]struct{ permits, bodies, least, most int }{
		// The second may find the permit of the first free again.
		"all permits are taken":   {8, 8, 1, 2},
		"one is free":             {8, 7, 0, 0},
		"fewer than may be long":  {8, 6, 0, 0},
		"there is but one permit": {1, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := func() io.Reader { return &drip{3600 << 12, 1 << 12} }
				stopped := 0
				for _, err := range fetch.Transfers(t.Context(), fetch.Options{Concurrency: c.permits}, c.bodies, body) {
					if err != nil {
						stopped++
					}
				}
				if stopped < c.least || stopped > c.most {
					t.Errorf("%d of %d transfers were stopped, want %d to %d", stopped, c.bodies, c.least, c.most)
				}
			})
		})
	}
}
