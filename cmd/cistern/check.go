package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/console"
	"cistern/store"
	"cistern/store/linkindex"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"
)

const checkAbout = `Verify a store offline: recompute every counter, reference, gauge and
cross-reference from the data, and print each difference. Nothing is written.
No daemon may be running on the store. The exit code is 0 if there is no
difference, and 1 otherwise. If there is an index of backlinks, it is compared
with itself and, unless it is behind the log, with all records.`

func (a *app) checkCommand() *cli.Command {
	var cfg Config
	return &cli.Command{
		Name:        "check",
		Usage:       "verify a store offline",
		UsageText:   "cistern check [--data DIR]",
		Description: checkAbout,
		Flags:       command.Flags(command.Only(cfg.options(), "data")),
		CustomHelpTemplate: command.HelpTemplate +
			"  cistern check --data /var/lib/cistern && systemctl start cistern\n",
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := errors.Join(command.NoArguments(cmd), cfg.load(cmd, a.Environ, "data")); err != nil {
				return err
			}
			return a.UntilSignal(ctx, func(ctx context.Context) error {
				return a.check(ctx, cfg.Data)
			})
		},
	}
}

func (a *app) check(ctx context.Context, dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("no store to check: %w", err)
	}
	start := time.Now()
	s, err := openForCheck(dir, newLogger(a.Stderr, slog.LevelWarn))
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Stdout, "checking %s\n", dir)
	if s.Ephemeral() {
		fmt.Fprintln(a.Stdout, "  the store keeps events only (--ephemeral)")
	}
	counts := s.Counts()
	c := &checkRun{app: a, store: s, shown: a.Progress("checking", console.Unit{Share: true})}
	n, err := c.run(ctx, filepath.Join(dir, linksDir))
	if err := errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("check %s: %w", dir, err)
	}
	fmt.Fprintf(a.Stdout, "  %s, %s, %s, %s in %.1f s\n",
		console.Count(counts["repos"], "repository"), console.Count(counts["records"], "record"),
		console.Count(counts["blocks"], "block"), console.Count(counts["events"], "event"),
		time.Since(start).Seconds())
	if n > 0 {
		return fmt.Errorf("%s in %s: keep a copy of the store for a report, and index again into "+
			"an empty directory", console.Count(int64(n), "difference"), dir)
	}
	_, err = fmt.Fprintln(a.Stdout, "no differences")
	return err
}

// checkRun is one check of a store and of its index of backlinks.
type checkRun struct {
	*app
	store *store.Store
	shown *console.Progress
}

// run returns how many differences there are. links is the directory of the index of backlinks.
func (c *checkRun) run(ctx context.Context, links string) (n int, err error) {
	index, err := c.openLinks(links)
	if err != nil {
		return 0, err
	}
	more := int64(0) // the work of checking the index
	if index != nil {
		more = index.CheckWork()
	}
	err = c.shown.During(ctx, func(ctx context.Context) error {
		var at store.CheckProgress
		n, err = c.store.CheckWithProgress(ctx, c.report, func(p store.CheckProgress) {
			at = p
			c.show(console.Work{Done: p.Done, Total: p.Total + more, Item: p.Part,
				More: c.repos(p.Repos)})
		})
		if err != nil || index == nil {
			return err
		}
		found, err := c.checkLinks(ctx, index, func(done int64) {
			c.show(console.Work{Done: at.Total + done, Total: at.Total + more, Item: "backlinks",
				More: c.repos(at.Repos)})
		})
		n += found
		return err
	})
	if index != nil {
		err = errors.Join(err, index.Close())
	}
	return n, err
}

// repos says how many repositories are checked.
func (c *checkRun) repos(checked int64) string {
	return humanize.Comma(checked) + " of " + console.Count(c.store.Counts()["repos"], "repository")
}

func (c *checkRun) show(w console.Work) {
	c.shown.Set(w)
	if c.tune.check != nil {
		c.tune.check(w)
	}
}

func (c *checkRun) report(text string) {
	c.shown.Above(func() { fmt.Fprintf(c.Stdout, "  difference: %s\n", text) })
}

// openLinks opens the index of backlinks in a directory, nil if the directory has no index.
func (c *checkRun) openLinks(dir string) (*linkindex.Index, error) {
	x, err := linkindex.Open(linkindex.Options{Store: c.store, Dir: dir, ReadOnly: true})
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return x, err
}

// checkLinks returns how many differences the index of backlinks has.
func (c *checkRun) checkLinks(
	ctx context.Context, x *linkindex.Index, progress func(done int64),
) (int, error) {
	n, compared, err := x.CheckWithProgress(ctx, c.report, progress)
	if st := x.State(); !compared && err == nil {
		c.shown.Above(func() {
			fmt.Fprintf(c.Stdout, "  the backlinks index is at event %d of %d: not compared with records\n",
				st.Through, c.store.Head())
		})
	}
	return n, err
}

// openForCheck opens a store that no daemon is using.
func openForCheck(dir string, log *slog.Logger) (*store.Store, error) {
	s, err := store.Open(store.Options{Dir: dir, ReadOnly: true, Logger: log})
	if errors.Is(err, store.ErrLocked) {
		err = fmt.Errorf("%w: stop it first", err)
	}
	return s, err
}
