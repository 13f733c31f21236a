package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"cistern/client"
	"cistern/cmd/cistern/command"
	"cistern/console"
	"cistern/copies"

	"golang.org/x/sync/errgroup"
)

// Checkpoint describes the checkpoint that a daemon lends: its store as of one event.
type Checkpoint struct {
	Dir     string // that has the files
	Epoch   string // of the log
	Head    uint64 // the newest event of the log
	Format  int    // version of the store's format
	Version string // of the daemon
	ID      string // names the copy; "": the daemon records no results
}

// reportTimeout bounds how long a command waits for the daemon to save its result.
const reportTimeout = 10 * time.Second

// errUsed ends the request that keeps a checkpoint.
var errUsed = errors.New("the checkpoint was used")

// Borrow asks a daemon for a checkpoint, and calls use while the daemon keeps its files. admin is
// the base URL of the daemon's private listener, and what states what the checkpoint is for. The
// daemon makes the checkpoint once no operation excludes it, which may take hours; meanwhile Borrow
// shows on standard error which operation it waits for. Borrow reports the result of use to the
// daemon. The error is that of use, or says why there is no checkpoint.
func Borrow(ctx context.Context, p *command.Process, admin, token string, what copies.Statement,
	use func(Checkpoint) (copies.Result, error)) error {
	daemon := client.New(admin, token, "its private listener with --admin")
	waiting, stop := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		w := maintainSession{session: session{Options: &Options{Process: p}, client: daemon}}
		return w.watch(waiting, "checkpoint")
	})
	// An interrupted command keeps the checkpoint until it has reported its failure.
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
			var c Checkpoint
			if err := unmarshalRow(line, &c); err != nil {
				return err
			}
			var res copies.Result
			if res, result = useOf(c, use); result != nil {
				res.Error = failure(ctx, result)
			}
			if err := report(lease, daemon, c, res); err != nil {
				fmt.Fprintf(p.Stderr, "warning: the daemon did not confirm the result of this %s: %s\n",
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
func useOf(c Checkpoint, use func(Checkpoint) (copies.Result, error)) (copies.Result, error) {
	_, err := os.Stat(c.Dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return copies.Result{}, fmt.Errorf("%w: the daemon keeps its checkpoint there; run this "+
			"command on its machine, as its user", err)
	}
	return use(c)
}

// failure returns the text of err within the limits of the daemon.
func failure(ctx context.Context, err error) string {
	text := err.Error()
	if ctx.Err() != nil {
		text = "interrupted: " + text
	}
	return copies.Line(text, copies.ErrorMax)
}

// report sends the daemon the result of a copy.
func report(ctx context.Context, daemon *client.Client, c Checkpoint, res copies.Result) error {
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
