package storetest

import (
	"math/rand/v2"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// CrashFS is a file system in memory that can be cloned as a crash would leave it. It is for
// store.Options.FS, under the store's goroutines.
type CrashFS struct {
	*vfs.MemFS
	// Link and Clone of MemFS deadlock when they run at the same time
	linking sync.RWMutex
}

// NewCrashFS returns an empty file system.
func NewCrashFS() *CrashFS { return &CrashFS{MemFS: vfs.NewCrashableMem()} }

// Clone returns what a crash at this moment leaves: everything that was synced, and of the rest,
// file by file and block by block, about percent of a hundred. The clone can crash too.
func (f *CrashFS) Clone(rng *rand.Rand, percent int) *CrashFS {
	f.linking.Lock()
	defer f.linking.Unlock()
	return &CrashFS{MemFS: f.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})}
}

// Link implements vfs.FS.
func (f *CrashFS) Link(oldname, newname string) error {
	f.linking.RLock()
	defer f.linking.RUnlock()
	return f.MemFS.Link(oldname, newname)
}
