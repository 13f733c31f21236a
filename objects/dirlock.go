package objects

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrInUse means that another user has locked a file.
var ErrInUse = errors.New("in use")

// Lock makes a file of the directory and locks it, until release is called or the process ends. The
// error is ErrInUse if another user has it, of this process or another one. Release deletes the
// file.
func (d *Directory) Lock(name string) (release func() error, err error) {
	if err = MakeDirs(d.root); err != nil {
		return nil, err
	}
	var unlock func() error
	err = d.within(name, func(root *os.Root, file string) error {
		if err := makeDirsIn(root, filepath.Dir(file)); err != nil {
			return err
		}
		for {
			unlock, err = lockIn(root, file)
			if !errors.Is(err, errReplaced) {
				return err
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("lock %s in %s: %w", name, d.root, err)
	}
	return func() error {
		// Deleted before it is unlocked: a user that waits for it finds another file, or makes one.
		return errors.Join(d.remove(name), unlock())
	}, nil
}

// remove deletes a file that may be gone.
func (d *Directory) remove(name string) error {
	err := d.within(name, func(root *os.Root, file string) error { return root.Remove(file) })
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return err
}

// errReplaced means that the file was deleted between its opening and its lock.
var errReplaced = errors.New("the file was replaced")

// lockIn locks a file.
func lockIn(root *os.Root, file string) (release func() error, err error) {
	f, err := root.OpenFile(file, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrInUse
	}
	if err == nil {
		err = same(root, file, f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

// same returns errReplaced if a file has another name by now, or none.
func same(root *os.Root, file string, f *os.File) error {
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	named, err := root.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(opened, named) {
		return errReplaced
	}
	return err
}
