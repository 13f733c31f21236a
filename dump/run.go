package dump

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cistern/filter"
	"cistern/objects"
	"cistern/objects/lease"
	"cistern/store"
)

// Options are the options of Run.
type Options struct {
	// Source is what is exported. Required.
	Source Source
	// Destination takes the export. Required.
	Destination objects.Destination
	// Prefix is what the names of all objects begin with. Default: nothing.
	Prefix string
	// Format is the format of the parts. Required.
	Format Format
	// Collections and DIDs choose records, as the filter of a stream does. Default: all.
	Collections, DIDs []string
	// CBOR adds the bytes of each record.
	CBOR bool
	// PartRows and PartBytes bound the rows of a part, and the text of its records before
	// compression. Default 10,000,000 and 1 GiB.
	PartRows, PartBytes int64
	// TempDir has each part until it is stored. Default: that of the system.
	TempDir string
	// Progress is called after each page. Default: not at all.
	Progress func(Progress)
	// Holder names the export in the errors of others that find it at the destination.
	Holder string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger. Default: discard.
	Logger *slog.Logger
}

// Progress is how far an export is.
type Progress struct {
	Rows  int64 // also of parts that a former run has written
	Found int64 // those of former runs
	Parts int
	Bytes int64 // of parts that are stored
}

// export is one run.
type export struct {
	Options
	to       objects.Destination
	filter   *filter.Events
	reading  *Reading // nil: the last record was read
	of       subject
	resumed  bool // no part was written since the reading was continued
	manifest Manifest
	stored   int64 // rows of parts that are stored
	state    Progress
}

// Run makes an export, or goes on with one that was interrupted. ErrComplete means that the
// destination has an export already, and lease.ErrLocked that another run uses it.
func Run(ctx context.Context, o Options) (m Manifest, err error) {
	x, err := newExport(o)
	if err != nil {
		return Manifest{}, err
	}
	lock := lease.Options{Destination: x.to, Prefix: x.Prefix, What: "export", Holder: x.Holder}
	err = lease.Alone(ctx, lock, func(ctx context.Context, held func() error) (err error) {
		m, err = x.run(ctx, held)
		return err
	})
	return m, err
}

// run makes an export while it has the destination alone. held returns an error if that may be
// over.
func (x *export) run(ctx context.Context, held func() error) (Manifest, error) {
	if err := x.begin(ctx); err != nil {
		return Manifest{}, err
	}
	for x.reading != nil && !x.reading.Ended() {
		err := x.part(ctx)
		if errors.Is(err, store.ErrOutdatedCursor) {
			if err = x.outdated(ctx, err); err == nil {
				continue
			}
		}
		if err != nil {
			return Manifest{}, err
		}
	}
	err := held()
	if err == nil {
		err = x.seal(ctx)
	}
	if err != nil {
		return Manifest{}, err
	}
	// The export is complete: if this fails, only notes are left.
	return x.manifest, x.clean(ctx, len(x.manifest.Parts), true)
}

func newExport(o Options) (*export, error) {
	x := &export{Options: o, to: o.Destination}
	if x.Source == nil || x.to == nil || x.Format.open == nil {
		return nil, errors.New("an export needs a source, a destination and a format")
	}
	x.PartRows, x.PartBytes = cmp.Or(x.PartRows, partRows), cmp.Or(x.PartBytes, partBytes)
	if x.Progress == nil {
		x.Progress = func(Progress) {}
	}
	if x.Now == nil {
		x.Now = time.Now
	}
	if x.Logger == nil {
		x.Logger = slog.New(slog.DiscardHandler)
	}
	var err error
	x.filter, err = filter.CompileEvents(filter.EventsConfig{Collections: x.Collections, DIDs: x.DIDs})
	return x, err
}

// begin begins a reading, or continues that of the parts that the destination has.
func (x *export) begin(ctx context.Context) error {
	name := x.Prefix + manifestName
	if done, err := exists(ctx, x.to, name); err != nil {
		return err
	} else if done {
		return fmt.Errorf("%s has %s: %w", x.to, name, ErrComplete)
	}
	all, err := x.notes(ctx)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return x.anew(ctx)
	}
	asked := x.subject(store.NewPass(0, 0, x.filter).Sum, 0)
	last := all[len(all)-1]
	if x.of = last.Of; !x.of.continues(asked) {
		return fmt.Errorf("%s has a part of another export: of another store, filter or format; "+
			"name another destination, or delete %s", x.to, x.Prefix+partPrefix+"*")
	}
	if last.Resume != "" {
		if x.reading, err = Resume(x.Source, x.filter, last.Resume); err != nil {
			return fmt.Errorf("%s in %s: %w", x.Prefix+partStem(len(all))+noteSuffix, x.to, err)
		}
	}
	x.describe()
	for _, n := range all {
		x.add(n.Part)
	}
	x.resumed, x.state.Found = true, x.state.Rows
	x.Logger.Info("an export goes on", "destination", x.to.String(), "parts", len(all),
		"rows", x.state.Rows, "head", x.of.Head)
	return x.clean(ctx, len(all), false)
}

// anew begins a reading, and deletes parts of others.
func (x *export) anew(ctx context.Context) error {
	if err := x.clean(ctx, 0, true); err != nil {
		return err
	}
	x.reading, x.resumed = Begin(x.Source, x.filter), false
	x.stored, x.state = 0, Progress{}
	x.of = x.subject(x.reading.Sum(), x.reading.Head())
	x.describe()
	return nil
}

// outdated begins anew if a reading that was continued has lost events since.
func (x *export) outdated(ctx context.Context, err error) error {
	if !x.resumed {
		return fmt.Errorf("%w: the export took longer than the log keeps events for it "+
			"(--snapshot-retention); the next run begins anew", err)
	}
	x.Logger.Info("an export that was interrupted begins anew: the log has lost events since",
		"destination", x.to.String(), "head", x.of.Head)
	return x.anew(ctx)
}

func (x *export) subject(filter uint32, head uint64) subject {
	return subject{Format: x.Format.Name, CBOR: x.CBOR, Epoch: x.Source.Epoch(), Filter: filter,
		Head: head, Begun: x.Now().UTC().Truncate(time.Second)}
}

// describe makes the manifest of no parts.
func (x *export) describe() {
	x.manifest = Manifest{Format: x.of.Format, CBOR: x.of.CBOR, Epoch: x.of.Epoch, Head: x.of.Head,
		Begun: x.of.Begun, Collections: x.Collections, DIDs: x.DIDs}
}

// add adds a part that is stored.
func (x *export) add(p Part) {
	x.manifest.Parts = append(x.manifest.Parts, p)
	x.stored += p.Rows
	x.state.Rows = x.stored // the rows of the part were counted while it was made
	x.state.Parts++
	x.state.Bytes += p.Bytes
	x.resumed = false
	x.Progress(x.state)
}

// wrote counts rows that were written into the part that is being made.
func (x *export) wrote(rows int) {
	x.state.Rows += int64(rows)
	x.Progress(x.state)
}
