package dump

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"cistern/objects"
)

// MakerOptions are the options of NewMaker.
type MakerOptions struct {
	// Source, Destination, Format and Collections are those of Options.
	Source      Source
	Destination objects.Destination
	Format      Format
	Collections []string
	// Keep is how many complete exports are kept once another is complete. Default 0: all.
	Keep int
	// TempDir is that of Options.
	TempDir string
	// Logger. Default: discard.
	Logger *slog.Logger
	// Holder is that of Options.
	Holder string
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Maker makes the exports of a daemon, each below a name of its own, TIME-EPOCH. It makes one at a
// time.
type Maker struct{ opts MakerOptions }

// NewMaker returns a maker, and does nothing yet.
func NewMaker(o MakerOptions) (*Maker, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Source == nil || o.Destination == nil || o.Format.open == nil || o.Keep < 0 {
		return nil, fmt.Errorf("exports need a source, a destination and a format; keep %d", o.Keep)
	}
	return &Maker{o}, nil
}

// nameTime is the time in the name of an export.
const nameTime = "20060102T150405.000Z"

// named is an export at a destination.
type named struct {
	prefix   string
	begun    time.Time
	complete bool
}

// list returns the exports of this store, oldest first.
func (m *Maker) list(ctx context.Context) (all []named, err error) {
	found := map[string]int{}
	var ranges error
	err = m.opts.Destination.List(ctx, "", func(o objects.Object) error {
		dir, rest, ok := strings.Cut(o.Name, "/")
		text, epoch, ok2 := strings.Cut(dir, "-")
		begun, terr := time.Parse(nameTime, text)
		if !ok || !ok2 || terr != nil || epoch != m.opts.Source.Epoch() {
			return nil
		}
		i, known := found[dir]
		if !known {
			if len(all) == exportsMax {
				ranges = fmt.Errorf("%s has more than %d exports", m.opts.Destination, exportsMax)
				return ranges
			}
			i, found[dir] = len(all), len(all)
			all = append(all, named{prefix: dir + "/", begun: begun})
		}
		all[i].complete = all[i].complete || rest == manifestName
		return nil
	})
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(a.prefix, b.prefix) })
	return all, errors.Join(err, ranges)
}

// Last returns when the newest complete export of this store was begun, the zero time if there is
// none.
func (m *Maker) Last(ctx context.Context) (last time.Time, err error) {
	all, err := m.list(ctx)
	for _, n := range all {
		if n.complete && !n.begun.After(m.opts.Now()) {
			last = n.begun
		}
	}
	return last, err
}

// Make makes an export, or goes on with the newest one if that was interrupted. Then it deletes
// exports beyond Keep, and others that were interrupted. progress may be nil.
func (m *Maker) Make(ctx context.Context, progress func(Progress)) error {
	all, err := m.list(ctx)
	if err != nil {
		return err
	}
	prefix := m.opts.Now().UTC().Format(nameTime) + "-" + m.opts.Source.Epoch() + "/"
	if n := len(all); n > 0 && !all[n-1].complete {
		prefix = all[n-1].prefix
	}
	made, err := Run(ctx, Options{Source: m.opts.Source, Destination: m.opts.Destination,
		Prefix: prefix, Format: m.opts.Format, Collections: m.opts.Collections,
		TempDir: m.opts.TempDir, Progress: progress, Now: m.opts.Now, Holder: m.opts.Holder,
		Logger: m.opts.Logger})
	if err != nil {
		return err
	}
	m.opts.Logger.Info("export complete", "destination", m.opts.Destination.String(), "name", prefix,
		"head", made.Head, "rows", made.Rows, "bytes", made.Bytes)
	return m.prune(ctx)
}

// prune deletes exports beyond Keep, the manifest of each first, and those that were interrupted
// before the newest one.
func (m *Maker) prune(ctx context.Context) error {
	all, err := m.list(ctx)
	if err != nil {
		return err
	}
	kept := 0
	for _, n := range slices.Backward(all) {
		if n.complete && (m.opts.Keep == 0 || kept < m.opts.Keep) {
			kept++
			continue
		}
		if err := m.remove(ctx, n.prefix); err != nil {
			return err
		}
	}
	return nil
}

func (m *Maker) remove(ctx context.Context, prefix string) error {
	d := m.opts.Destination
	if err := d.Delete(ctx, prefix+manifestName); err != nil {
		return err
	}
	x := export{Options: Options{Prefix: prefix}, to: d}
	return x.clean(ctx, 0, true)
}
