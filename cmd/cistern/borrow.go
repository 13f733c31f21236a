package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"cistern/client"
	"cistern/console"
	"cistern/copies"
	"cistern/objects"

	"golang.org/x/sync/errgroup"
)

// lent is what the daemon answers to POST /checkpoint.
type lent struct {
	Dir, Epoch, Version string
	Head                uint64
	Format              int
	ID                  string // names the copy; "": the daemon records no results
}

// reportTimeout bounds how long a command waits for the daemon to save its result.
const reportTimeout = 10 * time.Second

// errUsed ends the request that keeps a checkpoint.
var errUsed = errors.New("the checkpoint was used")

// borrow asks the daemon for a checkpoint, states what it is for, and calls use while the request is
// open. The daemon makes it when nothing runs that excludes it, which may take hours. It is told what
// use returns.
func (a *app) borrow(ctx context.Context, admin, token string, what copies.Statement,
	use func(lent) (copies.Result, error)) error {
	daemon := client.New(admin, token, "its private listener with --admin")
	waiting, stop := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		w := maintainSession{remote: remote{app: a, client: daemon}}
		return w.watch(waiting, "checkpoint")
	})
	// A command that is interrupted keeps the checkpoint until it has reported that.
	lease, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	keep := context.AfterFunc(ctx, end)
	var result error
	_, err := daemon.Patient().Do(lease, "POST", "/checkpoint", nil, []any{statementRow(what)},
		func(line json.RawMessage) error {
			stop()
			_ = g.Wait() // it returns no error, and draws no more
			if !keep() {
				return ctx.Err()
			}
			var c lent
			if err := unmarshalRow(line, &c); err != nil {
				return err
			}
			var res copies.Result
			if res, result = useOf(c, use); result != nil {
				res.Error = failure(ctx, result)
			}
			if err := report(lease, daemon, c, res); err != nil {
				fmt.Fprintf(a.stderr, "warning: 'cistern status' does not show the result of this %s: %s\n",
					what.Kind, console.Printable(err.Error()))
			}
			return errUsed
		})
	stop()
	_ = g.Wait()
	switch {
	case errors.Is(err, errUsed):
		return result
	case err == nil:
		return fmt.Errorf("the daemon at %s ended its answer without a checkpoint", admin)
	}
	return err
}

// statementRow returns the body of POST /checkpoint.
func statementRow(s copies.Statement) map[string]string {
	return map[string]string{"kind": string(s.Kind),
		"destination": copies.Line(s.Destination, copies.DestinationMax)}
}

// useOf calls use with a checkpoint, if this process can read it.
func useOf(c lent, use func(lent) (copies.Result, error)) (copies.Result, error) {
	_, err := os.Stat(c.Dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return copies.Result{}, fmt.Errorf("%w: the daemon keeps its checkpoint there; run this "+
			"command on its machine, as its user", err)
	}
	return use(c)
}

// failure returns an error as the daemon takes it.
func failure(ctx context.Context, err error) string {
	text := err.Error()
	if ctx.Err() != nil {
		text = "interrupted: " + text
	}
	return copies.Line(text, copies.ErrorMax)
}

// report sends the daemon the result of a copy.
func report(ctx context.Context, daemon *client.Client, c lent, res copies.Result) error {
	if c.ID == "" {
		return fmt.Errorf("the daemon has version %s, which records no results", c.Version)
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	_, err := daemon.Do(ctx, "PUT", "/copies/"+c.ID+"/result", nil, []any{map[string]any{
		"complete": res.Complete, "generation": res.Generation, "bytes": res.Bytes,
		"error": res.Error}}, func(json.RawMessage) error { return nil })
	return err
}

// placeOf names a destination for the daemon, without credentials: a directory by its absolute path.
func placeOf(to objects.Destination) string {
	if dir, ok := to.(*objects.Directory); ok {
		return absolute(dir.String())
	}
	return to.String()
}

// absolute returns the absolute path of a file, or its name if the working directory is unknown.
func absolute(name string) string {
	if path, err := filepath.Abs(name); err == nil {
		return path
	}
	return name
}
