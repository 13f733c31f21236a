package condition

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// Disk waits while the disk that dir is on has less free than its reserve, which reserve returns
// for the size of the disk in bytes. Below a quarter of the reserve the daemon must stop, while
// there is still room to close the store.
func Disk(p Probe, dir string, reserve func(total uint64) uint64) Condition {
	return Condition{Name: "disk", Halts: true, Read: func(time.Time) (Reading, error) {
		free, total, err := p.Disk(dir)
		if err != nil {
			return Reading{}, fmt.Errorf("free space of %s: %w", dir, err)
		}
		return diskReading(dir, free, reserve(total)), nil
	}}
}

func diskReading(dir string, free, reserve uint64) Reading {
	r := Reading{Level: atLeast(free, reserve, reserve+reserve/diskSlack), Subject: dir,
		Text: humanize.IBytes(free) + " free, " + humanize.IBytes(reserve) + " needed"}
	if free < reserve/4 {
		r.Stop = fmt.Errorf("disk of %s has %s free, less than a quarter of the reserve of %s: "+
			"stopped while the store can still be closed; free some space or lower --disk-reserve",
			dir, humanize.IBytes(free), humanize.IBytes(reserve))
	}
	return r
}
