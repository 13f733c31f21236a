package fetch

import (
	"fmt"
	"os"
	"sync/atomic"

	"cistern/ingest/repo"
)

// budget is an amount of bytes, or of places, that copies take from without waiting.
type budget struct {
	all  int64
	left atomic.Int64
}

func newBudget(n int64) *budget {
	b := &budget{all: n}
	b.left.Store(n)
	return b
}

func (b *budget) taken() int64 { return b.all - b.left.Load() }

// take takes n bytes if that many are left.
func (b *budget) take(n int64) bool {
	for {
		left := b.left.Load()
		if left < n {
			return false
		}
		if b.left.CompareAndSwap(left, left-n) {
			return true
		}
	}
}

func (b *budget) give(n int64) { b.left.Add(n) }

// spool is an unlinked file, so that no crash leaves one behind.
type spool struct {
	*os.File
	budget *budget
	taken  int64
}

func (c *Copier) openSpool() (repo.Spool, error) {
	f, err := os.CreateTemp(c.opts.SpoolDir, "cistern-spool-*")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpool, err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpool, err)
	}
	return &spool{File: f, budget: c.spools}, nil
}

func (s *spool) Write(p []byte) (int, error) {
	if !s.budget.take(int64(len(p))) {
		return 0, fmt.Errorf("%w: all spools together exceed their limit", ErrSpool)
	}
	s.taken += int64(len(p))
	n, err := s.File.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrSpool, err)
	}
	return n, err
}

// ReadAt marks failures as failures of the local disk.
func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.File.ReadAt(p, off)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrSpool, err)
	}
	return n, err
}

func (s *spool) Close() error {
	s.budget.give(s.taken)
	s.taken = 0
	return s.File.Close()
}
