package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"cistern/api/wire"
	"cistern/copies"
	"cistern/store"
)

// checkpoints lends copies of the store to commands on this machine.
type checkpoints struct {
	make     func(context.Context) (*store.Checkpoint, error)
	copies   *copies.Registry
	stopping func() bool
	version  string
	logger   *slog.Logger
}

// checkpointRow is the answer of POST /checkpoint.
type checkpointRow struct {
	Dir     string `json:"dir"` // absolute
	Epoch   string `json:"epoch"`
	Head    uint64 `json:"head"`
	Format  int    `json:"format"`
	Version string `json:"version"`
	// ID names the copy for PUT /copies/{id}/result. It is absent if the request did not state what
	// the checkpoint is for.
	ID string `json:"id,omitempty"`
}

// lend handles POST /checkpoint: it makes a checkpoint below the directory of the store, and
// answers where. The answer does not end: the checkpoint is kept as long as the client keeps the
// connection, so that a command that is killed leaves nothing. The request chooses neither the
// place nor the content. If it states what the checkpoint is for, the copy is recorded.
func (c *checkpoints) lend(w http.ResponseWriter, r *http.Request) error {
	statement, stated, err := readStatement(w, r) // to its end, as wire.DiscardBody does
	if err != nil {
		return err
	}
	// A checkpoint may have to wait for hours. Then it is kept for as long as the client copies it.
	conn := http.NewResponseController(w)
	if err := errors.Join(conn.SetReadDeadline(time.Time{}),
		conn.SetWriteDeadline(time.Time{})); err != nil {
		return err
	}
	made, err := c.make(r.Context())
	if errors.Is(err, store.ErrCheckpoints) {
		return wire.Refuse("Conflict", "%s: wait until a backup ends", err)
	}
	if err != nil {
		return operationRefusal("checkpoint", err)
	}
	defer func() {
		if err := made.Close(); err != nil {
			c.logger.Warn("a checkpoint was not removed; the next start removes it", "dir", made.Dir,
				"err", err)
		}
	}()
	dir, err := filepath.Abs(made.Dir)
	if err != nil {
		return err
	}
	answer := checkpointRow{Dir: dir, Epoch: made.Epoch, Head: made.Head, Format: made.Format,
		Version: c.version}
	if stated {
		answer.ID = c.copies.Begin(statement)
		defer func() { c.copies.End(answer.ID, c.cause()) }() // no change if it has a result
	}
	row, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", wire.TypeNDJSON)
	if _, err := w.Write(append(row, '\n')); err != nil || conn.Flush() != nil {
		return nil // the client is gone
	}
	<-r.Context().Done()
	return nil
}

// cause returns why a copy ended without a result.
func (c *checkpoints) cause() string {
	if c.stopping() {
		return copies.Stopped
	}
	return copies.Gone
}
