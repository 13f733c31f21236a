package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/console"
	"cistern/loop"
	"cistern/status"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"
)

const topAbout = `Show what a running daemon does, as 'cistern status' does, again and again:
with rates, all hosts with their queues and errors, and operations with their
progress, and what the daemon takes of processors, memory and disks. Arrows,
PgUp and PgDn scroll, Ctrl-Z suspends, q or Ctrl-C ends. If the output is not a
terminal, a row is printed each time. --json prints a JSON line each time:
time, per_second and problems.`

const topExamples = `  cistern top
  cistern top --every 10s > figures.txt
`

// topSession is one run of the command top.
type topSession struct {
	statusSession
	every time.Duration
}

func (o *Options) topCommand() *cli.Command {
	s := &topSession{statusSession: statusSession{session: session{Options: o}}}
	cmd := s.command("", subcommand{name: "top", usage: "show what a daemon does, live",
		about: topAbout, examples: topExamples, options: []command.Option{
			{Name: "every", Value: "DURATION", Default: "2s",
				Set:  command.Set(&s.every, parseTopEvery),
				Help: "Time between two requests, 200ms to 1h."}}}, s.top)
	cmd.UsageText = "cistern top [options]"
	return cmd
}

// parseTopEvery reads the time between two requests.
func parseTopEvery(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 200*time.Millisecond || d > time.Hour {
		return 0, errors.New("want a duration such as 500ms, 2s or 1m, from 200ms to 1h")
	}
	return d, nil
}

// top is the command top.
func (s *topSession) top(ctx context.Context) error {
	if err := command.NoArguments(s.cmd); err != nil {
		return err
	}
	if s.json {
		return s.rows(ctx)
	}
	screen, err := console.OpenScreen(s.Stdin, s.Stdout, s.Environ)
	if errors.Is(err, console.ErrNoScreen) {
		return s.rows(ctx)
	}
	if err != nil {
		return err
	}
	defer screen.Close() // for a panic; the error is that of the other call
	return errors.Join(s.live(ctx, screen), screen.Close())
}

// sample asks the daemon for all that a page shows.
func (s *topSession) sample(ctx context.Context) (*status.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, statusMax)
	defer cancel()
	_, answer, err := s.overview(ctx)
	if err != nil {
		return nil, err
	}
	text, err := s.client.Text(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	return &status.Sample{Answer: answer, Counters: status.ParseCounters(text)}, nil
}

// rows prints a row each time, until ctx ends. It ends with an error if the first request fails.
func (s *topSession) rows(ctx context.Context) error {
	const titlesEvery = 20 // rows
	var live status.Live
	for n := 0; ; n++ {
		sample, err := s.sample(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && n == 0:
			return command.ExitError{Code: ExitUnknown, Err: err}
		case err != nil:
			live.Fail(err)
		default:
			live.Add(sample)
		}
		if err := s.printRow(&live, sample, n%titlesEvery == 0); err != nil {
			return err
		}
		if loop.Sleep(ctx, s.every, nil); ctx.Err() != nil {
			return nil
		}
	}
}

// printRow prints a sample, nil if there was no answer.
func (s *topSession) printRow(live *status.Live, sample *status.Sample, titles bool) error {
	switch {
	case !s.json && titles:
		if _, err := fmt.Fprintln(s.Stdout, status.Titles()); err != nil {
			return err
		}
	case s.json && sample != nil:
		verdict := &sample.Verdict
		return json.NewEncoder(s.Stdout).Encode(struct {
			Time     string       `json:"time"`
			Rates    status.Rates `json:"per_second"`
			Problems []string     `json:"problems"`
			Notes    []string     `json:"notes"`
		}{sample.Time, live.Rates(), append([]string{}, verdict.Problems...),
			append([]string{}, verdict.Notes...)})
	case s.json:
		_, err := fmt.Fprintln(s.Stderr, live.Row())
		return err
	}
	_, err := fmt.Fprintln(s.Stdout, live.Row())
	return err
}

// keyWait is how long the screen waits for keys before it looks for a new sample.
const keyWait = 50 * time.Millisecond

// live redraws a screen until ctx ends or the user ends it.
func (s *topSession) live(ctx context.Context, screen *console.Screen) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		sample *status.Sample
		err    error
	}
	results := make(chan result)
	var g errgroup.Group
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCONT)
	defer signal.Stop(signals)
	g.Go(func() error { return s.fatalSignals(ctx, screen) })
	g.Go(func() error {
		defer func() {
			if v := recover(); v != nil {
				_ = screen.Close() // the panic would leave the terminal as it is
				panic(v)
			}
		}()
		for ctx.Err() == nil {
			var r result
			s.begin("sample")
			r.sample, r.err = s.sample(ctx)
			select {
			case results <- r:
			case <-ctx.Done():
			}
			loop.Sleep(ctx, s.every, nil)
		}
		return nil
	})
	g.Go(func() error {
		defer cancel()
		defer screen.Close()
		var live status.Live
		for ctx.Err() == nil {
			select {
			case r := <-results:
				if r.err != nil {
					live.Fail(r.err)
				} else {
					live.Add(r.sample)
				}
			default:
			}
			if err := continued(screen, signals); err != nil {
				return err
			}
			s.begin("draw")
			columns, rows := screen.Size()
			lines := live.Screen(rows, s.every, status.View{Columns: columns, ASCII: screen.ASCII(),
				Paint: screen.Paint})
			if err := screen.Show(lines); err != nil {
				return err
			}
			if done, err := pressed(screen, &live, signals); done || err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// begin calls the hook that tests have before each step of a screen.
func (s *topSession) begin(name string) {
	if s.Step != nil {
		s.Step(name)
	}
}

// fatalSignals gives the terminal back before a signal ends the process as it would without a
// screen: SIGQUIT prints the stacks of all goroutines.
//
// It prints them itself. The Go runtime would begin with the thread that the signal interrupts;
// where that thread runs C, as the race detector does, go1.26 can crash before it prints a stack.
func (s *topSession) fatalSignals(ctx context.Context, screen *console.Screen) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGQUIT, syscall.SIGHUP)
	defer signal.Stop(signals)
	select {
	case sig := <-signals:
		_ = screen.Close() // the signal ends the process anyway
		if sig == syscall.SIGQUIT {
			_ = pprof.Lookup("goroutine").WriteTo(s.Stderr, withStacks)
			s.Exit(exitQuit)
		}
		signal.Reset(sig)
		_ = syscall.Kill(syscall.Getpid(), sig.(syscall.Signal))
	case <-ctx.Done():
	}
	return nil
}

const (
	// withStacks is the form of a profile of goroutines that has the stack of each, as a panic does.
	withStacks = 2
	// exitQuit is the exit code that Go gives a process that SIGQUIT ends.
	exitQuit = 2
)

// continued draws the screen anew once SIGCONT has continued the process: what stopped it may have
// changed the terminal.
func continued(screen *console.Screen, signals <-chan os.Signal) error {
	select {
	case <-signals:
		return screen.Resume()
	default:
		return nil
	}
}

// stopTop gives the terminal back and stops the processes of this command, as the shell expects of
// Ctrl-Z, until they are continued.
func stopTop(screen *console.Screen, signals chan os.Signal) error {
	defer forget(signals) // the screen is drawn anew already
	return screen.Suspend(func() {
		// An earlier SIGCONT would end the wait below, and the screen would come back before the
		// kernel has stopped the process.
		forget(signals)
		_ = syscall.Kill(0, syscall.SIGTSTP)
		// Without a shell that could continue it, the kernel does not stop a process.
		select {
		case <-signals:
		case <-time.After(stopWait):
		}
	})
}

// forget drops a SIGCONT that is in the channel, or on its way to it.
func forget(signals chan os.Signal) {
	signal.Stop(signals)
	select {
	case <-signals:
	default:
	}
	signal.Notify(signals, syscall.SIGCONT)
}

// stopWait is how long stopTop waits for the kernel to stop the process, which takes time where
// many processes run.
const stopWait = time.Second

// pressed handles keys, and reports whether the user has ended the command.
func pressed(screen *console.Screen, live *status.Live, signals chan os.Signal) (done bool,
	err error) {
	keys, err := screen.Keys(keyWait)
	if err != nil {
		return true, err
	}
	for _, key := range keys {
		switch key {
		case console.Quit:
			return true, nil
		case console.Pause:
			if err := stopTop(screen, signals); err != nil {
				return true, err
			}
		}
		live.Scroll(key)
	}
	return false, nil
}
