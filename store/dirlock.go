package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"
)

// openError adds to an error of opening a store what an operator needs to know.
func openError(dir string, err error) error {
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		if pid := lockHolder(filepath.Join(dir, "LOCK")); pid > 0 {
			return fmt.Errorf("open store %s: %w: another daemon or check with process id %d has it open",
				dir, ErrLocked, pid)
		}
	}
	return fmt.Errorf("open store %s: %w", dir, err)
}

// lockHolder returns the id of the process that holds the lock on a file, 0 if there is none.
func lockHolder(path string) int {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK {
		return 0
	}
	return int(lock.Pid)
}

// exists returns an error for a directory without a store. Opening it for reading would leave a
// lock file there.
func exists(o Options) error {
	found, err := pebble.Peek(o.Dir, o.FS)
	if err != nil {
		return fmt.Errorf("open store %s: %w", o.Dir, err)
	}
	if !found.Exists {
		return fmt.Errorf("open store %s: %w: the directory contains no store", o.Dir, ErrNotFound)
	}
	return nil
}
