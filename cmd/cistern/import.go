package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/console"
	"cistern/ingest/identity"
	"cistern/intake"
	"cistern/store"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"
)

const importAbout = `Store the repositories of CAR files. Each is verified as if its host had sent
it: all hashes, the tree, and the signature, with the key of the DID document
as it is now. SRC is a directory, a tar archive (also compressed by gzip or
zstd), s3://BUCKET/PREFIX, or s3://BUCKET/NAME.tar.zst; a bucket needs the
variables that 'cistern backup --help' describes. Files are read that end in
.car; the account of each is the one that its commit names.

No daemon may be running on the store, which is created if it is missing. A CAR
is skipped unless it is newer than the stored copy. Accounts that the store's
filter does not want, or that are hidden, are refused. When the daemon starts
next, it compares the lists of all hosts with what is stored, and fetches what
is newer there. After an interruption, run the command again: it goes on. Each
CAR that is refused is named with the reason, and the exit code is 1 then.`

const importExamples = `  cistern import ./export --data /var/lib/cistern
  cistern import s3://dumps/2026-12.tar.zst --report refused.ndjson
`

// importSession is one run of the import command.
type importSession struct {
	*app
	cfg    Config
	report string
	out    *os.File // of report, nil for none
	failed error    // of a write to out
	shown  *console.Progress
}

func (s *importSession) options() []command.Option {
	return append(command.Only(s.cfg.options(), "data", "plc", "allow-private", "repo-max"),
		command.Option{Name: "report", Value: "FILE", Set: command.Set(&s.report, command.Text),
			Help: "Also write the CARs that are refused to FILE, as JSON lines of path, did and reason."})
}

func (a *app) importCommand() *cli.Command {
	s := &importSession{app: a}
	options := s.options()
	return &cli.Command{
		Name:               "import",
		Usage:              "store the repositories of CAR files",
		UsageText:          "cistern import SRC [options]",
		Description:        importAbout,
		Flags:              command.Flags(options),
		CustomHelpTemplate: command.HelpTemplate + importExamples,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			env, errs := command.ReadEnviron(a.Environ, variables())
			_, _, more := command.Load(options, cmd, env)
			errs = append(errs, more...)
			if err := command.WantArguments(cmd, 1, "SRC"); err != nil {
				errs = append(errs, err)
			}
			if err := command.Mistakes(errs); err != nil {
				return err
			}
			return a.UntilSignal(ctx, func(ctx context.Context) error {
				return s.run(ctx, cmd.Args().First())
			})
		},
	}
}

func (s *importSession) run(ctx context.Context, name string) (err error) {
	src, err := intake.Open(ctx, name, s.Environ)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if s.report != "" {
		if s.out, err = os.Create(s.report); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.failed, s.out.Close()) }()
	}
	directory, err := identity.New(identity.Options{PLC: s.cfg.PLC, AllowPrivate: s.cfg.AllowPrivate,
		UserAgent: userAgent()})
	if err != nil {
		return err
	}
	s.shown = s.Progress("importing", console.Bytes())
	log := newLogger(s.Stderr, slog.LevelWarn)
	db, err := store.Open(store.Options{Dir: s.cfg.Data, Logger: log})
	if errors.Is(err, store.ErrLocked) {
		err = fmt.Errorf("%w: stop it first", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	l, err := intake.New(intake.Options{Store: db, Directory: directory, Source: src,
		SpoolDir: s.cfg.Data, CARBytesMax: s.cfg.RepoMax, Refused: s.refused, Logger: log})
	if err != nil {
		return err
	}
	return s.load(ctx, l, src)
}

// load runs the import, and prints what became of the CARs.
func (s *importSession) load(ctx context.Context, l *intake.Loader, src intake.Source) error {
	start := time.Now()
	s.shown.Sample(func() console.Work { return imported(l.Summary(), src) })
	var sum intake.Summary
	err := s.shown.During(ctx, func(ctx context.Context) (err error) {
		sum, err = l.Run(ctx)
		return err
	})
	took := time.Since(start)
	fmt.Fprintf(s.Stdout,
		"imported %s of %s: %s new, %s updated; %s not newer, %s refused; %s in %.1f s\n",
		console.Count(sum.New+sum.Updated, "repository"), console.Printable(src.String()),
		humanize.Comma(sum.New), humanize.Comma(sum.Updated), humanize.Comma(sum.NotNewer),
		humanize.Comma(sum.Refused), size(sum.Bytes), took.Seconds())
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted: run the command again to go on")
	case err != nil:
		return err
	case sum.Refused > 0:
		return fmt.Errorf("%s refused", console.Count(sum.Refused, "CAR"))
	}
	return nil
}

// refused names a CAR that was refused.
func (s *importSession) refused(r intake.Refusal) {
	if s.out != nil && s.failed == nil {
		s.failed = json.NewEncoder(s.out).Encode(r)
	}
	account := r.DID
	if account == "" {
		account = "(unknown account)"
	}
	text := console.Printable(fmt.Sprintf("refused %s %s: %s", r.Path, account, r.Reason))
	s.shown.Above(func() { fmt.Fprintln(s.Stderr, text) })
}

// imported returns how far an import is.
func imported(sum intake.Summary, src intake.Source) console.Work {
	w := console.Work{Done: src.Read(), Total: src.Size(),
		More: console.Count(sum.New+sum.Updated, "repository")}
	if w.Done == 0 {
		w.Done = sum.Bytes
	}
	if sum.Refused > 0 {
		w.More += ", " + humanize.Comma(sum.Refused) + " refused"
	}
	return w
}
