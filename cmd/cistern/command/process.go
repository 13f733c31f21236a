package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"cistern/console"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"
)

// Process is what commands know and use of the process that runs them.
type Process struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Environ        []string // NAME=value
	Program        string   // as it was called
	Exit           func(code int)
}

// Run runs the command of root that args name, without the name of the program. It also prints
// its help page, or what completes args, if args ask for that.
func (p *Process) Run(ctx context.Context, root *cli.Command, args []string) error {
	if n := len(args); n > 0 && args[n-1] == completionFlag {
		return p.complete(root, args[:n-1])
	}
	if err := checkCommands(root, args); err != nil {
		return UsageError(err)
	}
	prepare(root, args)
	return root.Run(ctx, append([]string{root.Name}, args...))
}

// Progress returns what shows on standard error how far a command is. verb begins its line; unit is
// the unit of its figures.
func (p *Process) Progress(verb string, unit console.Unit) *console.Progress {
	return console.NewProgress(console.New(p.Stderr, p.Environ), verb, unit)
}

// echoMax is how long after the first signal another one counts as the same. A supervisor may
// signal a process and then its group, within milliseconds.
const echoMax = time.Second

// UntilSignal runs fn with a context that ends at SIGINT or SIGTERM. A second signal ends the
// process at once, which loses nothing that was durable.
func (p *Process) UntilSignal(ctx context.Context, fn func(context.Context) error) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	return p.until(ctx, signals, fn)
}

func (p *Process) until(ctx context.Context, signals <-chan os.Signal,
	fn func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		for first := (time.Time{}); ; {
			select {
			case <-done:
				return nil
			case <-signals:
			}
			switch {
			case first.IsZero():
				first = time.Now()
				cancel()
			case time.Since(first) >= echoMax:
				fmt.Fprintln(p.Stderr, "cistern: interrupted twice, exiting at once")
				p.Exit(ExitInterrupted)
			}
		}
	})
	g.Go(func() error {
		defer close(done)
		return fn(ctx)
	})
	return g.Wait()
}
