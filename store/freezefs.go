package store

import (
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// freezeFS is a file system whose operations that change something wait while a door is shut.
type freezeFS struct {
	vfs.FS
	door *door
}

// in enters the door, and returns what leaves it.
func (fs freezeFS) in() (leave func()) {
	fs.door.enter(nil)
	return fs.door.leave
}

// file wraps a file that may be written or synced.
func (fs freezeFS) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return freezeFile{f, fs.door}, nil
}

func (fs freezeFS) Unwrap() vfs.FS { return fs.FS }

func (fs freezeFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	defer fs.in()()
	return fs.file(fs.FS.Create(name, c))
}

func (fs freezeFS) Link(from, to string) error {
	defer fs.in()()
	return fs.FS.Link(from, to)
}

func (fs freezeFS) OpenReadWrite(
	name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption,
) (vfs.File, error) {
	defer fs.in()()
	return fs.file(fs.FS.OpenReadWrite(name, c, o...))
}

func (fs freezeFS) OpenDir(name string) (vfs.File, error) { return fs.file(fs.FS.OpenDir(name)) }

func (fs freezeFS) Remove(name string) error {
	defer fs.in()()
	return fs.FS.Remove(name)
}

func (fs freezeFS) RemoveAll(name string) error {
	defer fs.in()()
	return fs.FS.RemoveAll(name)
}

func (fs freezeFS) Rename(from, to string) error {
	defer fs.in()()
	return fs.FS.Rename(from, to)
}

func (fs freezeFS) ReuseForWrite(
	from, to string, c vfs.DiskWriteCategory,
) (vfs.File, error) {
	defer fs.in()()
	return fs.file(fs.FS.ReuseForWrite(from, to, c))
}

func (fs freezeFS) MkdirAll(dir string, perm os.FileMode) error {
	defer fs.in()()
	return fs.FS.MkdirAll(dir, perm)
}

func (fs freezeFS) Lock(name string) (io.Closer, error) {
	defer fs.in()()
	return fs.FS.Lock(name)
}

// freezeFile is a file of freezeFS.
type freezeFile struct {
	vfs.File
	door *door
}

func (f freezeFile) Write(b []byte) (int, error) {
	f.door.enter(nil)
	defer f.door.leave()
	return f.File.Write(b)
}

func (f freezeFile) WriteAt(b []byte, at int64) (int, error) {
	f.door.enter(nil)
	defer f.door.leave()
	return f.File.WriteAt(b, at)
}

func (f freezeFile) Preallocate(offset, length int64) error {
	f.door.enter(nil)
	defer f.door.leave()
	return f.File.Preallocate(offset, length)
}

func (f freezeFile) Sync() error {
	f.door.enter(nil)
	defer f.door.leave()
	return f.File.Sync()
}

func (f freezeFile) SyncTo(length int64) (full bool, err error) {
	f.door.enter(nil)
	defer f.door.leave()
	return f.File.SyncTo(length)
}

func (f freezeFile) SyncData() error {
	f.door.enter(nil)
	defer f.door.leave()
	return f.File.SyncData()
}
