package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"cistern/cmd/cistern/command"
	"cistern/cmd/cistern/remote"
	"cistern/console"
	"cistern/copies"
	"cistern/dump"
	"cistern/dump/cars"
	"cistern/maintain"
	"cistern/objects"
	"cistern/store"

	"github.com/urfave/cli/v3"
)

const exportAbout = `Export all current records, or those of some collections or accounts, into
files at DEST: a directory with a slash in its name, or s3://BUCKET/PREFIX with
the access that 'cistern backup --help' describes. The daemon on this machine
lends the command a checkpoint of its store and goes on; --data exports a store
that no daemon uses. Run the command as the daemon's user.

DEST gets part files, and at last a manifest.json with the head, that is the
event as of which the records are, and the rows, size and SHA-256 of each part.
Without a manifest an export does not count: run the command again, and it goes
on behind the last part that is complete. One export at a time uses a DEST. To
follow what changes after the export, read /stream from the head + 1 on.
docs/analysing.md has queries in SQL for the files.

With --format car, DEST gets a CAR for each whole repository, and a manifest
with its did, rev, path, size and SHA-256; DEST may then be a file that ends in
.tar, .tar.gz or .tar.zst instead of a directory. docs/cars.md describes the
files.`

const exportExamples = `  cistern export ./export --format parquet
  cistern export repos.tar.zst --format car
  cistern export s3://exports/posts --collection app.bsky.feed.post
  duckdb -c "select collection, count(*) from './export/*.parquet' group by 1"
`

// exportSession is one run of the command export.
type exportSession struct {
	*app
	to objects.Destination

	format            dump.Format
	cars              bool   // whole repositories, in place of format
	archive           string // of cars; "" for the destination to
	collections, dids []string
	cbor              bool
	data              string // "": the store of a running daemon
	json              bool
	admin, token      string
}

// own are the options that no variable sets: variables of the same names configure the daemon.
func (s *exportSession) own() []command.Option {
	return []command.Option{
		{Name: "format", Value: "ndjson|parquet|car", Default: "ndjson", Set: s.setFormat,
			Help: "Form of the files. ndjson: a line of JSON for each record, compressed by zstd. " +
				"parquet: typed columns, for DuckDB and others. car: a CAR for each repository, which " +
				"'cistern import' reads."},
		{Name: "collection", Value: "NSID", Repeat: true,
			Set:  command.Add(&s.collections, command.ParsePattern),
			Help: "Records of this collection only, such as app.bsky.feed.post or app.bsky.*."},
		{Name: "did", Value: "DID", Repeat: true, Set: command.Add(&s.dids, command.ParseDID),
			Help: "Records of this account only."},
		{Name: "cbor", Set: command.Set(&s.cbor, command.ParseSwitch),
			Help: "Add the bytes of each record, which its CID is the hash of."},
		{Name: "data", Value: "DIR", Set: command.Set(&s.data, command.Text),
			Help: "Export the store in this directory, which no daemon may be using, instead of " +
				"that of a running daemon."},
		{Name: "json",
			Set: command.Set(&s.json, command.ParseSwitch), Help: "Print the manifest as a JSON line."},
	}
}

// common are the options that variables also set.
func (s *exportSession) common() []command.Option {
	return []command.Option{
		{Name: "admin", Value: "ADDR", Default: remote.AdminDefault,
			Set:  command.Set(&s.admin, command.ParseServer),
			Help: "The daemon's private listener, host:port or URL; also CISTERN_ADMIN."},
		{Name: "admin-token", Value: "TOKEN", Secret: true,
			Set:  command.Set(&s.token, command.Text),
			Help: "Secret of the private listener, if it has one. Better in CISTERN_ADMIN_TOKEN."},
	}
}

func (a *app) exportCommand() *cli.Command {
	s := &exportSession{app: a}
	return &cli.Command{
		Name:               "export",
		Usage:              "export records as NDJSON or Parquet, or repositories as CARs",
		UsageText:          "cistern export DEST [options]",
		Description:        exportAbout,
		Flags:              command.Flags(append(s.own(), s.common()...)),
		CustomHelpTemplate: command.HelpTemplate + exportExamples,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			env, errs := command.ReadEnviron(a.Environ, variables())
			_, _, own := command.Load(s.own(), cmd, nil)
			_, _, common := command.Load(s.common(), cmd, env)
			errs = append(append(errs, own...), common...)
			if err := command.WantArguments(cmd, 1, "DEST"); err != nil {
				errs = append(errs, err)
			} else if err := s.open(cmd.Args().First()); err != nil {
				errs = append(errs, err)
			}
			if err := command.Mistakes(errs); err != nil {
				return err
			}
			return a.UntilSignal(ctx, s.run)
		},
	}
}

// open opens the destination that the argument names.
func (s *exportSession) open(name string) (err error) {
	if s.cars && (len(s.collections) > 0 || s.cbor) {
		return errors.New("--format car writes whole repositories: it cannot be combined with " +
			"--collection or --cbor")
	}
	if s.cars && cars.IsArchive(name) {
		s.archive = name
		return checkArchive(name)
	}
	if _, err := parseDestination(name); err != nil {
		return fmt.Errorf("destination %q: %w", name, err)
	}
	s.to, err = objects.Open(name, s.Environ)
	return err
}

// run exports the store of --data, or a checkpoint of a running daemon.
func (s *exportSession) run(ctx context.Context) error {
	if s.data != "" {
		_, err := s.export(ctx, s.data)
		return err
	}
	what := copies.Statement{Kind: copies.Export, Destination: absolute(s.archive)}
	if s.archive == "" {
		what.Destination = placeOf(s.to)
	}
	return remote.Borrow(ctx, &s.Process, s.admin, s.token, what,
		func(c remote.Checkpoint) (copies.Result, error) { return s.export(ctx, c.Dir) })
}

// export exports the store in a directory.
func (s *exportSession) export(ctx context.Context, dir string) (made copies.Result, err error) {
	from, err := openForCheck(dir, newLogger(s.Stderr, slog.LevelWarn))
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	if from.Ephemeral() {
		return made, errors.New("the store keeps events only (--ephemeral): it has no records to export")
	}
	if s.cars {
		return s.exportCARs(ctx, from)
	}
	m, parts, err := s.exportRecords(ctx, from)
	switch {
	case errors.Is(err, dump.ErrComplete):
		return made, fmt.Errorf("%w: name another destination", err)
	case err != nil && ctx.Err() != nil && parts > 0:
		return made, fmt.Errorf("%w: %s stored; run the command again to go on", err,
			console.Count(int64(parts), "part"))
	case err != nil:
		return made, err
	}
	made = copies.Result{Complete: true, Bytes: m.Bytes}
	if s.json {
		return made, json.NewEncoder(s.Stdout).Encode(m)
	}
	_, err = fmt.Fprintf(s.Stdout, "exported %s as of event %d in %s, %s\n",
		console.Count(m.Rows, "record"), m.Head, console.Count(int64(len(m.Parts)), "part"),
		size(m.Bytes))
	return made, err
}

// exportRecords writes the records of a store, and shows how far it is. parts is how many parts are
// stored.
func (s *exportSession) exportRecords(ctx context.Context, from *store.Store) (m dump.Manifest,
	parts int, err error) {
	total := int64(0) // unknown
	if len(s.collections)+len(s.dids) == 0 {
		total = from.Counts()["records"]
	}
	term := console.New(s.Stderr, s.Environ)
	shown := console.NewProgress(term, "exporting", console.Unit{Noun: "records"})
	o := dump.Options{Source: from, Destination: s.to, Format: s.format, Collections: s.collections,
		DIDs: s.dids, CBOR: s.cbor, Holder: holder(), Logger: newLogger(term, slog.LevelInfo)}
	o.Progress = func(p dump.Progress) {
		parts = p.Parts
		shown.Set(console.Work{Done: p.Rows, Found: p.Found, Total: total,
			More: console.Count(int64(p.Parts), "part") + " of " + size(p.Bytes)})
	}
	err = shown.During(ctx, func(ctx context.Context) (err error) {
		m, err = dump.Run(ctx, o)
		return err
	})
	return m, parts, err
}

// newExports returns what makes the files of --export; nil without it.
func newExports(d *daemon) (*dump.Maker, error) {
	if d.cfg.ExportTo == nil {
		return nil, nil
	}
	if d.store.Ephemeral() {
		return nil, command.UsageError(errors.New("--export needs records, and this store keeps " +
			"events only (--ephemeral)"))
	}
	format, err := dump.ParseFormat(d.cfg.ExportFormat)
	if err != nil {
		return nil, err
	}
	return dump.NewMaker(dump.MakerOptions{Source: d.store, Destination: d.cfg.ExportTo,
		Format: format, Collections: d.cfg.ExportCollections, Keep: d.cfg.ExportKeep,
		TempDir: d.cfg.Data, Holder: holder(), Logger: d.log})
}

// exportOperation returns the operation export.
func exportOperation(d *daemon) maintain.Operation {
	run := func(ctx context.Context, p *maintain.Progress) error {
		total := int64(0)
		if len(d.cfg.ExportCollections) == 0 {
			total = d.store.Counts()["records"]
		}
		return d.exports.Make(ctx, func(done dump.Progress) {
			p.Set(done.Rows, total)
			p.Item("parts", int64(done.Parts), 0)
		})
	}
	return maintain.Operation{Name: "export", Last: d.exports.Last, Run: d.watched(run)}
}
