package backup

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"cistern/objects"
)

// The names of objects.
const (
	generationsDir = "generations"
	tablesDir      = "tables"
	locksDir       = "locks"
	manifestName   = "manifest"
	completeName   = "complete"
)

// Limits on what a destination says.
const (
	// manifestBytesMax allows a million files of some 200 bytes each.
	manifestBytesMax = 256 << 20
	markerBytesMax   = 4 << 10
	filesMax         = 1 << 20
	// listedMax bounds the objects of a listing that are kept in memory: 200 MB.
	listedMax = 2 << 20
)

// File is a file of a backup. Its content is the object that tableName returns.
type File struct {
	Name     string `json:"name"` // in the directory of the store
	Size     int64  `json:"size"` // bytes
	Sum      string `json:"sum"`
	Modified int64  `json:"modified"` // of the file that was copied, unix nanoseconds
}

// Manifest lists the files of a generation.
type Manifest struct {
	Epoch   string    `json:"epoch"`  // of the log
	Head    uint64    `json:"head"`   // newest event id
	Format  int       `json:"format"` // of the store
	Version string    `json:"version"`
	Created time.Time `json:"created"`
	Files   []File    `json:"files"`
}

// Generation is one complete backup.
type Generation struct {
	Name     string    `json:"-"`
	Manifest string    `json:"manifest"` // the sum of the manifest
	Size     int64     `json:"size"`     // bytes of the manifest
	Created  time.Time `json:"created"`
	Epoch    string    `json:"epoch"`
	Head     uint64    `json:"head"`
	Files    int       `json:"files"`
	Bytes    int64     `json:"bytes"` // of all files
}

func tableName(sum string) string { return tablesDir + "/" + sum }

func objectOf(generation, name string) string { return generationsDir + "/" + generation + "/" + name }

// generationTime is the layout of the time in the name of a generation. Names sort by time.
const generationTime = "20060102T150405.000Z"

var (
	generationNames = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9a-f]{1,64}$`)
	fileNames       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$`)
)

// check returns an error for a manifest that no backup writes: restoring it could write elsewhere.
func (m *Manifest) check() error {
	if len(m.Files) > filesMax {
		return fmt.Errorf("%d files, more than %d", len(m.Files), filesMax)
	}
	seen := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		_, err := objects.ParseSum(f.Sum)
		switch {
		case !fileNames.MatchString(f.Name) || strings.HasSuffix(f.Name, objects.PartSuffix):
			return fmt.Errorf("file name %.80q is not one of a store", f.Name)
		case seen[f.Name]:
			return fmt.Errorf("file %s is listed twice", f.Name)
		case f.Size < 0:
			return fmt.Errorf("file %s: size %d is negative", f.Name, f.Size)
		case err != nil:
			return fmt.Errorf("file %s: %w", f.Name, err)
		}
		seen[f.Name] = true
	}
	return nil
}

// bytes returns the size of all files.
func (m *Manifest) bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// List returns the complete generations of a destination, oldest first.
func List(ctx context.Context, d objects.Destination) ([]Generation, error) {
	var names []string
	err := d.List(ctx, generationsDir+"/", func(o objects.Object) error {
		name, ok := strings.CutSuffix(o.Name, "/"+completeName)
		name = strings.TrimPrefix(name, generationsDir+"/")
		if ok && generationNames.MatchString(name) && len(names) < listedMax {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var all []Generation
	for _, name := range names {
		g, ok, err := readMarker(ctx, d, name)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, g)
		}
	}
	return all, nil
}

// readMarker reads the marker of a generation. ok is false if the marker is missing or not whole:
// the backup was interrupted, and the generation does not exist.
func readMarker(ctx context.Context, d objects.Destination, name string) (g Generation, ok bool, err error) {
	text, err := objects.ReadAll(ctx, d, objectOf(name, completeName), markerBytesMax)
	if errors.Is(err, objects.ErrNotFound) || errors.Is(err, objects.ErrDamaged) {
		return g, false, nil
	}
	if err != nil {
		return g, false, err
	}
	if json.Unmarshal(text, &g) != nil {
		return g, false, nil
	}
	_, err = objects.ParseSum(g.Manifest)
	g.Name = name
	return g, err == nil, nil
}

// Find returns the generation of a name; the newest one for "".
func Find(ctx context.Context, d objects.Destination, name string) (Generation, error) {
	all, err := List(ctx, d)
	if err != nil {
		return Generation{}, err
	}
	if name == "" && len(all) > 0 {
		return all[len(all)-1], nil
	}
	for _, g := range all {
		if g.Name == name {
			return g, nil
		}
	}
	if name == "" {
		return Generation{}, fmt.Errorf("%s has no complete backup: %w", d, objects.ErrNotFound)
	}
	return Generation{}, fmt.Errorf("generation %.80q of %s: %w", name, d, objects.ErrNotFound)
}

// ReadManifest reads the manifest of a generation. It returns ErrDamaged if it is not the one that
// the marker names.
func ReadManifest(ctx context.Context, d objects.Destination, g Generation) (*Manifest, error) {
	name := objectOf(g.Name, manifestName)
	text, err := objects.ReadAll(ctx, d, name, manifestBytesMax)
	if errors.Is(err, objects.ErrNotFound) {
		return nil, fmt.Errorf("%s of %s is missing: %w", name, d, objects.ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	if sum := objects.Sum(sha256.Sum256(text)); sum.String() != g.Manifest {
		return nil, fmt.Errorf("%s of %s: %w: its SHA-256 is %s instead of %s", name, d, objects.ErrDamaged,
			sum, g.Manifest)
	}
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("%s of %s: %w: %w", name, d, objects.ErrDamaged, err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%s of %s: %w: %w", name, d, objects.ErrDamaged, err)
	}
	return m, nil
}

// nameGeneration returns a name for a backup that sorts behind all others, whatever the clock says.
func nameGeneration(now time.Time, epoch string, others []Generation) (string, error) {
	now = now.UTC().Truncate(time.Millisecond)
	if len(others) > 0 {
		text, _, _ := strings.Cut(others[len(others)-1].Name, "-")
		newest, err := time.Parse(generationTime, text)
		if err == nil && !newest.Before(now) {
			now = newest.Add(time.Millisecond)
		}
	}
	name := now.Format(generationTime) + "-" + epoch
	if !generationNames.MatchString(name) {
		return "", fmt.Errorf("epoch %.80q cannot name a generation", epoch)
	}
	return name, nil
}

// publish writes a generation. Until the marker is written, it does not exist.
func publish(ctx context.Context, d objects.Destination, name string, m *Manifest, held func() error) (
	Generation, error) {
	g := Generation{Name: name, Created: m.Created, Epoch: m.Epoch, Head: m.Head, Files: len(m.Files),
		Bytes: m.bytes()}
	text, err := json.Marshal(m)
	if err != nil {
		return g, err
	}
	g.Size, g.Manifest = int64(len(text)), objects.Sum(sha256.Sum256(text)).String()
	if err := objects.PutText(ctx, d, objectOf(name, manifestName), text); err != nil {
		return g, err
	}
	marker, err := json.Marshal(g)
	if err != nil {
		return g, err
	}
	// Every table and the manifest are durable, and the lock has kept all of them from deletion.
	if err := held(); err != nil {
		return g, err
	}
	return g, objects.PutText(ctx, d, objectOf(name, completeName), marker)
}
