package condition

import (
	"fmt"
	"path/filepath"
	"time"
)

// Mount waits while dir is not on the mount point: a disk that is not mounted leaves an empty
// directory of another disk in its place.
func Mount(p Probe, dir, point string) Condition {
	return Condition{Name: "mount", Halts: true, Read: func(time.Time) (Reading, error) {
		on, err := p.Mount(dir)
		if err != nil {
			return Reading{}, fmt.Errorf("mount point of %s: %w", dir, err)
		}
		r := Reading{Text: "the data directory is on its mount point",
			Subject: fmt.Sprintf("%s is on %s, %s needed", dir, on, filepath.Clean(point))}
		if on != filepath.Clean(point) {
			r.Level, r.Text = Bad, "the data directory is not on its mount point"
		}
		if on == "" {
			r.Subject = fmt.Sprintf("%s does not exist, %s needed", dir, filepath.Clean(point))
		}
		return r, nil
	}}
}
