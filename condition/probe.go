package condition

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Probe reads the machine. Its functions are called by one goroutine at a time, but for Disk, which
// may be called from any goroutine.
type Probe struct {
	// Disk returns the space that an ordinary user may still use at dir, and the size of its disk,
	// in bytes.
	Disk func(dir string) (free, total uint64, err error)
	// Mount returns the mount point that dir is on, "" if dir does not exist.
	Mount func(dir string) (point string, err error)
	// Stalled returns in how many percent of the last ten seconds some task waited for a resource.
	Stalled func(Resource) (percent float64, err error)
	// Overload returns by how many percent the load of the last minute exceeds the processors; 0 if
	// it does not.
	Overload func() (percent float64, err error)
	// Available returns how many percent of the memory are available.
	Available func() (percent float64, err error)
}

// System returns the Probe of this machine. Where the kernel lacks a figure, its function fails.
func System() Probe {
	return Probe{Disk: diskOf, Mount: mountOf, Stalled: stalled, Overload: overload,
		Available: available}
}

func diskOf(dir string) (free, total uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}

func mountOf(dir string) (point string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	dir, err = filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	mounts, err := procfs.GetMounts()
	if err != nil {
		return "", err
	}
	for _, m := range mounts {
		at := unescape.Replace(m.MountPoint)
		// A later mount at the same point hides the earlier one.
		if within(dir, at) && len(at) >= len(point) {
			point = at
		}
	}
	if point == "" {
		return "", fmt.Errorf("no mount point of %s is listed", dir)
	}
	return point, nil
}

// unescape undoes how the kernel writes mount points.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// within reports whether a clean path is at or below another.
func within(path, above string) bool {
	return path == above || strings.HasPrefix(path, strings.TrimSuffix(above, "/")+"/")
}

func stalled(of Resource) (percent float64, err error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, err
	}
	stats, err := proc.PSIStatsForResource(string(of))
	if err != nil {
		return 0, err
	}
	if stats.Some == nil {
		return 0, fmt.Errorf("the kernel has no pressure of %s", of)
	}
	return stats.Some.Avg10, nil
}

func overload() (percent float64, err error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, err
	}
	load, err := proc.LoadAvg()
	if err != nil {
		return 0, err
	}
	return max(0, 100*(load.Load1/float64(runtime.NumCPU())-1)), nil
}

func available() (percent float64, err error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return 0, err
	}
	memory, err := proc.Meminfo()
	if err != nil {
		return 0, err
	}
	if memory.MemAvailableBytes == nil || memory.MemTotalBytes == nil || *memory.MemTotalBytes == 0 {
		return 0, errors.New("the kernel does not tell how much memory is available")
	}
	return 100 * float64(*memory.MemAvailableBytes) / float64(*memory.MemTotalBytes), nil
}
