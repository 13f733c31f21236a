package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"cistern/backup"
	"cistern/cmd/cistern/command"
	"cistern/cmd/cistern/remote"
	"cistern/console"
	"cistern/copies"
	"cistern/objects"
	"cistern/store"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"
)

const backupAbout = `Back up the store of a running daemon on this machine, while it runs, to a
directory or a bucket of S3 or of a service with its API. Only files are stored
that DEST lacks. An interrupted backup does not count: run the command again.
One backup at a time uses a destination.

DEST is a directory with a slash in its name, such as /backups or ./backups, or
s3://BUCKET/PREFIX. A bucket needs AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and,
unless it is Amazon's, AWS_ENDPOINT_URL; AWS_REGION is us-east-1 by default.
The command reads files of the daemon: run it as the daemon's user. 'cistern run
--backup DEST' makes backups on a schedule instead.`

const backupExamples = `  cistern backup /mnt/backups/cistern --keep 7
  AWS_ENDPOINT_URL=https://s3.example.com cistern backup s3://backups/cistern
  cistern backup ls s3://backups/cistern
`

const backupLsAbout = `List the complete backups of a destination, oldest first.
HEAD is the newest event of the log, and EPOCH names the log.`

const backupVerifyAbout = `Read every file of all backups of a destination, or of one, and
compare it with its hash. The last line has the time of the newest backup. Each
file that is missing or damaged is named, and the exit code is 1 then. If a
damaged table is deleted from the destination, the next backup stores it again,
if the daemon still has it.`

const restoreAbout = `Restore a backup into an empty directory. Every file is compared with
its hash. After an interruption, run the command again: it goes on, and until it
has ended no daemon starts with the directory. The daemon then follows its
sources from where the backup was made, and its log gets a new epoch: consumers
that name the epoch of their cursor learn that they have to read again.`

const restoreExamples = `  cistern restore s3://backups/cistern --data /var/lib/cistern
  cistern restore /backups --data ./drill && cistern check --data ./drill
`

// backupSession is one run of a backup or restore command.
type backupSession struct {
	*app
	to objects.Destination

	keep         int
	generation   string
	data, like   string
	json         bool
	admin, token string
}

func (s *backupSession) options() []command.Option {
	return []command.Option{
		{Name: "keep", Value: "N", Default: "0", Set: command.Set(&s.keep, parseKeep),
			Help: "Delete older backups once this one is complete, and keep N. 0 keeps all."},
		{Name: "generation", Value: "NAME", Set: command.Set(&s.generation, command.Text),
			Help: "This backup, by its name in 'cistern backup ls', " +
				"and no other. Without it restore takes the newest, and verify reads all."},
		{Name: "data", Value: "DIR", Default: "./cistern-data",
			Set:  command.Set(&s.data, command.Text),
			Help: "Directory to restore into: missing, empty or half restored; also CISTERN_DATA."},
		{Name: "like", Value: "DIR", Set: command.Set(&s.like, command.Text),
			Help: "Directory that an older backup was restored into. Its tables are compared with " +
				"their hashes, and linked instead of being fetched again; a daemon may use it."},
		{Name: "json", Set: command.Set(&s.json, command.ParseSwitch), Help: "Print JSON lines."},
		{Name: "admin", Value: "ADDR", Default: remote.AdminDefault,
			Set:  command.Set(&s.admin, command.ParseServer),
			Help: "The daemon's private listener, host:port or URL; also CISTERN_ADMIN."},
		{Name: "admin-token", Value: "TOKEN", Secret: true,
			Set:  command.Set(&s.token, command.Text),
			Help: "Secret of the private listener, if it has one. Better in CISTERN_ADMIN_TOKEN."},
	}
}

// parseKeep reads how many backups are kept.
func parseKeep(s string) (int, error) {
	n, err := command.Number(0, 1_000_000)(s)
	return int(n), err
}

// parseDestination reads the name of a destination. A directory needs a slash in its name, so that
// a mistyped command is not taken for a directory.
func parseDestination(s string) (string, error) {
	if !strings.Contains(s, "/") {
		return "", fmt.Errorf("want a directory with a slash in its name, such as ./%s, or "+
			"s3://BUCKET/PREFIX", cmp.Or(s, "backups"))
	}
	return s, nil
}

func (a *app) backupCommand() *cli.Command {
	cmd := a.backupSubcommand("backup", "DEST", "back up a running daemon; list and verify backups",
		backupAbout, (*backupSession).backup, backupExamples, "keep", "json", "admin", "admin-token")
	cmd.Commands = []*cli.Command{
		a.backupSubcommand("backup ls", "DEST", "list the backups of a destination", backupLsAbout,
			(*backupSession).ls, "  cistern backup ls s3://backups/cistern --json | jq -r .name\n", "json"),
		a.backupSubcommand("backup verify", "DEST", "compare every file of backups with its hash",
			backupVerifyAbout, (*backupSession).verify,
			"  cistern backup verify /mnt/backups/cistern || mail -s 'backup damaged' ops\n", "generation"),
	}
	return cmd
}

func (a *app) restoreCommand() *cli.Command {
	return a.backupSubcommand("restore", "SRC", "restore a backup into an empty directory",
		restoreAbout, (*backupSession).restore, restoreExamples, "data", "generation", "like")
}

// backupSubcommand returns the command 'cistern NAME' with one argument, a destination, and the
// options of these names.
func (a *app) backupSubcommand(name, argument, usage, about string,
	act func(*backupSession, context.Context) error, examples string, names ...string) *cli.Command {
	s := &backupSession{app: a}
	options := command.Only(s.options(), names...)
	words := strings.Fields(name)
	return &cli.Command{
		Name:               words[len(words)-1],
		Usage:              usage,
		UsageText:          "cistern " + name + " " + argument + " [options]",
		Description:        about,
		Flags:              command.Flags(options),
		CustomHelpTemplate: command.HelpTemplate + examples,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			env, errs := command.ReadEnviron(a.Environ, variables())
			_, _, more := command.Load(options, cmd, env)
			errs = append(errs, more...)
			if err := command.WantArguments(cmd, 1, argument); err != nil {
				errs = append(errs, err)
			} else if err := s.open(cmd.Args().First()); err != nil {
				errs = append(errs, err)
			}
			if err := command.Mistakes(errs); err != nil {
				return err
			}
			return a.UntilSignal(ctx, func(ctx context.Context) error { return act(s, ctx) })
		},
	}
}

// open opens the destination that the argument names.
func (s *backupSession) open(name string) (err error) {
	if _, err := parseDestination(name); err != nil {
		return fmt.Errorf("destination %q: %w", name, err)
	}
	s.to, err = objects.Open(name, s.Environ)
	return err
}

func (s *backupSession) backup(ctx context.Context) error {
	what := copies.Statement{Kind: copies.Backup, Destination: placeOf(s.to)}
	return remote.Borrow(ctx, &s.Process, s.admin, s.token, what,
		func(c remote.Checkpoint) (copies.Result, error) { return s.copy(ctx, c) })
}

// copy backs up a checkpoint.
func (s *backupSession) copy(ctx context.Context, c remote.Checkpoint) (copies.Result, error) {
	shown := s.Progress("storing", console.Bytes())
	o := backup.Options{Destination: s.to, Keep: s.keep, Holder: holder(),
		Progress: func(p backup.Progress) { shown.Set(transferred(p)) },
		Source: backup.Source{Dir: c.Dir, Epoch: c.Epoch, Head: c.Head, Format: c.Format,
			Version: c.Version}}
	var res backup.Result
	err := shown.During(ctx, func(ctx context.Context) (err error) {
		res, err = backup.Run(ctx, o)
		return err
	})
	if res.Generation.Name == "" {
		return copies.Result{}, err
	}
	made := copies.Result{Complete: true, Generation: res.Generation.Name,
		Bytes: res.Generation.Bytes}
	if s.json {
		return made, errors.Join(s.printGeneration(res.Generation), err)
	}
	fmt.Fprintf(s.Stdout, "backup %s of %s, %s; %s new, %s stored\n", res.Generation.Name,
		console.Count(int64(res.Generation.Files), "file"), size(res.Generation.Bytes),
		console.Count(int64(res.Tables), "file"), size(res.Uploaded))
	if res.Deleted > 0 {
		fmt.Fprintf(s.Stdout, "%s deleted\n", console.Count(int64(res.Deleted), "older backup"))
	}
	return made, err
}

// holder names this process in the lock of a destination.
func holder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("process %d on %s", os.Getpid(), host)
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(0, bytes))) }

// printGeneration prints a generation as a JSON line.
func (s *backupSession) printGeneration(g backup.Generation) error {
	return json.NewEncoder(s.Stdout).Encode(struct {
		Name string `json:"name"`
		backup.Generation
	}{g.Name, g})
}

// exists returns an error if the destination is a directory that does not exist.
func (s *backupSession) exists() error {
	if dir, ok := s.to.(*objects.Directory); ok {
		if _, err := os.Stat(dir.String()); err != nil {
			return fmt.Errorf("destination %s cannot be read: %w", dir, errors.Unwrap(err))
		}
	}
	return nil
}

func (s *backupSession) ls(ctx context.Context) error {
	if err := s.exists(); err != nil {
		return err
	}
	all, err := backup.List(ctx, s.to)
	if err != nil {
		return err
	}
	table := s.NewTable()
	table.Add("NAME", "CREATED", "HEAD", "FILES", "SIZE", "EPOCH")
	for _, g := range all {
		if s.json {
			if err := s.printGeneration(g); err != nil {
				return err
			}
			continue
		}
		table.Add(g.Name, g.Created.Format(time.RFC3339), fmt.Sprint(g.Head), fmt.Sprint(g.Files),
			size(g.Bytes), g.Epoch)
	}
	switch {
	case s.json:
		return nil
	case len(all) == 0:
		_, err := fmt.Fprintln(s.Stdout, "no backups")
		return err
	}
	return table.Flush()
}

func (s *backupSession) verify(ctx context.Context) error {
	if err := s.exists(); err != nil {
		return err
	}
	all, err := backup.Select(ctx, s.to, s.generation)
	if err != nil {
		return err
	}
	shown := s.Progress("reading", console.Bytes())
	var read backup.Progress
	var bad int
	err = shown.During(ctx, func(ctx context.Context) (err error) {
		bad, err = backup.Verify(ctx, s.to, all,
			func(p backup.Progress) { read = p; shown.Set(transferred(p)) },
			func(err error) {
				shown.Above(func() { fmt.Fprintln(s.Stdout, console.Printable(err.Error())) })
			})
		return err
	})
	if err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%s of %s damaged: delete the tables that are named, and make another backup",
			console.Count(int64(bad), "file"), s.to)
	}
	newest, which := all[len(all)-1], "the newest"
	if s.generation != "" {
		which = newest.Name
	}
	_, err = fmt.Fprintf(s.Stdout, "%s, %s in %s: no difference; %s was made at %s\n",
		console.Count(int64(len(all)), "backup"), size(read.Bytes),
		console.Count(int64(read.Files), "file"), which, newest.Created.Format(time.RFC3339))
	return err
}

func (s *backupSession) restore(ctx context.Context) error {
	if err := s.exists(); err != nil {
		return err
	}
	shown := s.Progress("restoring", console.Bytes())
	var g backup.Generation
	err := shown.During(ctx, func(ctx context.Context) (err error) {
		g, err = backup.Restore(ctx, backup.RestoreOptions{Destination: s.to,
			Generation: s.generation, Dir: s.data, Like: s.like,
			Progress: func(p backup.Progress) { shown.Set(transferred(p)) }})
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.Stdout, "restored %s of %s into %s: head %d, %s in %s\n", g.Name, s.to,
		s.data, g.Head, size(g.Bytes), console.Count(int64(g.Files), "file"))
	return err
}

// transferred returns the progress of files as that of a command.
func transferred(p backup.Progress) console.Work {
	return console.Work{Done: p.Bytes, Total: p.BytesTotal, Item: p.File + ", " + size(p.FileBytes),
		More: humanize.Comma(int64(p.Files)) + " of " + console.Count(int64(p.FilesTotal), "file")}
}

// newBackups makes what commands and the operation backup need.
func (d *daemon) newBackups() (err error) {
	d.lender = backup.NewLender(d.store.Checkpoint, func(ctx context.Context) error {
		return d.maintain.Await(ctx, "checkpoint") // newMaintain makes d.maintain next
	})
	d.copies, err = copies.New(copies.Options{Keeper: copyRows{d.store}, Logger: d.log,
		Registerer: d.metrics})
	if err != nil || d.cfg.BackupTo == nil {
		return err
	}
	d.backups, err = backup.NewMaker(backup.MakerOptions{Destination: d.cfg.BackupTo,
		Keep: d.cfg.BackupKeep, Holder: holder(), Epoch: d.store.Epoch(),
		Checkpoint: d.checkpoint, Logger: d.log, Registerer: d.metrics})
	return err
}

// checkpoint makes the checkpoint that is backed up.
func (d *daemon) checkpoint(ctx context.Context) (src backup.Source, release func() error,
	err error) {
	c, err := d.store.Checkpoint(ctx)
	if err != nil {
		return src, nil, err
	}
	return backup.Source{Dir: c.Dir, Epoch: c.Epoch, Head: c.Head, Format: c.Format,
		Version: version()}, c.Close, nil
}

// copyRows keeps the results of copies in the store.
type copyRows struct{ store *store.Store }

func (r copyRows) Load() (rows []copies.Row, err error) {
	all, err := r.store.Copies()
	for _, c := range all {
		rows = append(rows, copies.Row{
			Statement: copies.Statement{Kind: copies.Kind(c.Kind), Destination: c.Destination},
			Began:     fromMillis(c.Began), Ended: fromMillis(c.Ended),
			Succeeded: fromMillis(c.Succeeded), Generation: c.Generation, Bytes: c.Bytes,
			Took:  time.Duration(c.Millis) * time.Millisecond,
			Error: c.Error, Failures: c.Failures})
	}
	return rows, err
}

func (r copyRows) Save(rows []copies.Row) error {
	all := make([]store.Copy, 0, len(rows))
	for _, row := range rows {
		all = append(all, store.Copy{Kind: string(row.Kind), Destination: row.Destination,
			Began: millis(row.Began), Ended: millis(row.Ended), Succeeded: millis(row.Succeeded),
			Generation: row.Generation, Bytes: row.Bytes, Millis: row.Took.Milliseconds(),
			Error: row.Error, Failures: row.Failures})
	}
	b := r.store.NewBatch()
	b.PutCopies(all)
	return b.CommitSync()
}
