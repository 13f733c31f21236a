package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"cistern/console"
	"cistern/store"
	"cistern/store/linkindex"

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
		Flags:       flags(only(cfg.options(), "data")),
		CustomHelpTemplate: helpTemplate +
			"  cistern check --data /var/lib/cistern && systemctl start cistern\n",
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := errors.Join(noArguments(cmd), cfg.load(cmd, a.environ, "data")); err != nil {
				return err
			}
			return a.untilSignal(ctx, func(ctx context.Context) error {
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
	s, err := openForCheck(dir, newLogger(a.stderr, slog.LevelWarn))
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "checking %s\n", dir)
	if s.Ephemeral() {
		fmt.Fprintln(a.stdout, "  the store keeps events only (--ephemeral)")
	}
	counts := s.Counts()
	shown := a.progress("checking", console.Unit{Noun: "repositories"})
	var n int
	err = shown.During(ctx, func(ctx context.Context) error {
		report := func(text string) {
			shown.Above(func() { fmt.Fprintf(a.stdout, "  difference: %s\n", text) })
		}
		found, err := s.CheckWithProgress(ctx, report, func(repos int64) {
			shown.Set(console.Work{Done: repos, Total: counts["repos"]})
		})
		links, err := a.checkLinks(ctx, s, filepath.Join(dir, linksDir), err)
		n = found + links
		return err
	})
	if err := errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("check %s: %w", dir, err)
	}
	fmt.Fprintf(a.stdout, "  %s, %s, %s, %s in %.1f s\n",
		console.Count(counts["repos"], "repository"), console.Count(counts["records"], "record"),
		console.Count(counts["blocks"], "block"), console.Count(counts["events"], "event"),
		time.Since(start).Seconds())
	if n > 0 {
		return fmt.Errorf("%s in %s: keep a copy of the store for a report, and index again into "+
			"an empty directory", console.Count(int64(n), "difference"), dir)
	}
	_, err = fmt.Fprintln(a.stdout, "no differences")
	return err
}

// checkLinks checks the index of backlinks in a directory, if there is one and the check of the store
// ended without an error.
func (a *app) checkLinks(ctx context.Context, s *store.Store, dir string, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	x, err := linkindex.Open(linkindex.Options{Store: s, Dir: dir, ReadOnly: true})
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, compared, err := x.Check(ctx, func(text string) {
		fmt.Fprintf(a.stdout, "  difference: %s\n", text)
	})
	if st := x.State(); !compared && err == nil {
		fmt.Fprintf(a.stdout, "  the backlinks index is at event %d of %d: not compared with records\n",
			st.Through, s.Head())
	}
	return n, errors.Join(err, x.Close())
}

// openForCheck opens a store that no daemon is using.
func openForCheck(dir string, log *slog.Logger) (*store.Store, error) {
	s, err := store.Open(store.Options{Dir: dir, ReadOnly: true, Logger: log})
	if errors.Is(err, store.ErrLocked) {
		err = fmt.Errorf("%w: stop it first", err)
	}
	return s, err
}
