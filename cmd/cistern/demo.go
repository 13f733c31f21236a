package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"cistern/api/names"
	"cistern/cmd/cistern/command"
	"cistern/cmd/cistern/remote"
	"cistern/console"
	"cistern/filter"
	"cistern/ingest/firehose"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"
)

const demoAbout = `Start a simulated AT Protocol network in this process: a PLC directory, hosts
and a relay, all on loopback, with real signed repositories. Index it with the
real daemon over HTTP and show example queries with their answers. Then let the
accounts write, follow them by the relay's firehose, and serve until Ctrl-C. One
host limits its rate for a second, and one account's repository has a forged
signature, so that failures can be seen. Nothing leaves this machine.`

const demoExamples = `  cistern demo
  cistern demo --repos 5000 --hosts 20
  cistern demo --exit --data ./demo && cistern check --data ./demo
`

const (
	// demoRecords is the median size of the demo's repositories: enough to see progress.
	demoRecords = 100
	// demoGroupAge is shorter than the store's default, to show fetched records sooner.
	demoGroupAge = 100 * time.Millisecond
	// demoLogEvery is the pace of its progress lines where there is no terminal.
	demoLogEvery = 2 * time.Second
	// demoListen is its public listener, unless that is taken.
	demoListen = "127.0.0.1" + remote.ListenDefault
)

// demoOptions are the options of the demo. They have no variables, which configure real indexes.
type demoOptions struct {
	repos, hosts, seed uint64
	data               string // "": temporary, removed at exit
	listen, admin      string
	exit               bool
}

func (c *demoOptions) options() []command.Option {
	return []command.Option{
		{Name: "repos", Value: "N", Default: "300",
			Set:  command.Set(&c.repos, command.Number(1, 1_000_000)),
			Help: "Accounts of the network."},
		{Name: "hosts", Value: "N", Default: "6",
			Set:  command.Set(&c.hosts, command.Number(1, 200)),
			Help: "Hosts that the accounts are spread over."},
		{Name: "seed", Value: "N", Default: "1",
			Set:  command.Set(&c.seed, command.Number(0, math.MaxUint64)),
			Help: "Seed of everything random. The same seed makes the same network."},
		{Name: "data", Value: "DIR", Set: command.Set(&c.data, parseEmptyDir),
			Help: "Directory for the store, empty or missing. The default is a temporary one, " +
				"removed at exit."},
		{Name: "listen", Value: "ADDR", Set: command.Set(&c.listen, command.ParseListen),
			Help: "Public listener. The default is " + demoListen + ", or a free port."},
		{Name: "admin", Value: "ADDR", Set: command.Set(&c.admin, parseLoopback),
			Help: "Private listener. The default is " + remote.AdminDefault + ", or a free port."},
		{Name: "exit",
			Set: command.Set(&c.exit, command.ParseSwitch), Help: "Exit after the queries."},
	}
}

func parseEmptyDir(dir string) (string, error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return "", errors.New("want an empty directory, as the index must have no other accounts")
	}
	return dir, nil
}

func parseLoopback(address string) (string, error) {
	if address, err := command.ParseListen(address); err != nil || loopback(address) {
		return address, err
	}
	return "", errors.New("want a loopback address, because the demo has no token")
}

func (a *app) demoCommand() *cli.Command {
	var cfg demoOptions
	return &cli.Command{
		Name:               "demo",
		Usage:              "index a simulated network and show example queries",
		UsageText:          "cistern demo [options]",
		Description:        demoAbout,
		Flags:              command.Flags(cfg.options()),
		CustomHelpTemplate: command.HelpTemplate + demoExamples,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			_, _, errs := command.Load(cfg.options(), cmd, nil)
			if err := errors.Join(command.NoArguments(cmd), command.Mistakes(errs)); err != nil {
				return err
			}
			return a.UntilSignal(ctx, func(ctx context.Context) error { return a.demo(ctx, cfg) })
		},
	}
}

// demo runs the network, the daemon and the tour.
func (a *app) demo(ctx context.Context, o demoOptions) (err error) {
	signal.Ignore(syscall.SIGPIPE) // a reader like head must not prevent the cleanup
	network, err := simnet.New(simnet.Options{Seed: o.seed, Hosts: int(o.hosts),
		Repos: int(o.repos), RecordsMedian: demoRecords, NoLimit: true, Present: true})
	if err != nil {
		return err
	}
	term := console.New(a.Stderr, a.Environ)
	public, err := a.listenNear("--listen", o.listen, demoListen)
	if err != nil {
		return err
	}
	admin, err := a.listenNear("--admin", o.admin, remote.AdminDefault)
	if err != nil {
		return errors.Join(err, public.Close())
	}
	defer func() { err = errors.Join(err, closed(public), closed(admin)) }()
	fmt.Fprintf(a.Stdout, "A simulated network: %s on %s, seed %d, all on this machine.\n",
		console.Count(int64(o.repos), "account"), console.Count(int64(o.hosts), "host"), o.seed)
	if err := network.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	fmt.Fprintf(a.Stdout, "PLC directory %s, relay %s\n", network.PLC(), network.Relay())
	fmt.Fprintf(a.Stdout, "Generating and signing their repositories, with a median of %d records.\n",
		demoRecords)
	err = generate(ctx, network, a.Progress("generating", console.Unit{Noun: "repositories"}))
	if err != nil {
		return err
	}
	misbehave(network)

	if o.data == "" {
		var temporary string
		if temporary, err = os.MkdirTemp("", "cistern-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()
		o.data = filepath.Join(temporary, "data")
	}
	cfg, err := demoConfig(network, o.data)
	if err != nil {
		return err
	}
	// The tour shows the state of the index, so only errors are logged.
	d, err := newDaemon(cfg, newLogger(term, slog.LevelError), listeners{public, admin},
		tuning{store: func(o *store.Options) { o.GroupAge = demoGroupAge },
			names: func(o *names.Options) { o.DNS = network.Names() }})
	if err != nil {
		return err
	}
	t := &tour{daemon: d, network: network, term: term, out: a.Stdout, started: time.Now(),
		program: a.Program, exit: o.exit}
	return d.run(ctx, box{"tour", t.Run})
}

// generate makes the repositories of the network, and shows how far that is.
func generate(ctx context.Context, n *simnet.Network, shown *console.Progress) error {
	accounts := int64(len(n.Accounts()))
	shown.Sample(func() console.Work { return console.Work{Done: n.Built(), Total: accounts} })
	return shown.During(ctx, n.Build)
}

// closed closes a listener, which the daemon may have done already.
func closed(l net.Listener) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// misbehave adds the two failures that demoAbout announces.
func misbehave(n *simnet.Network) {
	busy := n.Host(len(n.Hosts()) - 1)
	busy.Inject(simnet.Fault{Kind: simnet.RateLimited, Count: 2, RetryAfter: time.Second})
	if accounts := n.Accounts(); len(accounts) > 1 {
		forged := accounts[len(accounts)/2]
		forged.Host().Inject(simnet.Fault{Kind: simnet.BadSignature, DID: forged.DID()})
	}
}

// demoConfig returns the options of a daemon that indexes all of n.
func demoConfig(n *simnet.Network, data string) (Config, error) {
	relay, err := firehose.ParseSource(n.Relay(), false)
	return Config{Data: data, PLC: []string{n.PLC()}, Mode: filter.ModeFull,
		Relays: []store.Source{relay}, AllowPrivate: true, Verify: "full", Handles: "on",
		StatusPage: true}, err
}

// listenNear listens on the address that an option asks for. Without one, it listens on the usual
// address, or on a free port if another program uses that.
func (a *app) listenNear(option, asked, usual string) (net.Listener, error) {
	l, err := listen(option, cmp.Or(asked, usual))
	if asked != "" || err == nil {
		return l, err
	}
	if l, err = listen(option, "127.0.0.1:0"); err == nil {
		fmt.Fprintf(a.Stdout, "Another program uses %s, so the demo uses %s (%s chooses an address).\n",
			usual, l.Addr(), option)
	}
	return l, err
}

// indexed waits until the daemon has tried every account, and shows progress meanwhile.
func (t *tour) indexed(ctx context.Context) (sample, error) {
	p := t.daemon.progress(t.term, newLogger(t.term, slog.LevelInfo))
	p.total, p.logEvery = int64(len(t.network.Accounts())), demoLogEvery
	showCtx, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return p.Run(showCtx) })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if s := t.daemon.sample(); s.repos >= p.total && !s.fetching() {
			stop()
			err := g.Wait()
			p.last(s)
			return s, err
		}
		select {
		case <-ctx.Done():
			return sample{}, errors.Join(g.Wait(), ctx.Err())
		case <-tick.C:
		}
	}
}
