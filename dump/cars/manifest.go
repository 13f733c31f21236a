package cars

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"cistern/dump/cars/manifest"
	"cistern/objects"
	"cistern/store"
)

// progressName is the name of the progress of an export.
const progressName = "progress.json"

// ErrComplete means that a destination has a complete export.
var ErrComplete = errors.New("export is complete")

// progress is how far an export is.
type progress struct {
	manifest.Manifest
	After store.Ordinal `json:"after"` // of the last repository; with DIDs, how many of them are done
}

// putPart stores a part of the manifest, and counts it.
func (x *run) putPart(ctx context.Context, lines []manifest.Line) error {
	m := &x.state.Manifest
	if len(m.Parts) == partsMax {
		return fmt.Errorf("an export has at most %d parts: name a part of the accounts", partsMax)
	}
	text, p, err := manifest.Encode(fmt.Sprintf("manifest-%05d.ndjson", len(m.Parts)+1), lines)
	if err != nil {
		return err
	}
	if err := x.put(ctx, p.Name, text); err != nil {
		return err
	}
	m.Add(p, lines)
	return nil
}

func (x *run) put(ctx context.Context, name string, text []byte) error {
	return x.to.Put(ctx, name, objects.Content{Reader: bytes.NewReader(text), Size: int64(len(text)),
		Sum: sha256.Sum256(text)})
}

// putJSON stores a value under a name.
func (x *run) putJSON(ctx context.Context, name string, value any) error {
	text, err := manifest.JSON(value)
	if err != nil {
		return err
	}
	return x.put(ctx, name, text)
}

// resume takes over the progress that a destination has of an export of the same accounts from the
// same log. Otherwise the export begins anew.
func (x *run) resume(ctx context.Context, d objects.Destination) error {
	_, err := objects.ReadAll(ctx, d, manifest.Name, progressBytesMax)
	if err == nil {
		return fmt.Errorf("%s has %s: %w", d, manifest.Name, ErrComplete)
	}
	if !errors.Is(err, objects.ErrNotFound) {
		return err
	}
	text, err := objects.ReadAll(ctx, d, progressName, progressBytesMax)
	if errors.Is(err, objects.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var p progress
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("%s in %s: %w: %w", progressName, d, objects.ErrDamaged, err)
	}
	if p.Epoch != x.state.Epoch || !slices.Equal(p.DIDs, x.state.DIDs) {
		return fmt.Errorf("%s has a part of another export: of another store, or of other accounts; "+
			"name another destination, or delete %s", d, progressName)
	}
	x.state, x.found = p, p.Repositories+p.LeftOut
	return nil
}
