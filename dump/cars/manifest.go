package cars

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"cistern/objects"
	"cistern/store"
)

// The objects of an export beside its CARs.
const (
	manifestName = "manifest.json"
	progressName = "progress.json"
)

// ErrComplete means that a destination has a complete export.
var ErrComplete = errors.New("export is complete")

// Line is a line of the manifest: a repository, and its CAR or why it has none.
type Line struct {
	DID     string `json:"did"`
	Rev     string `json:"rev,omitempty"`
	Path    string `json:"path,omitempty"`
	Records int64  `json:"records,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	SHA     string `json:"sha256,omitempty"`
	LeftOut string `json:"left_out,omitempty"`
}

// Manifest describes a complete export.
type Manifest struct {
	Format       string    `json:"format"` // "car"
	Epoch        string    `json:"epoch"`  // of the log
	Head         uint64    `json:"head"`   // newest event of the store when the export began
	DIDs         []string  `json:"dids,omitempty"`
	Begun        time.Time `json:"begun"`
	Ended        time.Time `json:"ended"`
	Repositories int64     `json:"repositories"` // with a CAR
	LeftOut      int64     `json:"left_out"`     // without
	Damaged      int64     `json:"damaged"`      // of LeftOut: the copy does not agree with its commit
	Records      int64     `json:"records"`
	Bytes        int64     `json:"bytes"` // of CARs
	Parts        []Part    `json:"parts"`
}

// Part is a part of the manifest.
type Part struct {
	Name  string `json:"name"`
	Lines int64  `json:"lines"`
	Bytes int64  `json:"bytes"`
	SHA   string `json:"sha256"`
}

// progress is how far an export is.
type progress struct {
	Manifest
	After store.Ordinal `json:"after"` // of the last repository; with DIDs, how many of them are done
}

// add counts a line.
func (m *Manifest) add(l *Line, damaged bool) {
	if l.LeftOut != "" {
		m.LeftOut++
		if damaged {
			m.Damaged++
		}
		return
	}
	m.Repositories++
	m.Records += l.Records
	m.Bytes += l.Bytes
}

// pathOf returns the name of the CAR of an account.
func pathOf(did string) string {
	sum := sha256.Sum256([]byte(did))
	hash := hex.EncodeToString(sum[:])
	name := did
	if len(did) > didBytesMax {
		name = hash
	}
	return "repos/" + hash[:2] + "/" + name + ".car"
}

// putPart stores a part of the manifest.
func (x *run) putPart(ctx context.Context, lines []Line) error {
	m := &x.state.Manifest
	if len(m.Parts) == partsMax {
		return fmt.Errorf("an export has at most %d parts: name a part of the accounts", partsMax)
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	for i := range lines {
		if err := encoder.Encode(&lines[i]); err != nil {
			return err
		}
	}
	sum := objects.Sum(sha256.Sum256(text.Bytes()))
	p := Part{Name: fmt.Sprintf("manifest-%05d.ndjson", len(m.Parts)+1), Lines: int64(len(lines)),
		Bytes: int64(text.Len()), SHA: sum.String()}
	err := x.to.Put(ctx, p.Name, objects.Content{Reader: bytes.NewReader(text.Bytes()), Size: p.Bytes, Sum: sum})
	if err == nil {
		m.Parts = append(m.Parts, p)
	}
	return err
}

// putJSON stores a value under a name.
func (x *run) putJSON(ctx context.Context, name string, value any) error {
	text, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	return x.to.Put(ctx, name, objects.Content{Reader: bytes.NewReader(text), Size: int64(len(text)),
		Sum: sha256.Sum256(text)})
}

// resume takes over the progress that a destination has of an export of the same accounts from the
// same log. Otherwise the export begins anew.
func (x *run) resume(ctx context.Context, d objects.Destination) error {
	_, err := objects.ReadAll(ctx, d, manifestName, progressBytesMax)
	if err == nil {
		return fmt.Errorf("%s has %s: %w", d, manifestName, ErrComplete)
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
		return fmt.Errorf("%s has a part of another export: of another store, or of other accounts; name "+
			"another destination, or delete %s", d, progressName)
	}
	x.state, x.found = p, p.Repositories+p.LeftOut
	return nil
}
