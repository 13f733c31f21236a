package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"cistern/gate"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// diskGuard keeps the reserve of the disk that the store is on. Below the reserve imports pause.
// Below a quarter of it the daemon stops, while there is still room to close the store.
type diskGuard struct {
	dir     string
	reserve reserve
	every   time.Duration
	free    func(dir string) (free, total uint64, err error)
	log     *slog.Logger

	shortage func(reason string) // takes why the disk is short, "" when it is not any more
	gates    []*gate.Gate        // of the parts that write much
	short    bool                // as the last look found
}

const diskEvery = 2 * time.Second

// newDiskGuard returns the guard of the disk that dir is on. Below the reserve it shuts the gates
// and calls shortage with the reason.
func newDiskGuard(dir string, r reserve, log *slog.Logger, shortage func(reason string),
	gates ...*gate.Gate) *diskGuard {
	return &diskGuard{dir: dir, reserve: r, every: diskEvery, free: diskFree, log: log,
		shortage: shortage, gates: gates}
}

// Run watches the disk until ctx ends, or until the disk is so full that the daemon has to stop.
func (g *diskGuard) Run(ctx context.Context) error {
	tick := time.NewTicker(g.every)
	defer tick.Stop()
	for {
		if err := g.look(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// start fails if the daemon would stop at once on this disk. It runs before the store is created,
// so it looks at the nearest existing directory above it.
func (g *diskGuard) start() error {
	dir := g.dir
	for {
		_, err := os.Stat(dir)
		if above := filepath.Dir(dir); errors.Is(err, fs.ErrNotExist) && above != dir {
			dir = above
			continue
		}
		_, _, err = g.room(dir)
		return err
	}
}

// room returns the free space at dir and the reserve there, or an error if the daemon must stop.
func (g *diskGuard) room(dir string) (free, floor uint64, err error) {
	free, total, err := g.free(dir)
	if err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	floor = g.reserve.of(total)
	if free < floor/4 {
		return free, floor, fmt.Errorf("disk of %s has %s free, less than a quarter of the "+
			"reserve of %s: stopped while the store can still be closed; free some space or lower "+
			"--disk-reserve", dir, humanize.IBytes(free), humanize.IBytes(floor))
	}
	return free, floor, nil
}

// look shuts the gates, or opens them again.
func (g *diskGuard) look() error {
	free, floor, err := g.room(g.dir)
	if err != nil {
		return err
	}
	was := g.short
	g.short = free < floor
	reason := fmt.Sprintf("the disk has %s free, less than the reserve of %s",
		humanize.IBytes(free), humanize.IBytes(floor))
	for _, part := range g.gates {
		if g.short {
			part.Shut(gate.Cause{Name: "disk", Halts: true, Reason: reason})
		} else if was {
			part.Open("disk")
		}
	}
	switch {
	case g.short:
		g.shortage(reason)
	case was:
		g.shortage("")
	}
	switch {
	case g.short == was:
	case g.short:
		g.log.Warn("disk space is below the reserve, imports pause", "dir", g.dir,
			"free", humanize.IBytes(free), "reserve", humanize.IBytes(floor))
	default:
		g.log.Info("disk space is above the reserve, imports resume", "dir", g.dir,
			"free", humanize.IBytes(free))
	}
	return nil
}

// diskFree returns the space that an ordinary user may still use at dir, and the size of its disk.
func diskFree(dir string) (free, total uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}
