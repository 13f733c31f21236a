package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// RestoredName is the file of a directory that states that a backup is or was restored there.
	RestoredName = "RESTORED"
	// restoredBytesMax bounds that file, which takes some 200 bytes.
	restoredBytesMax = 64 << 10
	// lockName is the file by which the engine locks a directory.
	lockName = "LOCK"
)

// Restored states how far the restoring of a directory is. Until it is complete, the directory
// cannot be opened: without its last files, the engine would begin a new store there. The first
// Open of a complete directory gives the log a new epoch, because ids after the head of the backup
// name other events than in the store that was backed up.
type Restored struct {
	Source     string `json:"source"`     // names the destination of the backup
	Generation string `json:"generation"` // of the destination
	Manifest   string `json:"manifest"`   // the hash of what is restored
	Complete   bool   `json:"complete"`   // the directory has every file
}

// ReadRestored reads the file RestoredName of a directory. ok is false without such a file.
func ReadRestored(dir string) (r Restored, ok bool, err error) {
	return readRestored(vfs.Default, dir)
}

func readRestored(files vfs.FS, dir string) (r Restored, ok bool, err error) {
	name := path.Join(dir, RestoredName)
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	text, err := io.ReadAll(io.LimitReader(f, restoredBytesMax+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return r, false, err
	}
	if len(text) > restoredBytesMax {
		return r, false, fmt.Errorf("read %s: more than the %d bytes that it may have", name,
			restoredBytesMax)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, false, fmt.Errorf("read %s: %w", name, err)
	}
	return r, true, nil
}

// Write writes r to a directory, in place of the file that is there. It returns when r is durable;
// a crash before leaves the old file or the new one.
func (r Restored) Write(dir string) error { return r.write(vfs.Default, dir) }

func (r Restored) write(files vfs.FS, dir string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := path.Join(dir, RestoredName)
	f, err := files.Create(name+".part", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(files.Rename(name+".part", name), syncDir(files, dir))
}

// syncDir makes the names of the files in a directory durable.
func syncDir(files vfs.FS, dir string) error {
	d, err := files.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// refuseHalf returns an error for a directory that is not restored completely.
func (s *Store) refuseHalf() error {
	r, ok, err := readRestored(s.opts.FS, s.opts.Dir)
	if err != nil {
		return fmt.Errorf("open store %s: %w", s.opts.Dir, err)
	}
	if ok && !r.Complete {
		return fmt.Errorf("open store %s: %w: generation %s of %s: run cistern restore again, or "+
			"empty the directory", s.opts.Dir, ErrHalfRestored, r.Generation, r.Source)
	}
	s.restored = ok
	return nil
}

// renewEpoch gives a store that was restored its new epoch. A crash before the file is removed
// leads to yet another epoch, which nothing has seen the first of.
func (s *Store) renewEpoch() error {
	if !s.restored {
		return nil
	}
	epoch, err := newEpoch()
	if err != nil {
		return err
	}
	s.epoch = epoch
	if s.opts.ReadOnly { // the old epoch must not be shown
		return nil
	}
	b := s.db.NewBatch()
	if err := errors.Join(b.Set(metaKey(metaEpoch), []byte(s.epoch), nil),
		b.Delete(metaKey(metaCopies), nil), s.apply(b, pebble.Sync)); err != nil {
		return err
	}
	// The epoch is durable now, and the file goes before anything is served.
	return errors.Join(s.opts.FS.Remove(path.Join(s.opts.Dir, RestoredName)),
		syncDir(s.opts.FS, s.opts.Dir))
}
