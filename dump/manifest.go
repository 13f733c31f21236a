package dump

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cistern/objects"
)

// manifestName is the object that makes an export complete.
const manifestName = "manifest.json"

// ErrComplete means that a destination has a complete export.
var ErrComplete = errors.New("export is complete")

// Manifest describes a complete export.
type Manifest struct {
	Format      string    `json:"format"`
	Epoch       string    `json:"epoch"`                 // of the log
	Head        uint64    `json:"head"`                  // the event as of which the records are
	Collections []string  `json:"collections,omitempty"` // that were asked for; none: all
	DIDs        []string  `json:"dids,omitempty"`        // that were asked for; none: all
	CBOR        bool      `json:"cbor,omitempty"`
	Begun       time.Time `json:"begun"`
	Ended       time.Time `json:"ended"`
	Rows        int64     `json:"rows"`
	Bytes       int64     `json:"bytes"`
	Parts       []Part    `json:"parts"`
}

// Part is one file of an export.
type Part struct {
	Name  string `json:"name"`
	Rows  int64  `json:"rows"`
	Bytes int64  `json:"bytes"`
	SHA   string `json:"sha256"`
	First string `json:"first,omitempty"` // at-URI of the first record
	Last  string `json:"last,omitempty"`  // at-URI of the last record
}

// exists reports whether an object exists.
func exists(ctx context.Context, d objects.Destination, name string) (found bool, err error) {
	err = d.List(ctx, name, func(o objects.Object) error {
		found = found || o.Name == name
		return nil
	})
	return found, err
}

// seal writes the manifest, if the destination lists every part with its size.
func (x *export) seal(ctx context.Context) error {
	m := &x.manifest
	sizes := map[string]int64{}
	err := x.to.List(ctx, x.Prefix+partPrefix, func(o objects.Object) error {
		sizes[o.Name] = o.Size
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range m.Parts {
		size, ok := sizes[x.Prefix+p.Name]
		if !ok || size != p.Bytes {
			return fmt.Errorf("%s in %s: %w: it has %d bytes instead of %d; does another export use "+
				"the destination?", x.Prefix+p.Name, x.to, objects.ErrDamaged, size, p.Bytes)
		}
		m.Rows += p.Rows
		m.Bytes += p.Bytes
	}
	m.Ended = x.Now().UTC().Truncate(time.Second)
	text, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	return objects.PutText(ctx, x.to, x.Prefix+manifestName, append(text, '\n'))
}
