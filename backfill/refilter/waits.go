package refilter

import (
	"errors"

	"cistern/store"
)

// waits are batches that were applied and may not be durable yet. The owner waits once for many,
// without locks. Each batch keeps its memory until then.
type waits struct {
	waits []func() error
	bytes int64
}

// update changes a row, and keeps the wait.
func (w *waits) update(
	s *store.Store, did string, change func(b *store.Batch, row *store.Repo) error,
) error {
	var n int64
	wait, err := s.UpdateRepo(did, func(b *store.Batch, row *store.Repo) error {
		err := change(b, row)
		n = b.Bytes()
		return err
	})
	if err == nil {
		w.add(wait, n)
	}
	return err
}

func (w *waits) add(wait func() error, bytes int64) {
	w.waits = append(w.waits, wait)
	w.bytes += bytes
}

// bound waits for the disk if the batches take much memory.
func (w *waits) bound() error {
	if w.bytes < waitsBytesMax {
		return nil
	}
	return w.settle()
}

// settle waits until all of them are durable.
func (w *waits) settle() (err error) {
	for _, wait := range w.waits {
		err = errors.Join(err, wait())
	}
	clear(w.waits)
	w.waits, w.bytes = w.waits[:0], 0
	return err
}
