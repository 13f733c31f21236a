package backup

import (
	"bytes"
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
	"cistern/store"
)

// The names of objects.
const (
	generationsDir = "generations"
	tablesDir      = "tables"
	manifestName   = "manifest"
	completeName   = "complete"
)

// Limits on what a destination says.
const (
	// manifestBytesMax allows a million files of some 200 bytes each.
	manifestBytesMax = 256 << 20
	markerBytesMax   = 4 << 10
	filesMax         = 1 << 20
	// fileBytesMax is far above the size of any file of the engine, and totalBytesMax above the
	// size of any store: sums of sizes do not overflow.
	fileBytesMax  = 1 << 40
	totalBytesMax = 1 << 50
	// generationsMax bounds the complete backups of a destination that are read: 300 MB.
	generationsMax = 1 << 20
	// namedMax bounds the different files that all generations name together: 500 MB.
	namedMax = 2 << 20
	// textMax bounds the text of a destination that an error quotes.
	textMax = 200
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
	Files   fileList  `json:"files"`
}

// fileList is decoded one file at a time, so that a short text cannot become a list that takes much
// memory.
type fileList []File

// UnmarshalJSON decodes a list of at most filesMax files.
func (l *fileList) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return errors.Join(err, errors.New("the files are not a list"))
	}
	for *l = nil; dec.More(); {
		if len(*l) == filesMax {
			return errFiles
		}
		var f File
		if err := dec.Decode(&f); err != nil {
			return err
		}
		*l = append(*l, f)
	}
	return nil
}

var errFiles = fmt.Errorf("more than %d files", filesMax)

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

func objectOf(generation, name string) string {
	return generationsDir + "/" + generation + "/" + name
}

// generationTime is the layout of the time in the name of a generation. Names sort by time.
const generationTime = "20060102T150405.000Z"

var (
	generationNames = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9a-f]{1,64}$`)
	fileNames       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$`)
	epochs          = regexp.MustCompile(`^[0-9a-f]{1,64}$`)
)

// check returns an error for a manifest that no backup writes: restoring it could write elsewhere.
func (m *Manifest) check() error {
	if len(m.Files) > filesMax {
		return errFiles
	}
	seen, total := make(map[string]bool, len(m.Files)), int64(0)
	for _, f := range m.Files {
		_, err := objects.ParseSum(f.Sum)
		name := strings.ToLower(f.Name) // some file systems take A and a for the same name
		switch {
		case !fileNames.MatchString(f.Name) || strings.HasSuffix(name, objects.PartSuffix) ||
			name == strings.ToLower(store.RestoredName):
			return fmt.Errorf("file name %.80q is not one of a store", f.Name)
		case seen[name]:
			return fmt.Errorf("file %s is listed twice", f.Name)
		case f.Size < 0 || f.Size > fileBytesMax:
			return fmt.Errorf("file %s: size %d is negative or above %d", f.Name, f.Size,
				int64(fileBytesMax))
		case err != nil:
			return fmt.Errorf("file %s: %w", f.Name, err)
		}
		seen[name] = true
		if total += f.Size; total > totalBytesMax {
			return fmt.Errorf("%d bytes, more than %d", total, int64(totalBytesMax))
		}
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

// check returns an error for a marker that a backup of this name cannot have written.
func (g *Generation) check() error {
	_, err := objects.ParseSum(g.Manifest)
	if !strings.HasSuffix(g.Name, "-"+g.Epoch) || !epochs.MatchString(g.Epoch) || g.Size < 0 ||
		g.Size > manifestBytesMax || g.Files < 0 || g.Files > filesMax || g.Bytes < 0 ||
		g.Bytes > totalBytesMax {
		err = errors.Join(err, errors.New("not the marker of a backup"))
	}
	return err
}

// listNames returns the names of generations that have a marker, oldest first.
func listNames(ctx context.Context, d objects.Destination) (names []string, err error) {
	err = d.List(ctx, generationsDir+"/", func(o objects.Object) error {
		name, ok := strings.CutSuffix(o.Name, "/"+completeName)
		name = strings.TrimPrefix(name, generationsDir+"/")
		if !ok || !generationNames.MatchString(name) {
			return nil
		}
		if len(names) == generationsMax {
			return fmt.Errorf("%s has more than %d generations", d, generationsMax)
		}
		names = append(names, name)
		return nil
	})
	slices.Sort(names)
	return names, err
}

// List returns the complete generations of a destination, oldest first.
func List(ctx context.Context, d objects.Destination) (all []Generation, err error) {
	names, err := listNames(ctx, d)
	if err != nil {
		return nil, err
	}
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
func readMarker(
	ctx context.Context, d objects.Destination, name string,
) (g Generation, ok bool, err error) {
	text, err := objects.ReadAll(ctx, d, objectOf(name, completeName), markerBytesMax)
	if errors.Is(err, objects.ErrNotFound) || errors.Is(err, objects.ErrDamaged) {
		return g, false, nil
	}
	if err != nil {
		return g, false, err
	}
	g, err = parseMarker(name, text)
	return g, err == nil, nil
}

// parseMarker decodes the marker of a generation.
func parseMarker(name string, text []byte) (g Generation, err error) {
	if err := json.Unmarshal(text, &g); err != nil {
		return g, err
	}
	g.Name = name
	return g, g.check()
}

// Find returns the generation of a name; the newest one for "".
func Find(ctx context.Context, d objects.Destination, name string) (Generation, error) {
	names, err := listNames(ctx, d)
	if err != nil {
		return Generation{}, err
	}
	for _, other := range slices.Backward(names) {
		if name != "" && other != name {
			continue
		}
		if g, ok, err := readMarker(ctx, d, other); ok || err != nil {
			return g, err
		}
	}
	if name == "" {
		return Generation{}, errNone(d)
	}
	return Generation{}, fmt.Errorf("generation %.80q of %s: %w; 'cistern backup ls %[2]s' lists "+
		"them", name, d, objects.ErrNotFound)
}

// Select returns the generation with a name, or for "" all generations, oldest first. It returns
// ErrNotFound for an unknown name, and for a destination without a complete backup.
func Select(ctx context.Context, d objects.Destination, name string) ([]Generation, error) {
	if name != "" {
		g, err := Find(ctx, d, name)
		return []Generation{g}, err
	}
	all, err := List(ctx, d)
	if err == nil && len(all) == 0 {
		err = errNone(d)
	}
	return all, err
}

func errNone(d objects.Destination) error {
	return fmt.Errorf("%s has no complete backup: %w", d, objects.ErrNotFound)
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
		return nil, fmt.Errorf("%s of %s: %w: its SHA-256 is %s instead of %s",
			name, d, objects.ErrDamaged, sum, g.Manifest)
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w: %.*s", name, d, objects.ErrDamaged, textMax, err)
	}
	return m, nil
}

// parseManifest decodes a manifest and checks it.
func parseManifest(text []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := json.Unmarshal(text, m); err != nil {
		return nil, err
	}
	return m, m.check()
}

// nameGeneration returns a name for a backup that sorts behind all others, whatever the clock says.
func nameGeneration(now time.Time, epoch string, others []Generation) (string, error) {
	if !epochs.MatchString(epoch) {
		return "", fmt.Errorf("epoch %.80q cannot name a generation", epoch)
	}
	now = now.UTC().Truncate(time.Millisecond)
	last := ""
	if len(others) > 0 {
		last = others[len(others)-1].Name
		text, _, _ := strings.Cut(last, "-")
		newest, err := time.Parse(generationTime, text)
		if err == nil && !newest.Before(now) {
			now = newest.Add(time.Millisecond)
		}
	}
	name := now.Format(generationTime) + "-" + epoch
	if !generationNames.MatchString(name) {
		return "", fmt.Errorf("no generation can come after %s: delete it", last)
	}
	return name, nil
}

// publish writes a generation. Until the marker is written, it does not exist.
func publish(
	ctx context.Context, d objects.Destination, name string, m *Manifest, held func() error,
) (Generation, error) {
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
