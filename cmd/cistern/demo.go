package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"cistern/ingest"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"
)

const demoAbout = `Start a simulated AT Protocol network in this process (a PLC directory, a fleet of hosts and a relay, all on
loopback, with real signed repositories), index it with the real daemon over HTTP, show three queries with their
answers, then let the accounts write, follow that by the relay's firehose, and keep serving until Ctrl-C. One host asks to be left alone for a second, and one account's
repository carries a forged signature, so that failures can be seen. Nothing leaves this machine.`

// demoRecords is the median size of the demo's repositories: enough to see the bar move.
const demoRecords = 100

// demoGroupAge makes what was fetched visible a little sooner than a real index does, for the same reason.
const demoGroupAge = 100 * time.Millisecond

// demoOptions are the choices of the demo. It reads no variables: those configure real indexes.
type demoOptions struct {
	repos, hosts  int
	seed          uint64
	data          string // "": temporary, removed at exit
	listen, admin string
	exit          bool
}

var demoRows = []helpRow{
	{"--repos N", "Accounts of the network. Default 300."},
	{"--hosts N", "Hosts they are spread over. Default 6."},
	{"--seed N", "Where everything random comes from: the same seed makes the same network. Default 1."},
	{"--data DIR", "Directory for the store, empty or not there yet. Default a temporary one, removed at exit."},
	{"--listen ADDR", "Public listener. Default 127.0.0.1:2481, or a free port if that is taken."},
	{"--admin ADDR", "Private listener. Default 127.0.0.1:2480, or a free port if that is taken."},
	{"--exit", "Stop after the queries instead of serving on."},
}

func (a *app) demoCommand() *cli.Command {
	return &cli.Command{
		Name:  "demo",
		Usage: "index a simulated network on this machine and show what one can ask",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "repos", Value: 300}, &cli.IntFlag{Name: "hosts", Value: 6}, &cli.Uint64Flag{Name: "seed", Value: 1},
			&cli.StringFlag{Name: "data"}, &cli.StringFlag{Name: "listen"}, &cli.StringFlag{Name: "admin"}, &cli.BoolFlag{Name: "exit"},
		},
		CustomHelpTemplate: helpText("cistern demo [options]", demoAbout, demoRows, false,
			"  cistern demo\n  cistern demo --repos 5000 --hosts 20\n  cistern demo --exit --data ./demo && cistern check --data ./demo"),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			o := demoOptions{repos: cmd.Int("repos"), hosts: cmd.Int("hosts"), seed: cmd.Uint64("seed"), data: cmd.String("data"),
				listen: cmd.String("listen"), admin: cmd.String("admin"), exit: cmd.Bool("exit")}
			if err := errors.Join(noArguments(cmd), o.validate()); err != nil {
				return err
			}
			return a.untilSignal(ctx, func(ctx context.Context) error { return a.demo(ctx, o) })
		},
	}
}

func (o demoOptions) validate() error {
	var errs []error
	for _, n := range []struct {
		flag     string
		n, limit int
	}{{"repos", o.repos, 1_000_000}, {"hosts", o.hosts, 200}} {
		if n.n < 1 || n.n > n.limit {
			errs = append(errs, fmt.Errorf("--%s %d: want 1 to %d", n.flag, n.n, n.limit))
		}
	}
	for _, l := range []struct{ flag, address string }{{"listen", o.listen}, {"admin", o.admin}} {
		if l.address == "" {
			continue
		}
		if _, err := parseListen(l.address); err != nil {
			errs = append(errs, fmt.Errorf("--%s %q: %w", l.flag, l.address, err))
		}
	}
	if o.admin != "" && !loopback(o.admin) {
		errs = append(errs, fmt.Errorf("--admin %q: want a loopback address, for the demo has no token", o.admin))
	}
	if entries, err := os.ReadDir(o.data); o.data != "" && err == nil && len(entries) > 0 {
		errs = append(errs, fmt.Errorf("--data %q: want an empty directory, so that the demo's accounts mix with no others", o.data))
	}
	return mistakes(errs)
}

// demo runs the network, the daemon and the tour.
func (a *app) demo(ctx context.Context, o demoOptions) (err error) {
	signal.Ignore(syscall.SIGPIPE) // a reader like head must not keep us from cleaning up
	network, err := simnet.New(simnet.Options{Seed: o.seed, Hosts: o.hosts, Repos: o.repos, RecordsMedian: demoRecords, NoLimit: true})
	if err != nil {
		return err
	}
	term := newTerminal(a.stderr, a.environ)
	fmt.Fprintf(a.stdout, "A simulated network: %s on %s, seed %d, all on this machine.\n",
		plural(int64(o.repos), "account", "accounts"), plural(int64(o.hosts), "host", "hosts"), o.seed)
	if err := errors.Join(network.Start(ctx), network.Build(ctx)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	misbehave(network)

	data, remove, err := demoData(o.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	public, admin, err := a.demoListeners(o)
	if err != nil {
		return err
	}
	cfg, err := demoConfig(network, data)
	if err != nil {
		return errors.Join(err, public.Close(), admin.Close())
	}
	d, err := newDaemon(cfg, demoLog(term), listeners{public, admin}, tuning{store: func(o *store.Options) { o.GroupAge = demoGroupAge }})
	if err != nil {
		return err
	}
	t := &tour{daemon: d, network: network, term: term, out: a.stdout, started: time.Now(), program: a.program, exit: o.exit}
	return d.run(ctx, box{"tour", t.Run})
}

// misbehave gives the network the two failures that demoAbout tells of.
func misbehave(n *simnet.Network) {
	busy := n.Host(len(n.Hosts()) - 1)
	busy.Inject(simnet.Fault{Kind: simnet.RateLimited, Count: 2, RetryAfter: time.Second})
	if accounts := n.Accounts(); len(accounts) > 1 {
		forged := accounts[len(accounts)/2]
		forged.Host().Inject(simnet.Fault{Kind: simnet.BadSignature, DID: forged.DID()})
	}
}

func demoConfig(n *simnet.Network, data string) (Config, error) {
	relay, err := ingest.ParseSource(n.Relay(), false)
	return Config{Data: data, PLC: []string{n.PLC()}, Full: true, Relays: []store.Source{relay}, AllowPrivate: true, Verify: "full"}, err
}

// demoLog is for what a visitor has to know: the tour tells the rest.
func demoLog(term *terminal) *slog.Logger { return newLogger(term, slog.LevelError) }

// demoData is the directory of the store, and what to do with it at the end.
func demoData(dir string) (string, func() error, error) {
	if dir != "" {
		return dir, func() error { return nil }, nil
	}
	temporary, err := os.MkdirTemp("", "cistern-demo-")
	if err != nil {
		return "", nil, err
	}
	return filepath.Join(temporary, "data"), func() error { return os.RemoveAll(temporary) }, nil
}

// demoListeners listens where asked, or at the usual ports, or where there is room.
func (a *app) demoListeners(o demoOptions) (public, admin net.Listener, err error) {
	if public, err = a.listenNear(o.listen, "127.0.0.1:2481"); err != nil {
		return nil, nil, err
	}
	if admin, err = a.listenNear(o.admin, "127.0.0.1:2480"); err != nil {
		return nil, nil, errors.Join(err, public.Close())
	}
	return public, admin, nil
}

func (a *app) listenNear(asked, usual string) (net.Listener, error) {
	l, err := net.Listen("tcp", cmp.Or(asked, usual))
	if err == nil || asked != "" {
		return l, err
	}
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
		fmt.Fprintf(a.stdout, "%s is taken, using %s instead.\n", usual, l.Addr())
	}
	return l, err
}

// indexed waits until the daemon has tried every account, showing progress meanwhile.
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
		if s := t.daemon.sample(); s.repos >= p.total && s.pending == 0 && s.syncing == 0 {
			stop()
			err := g.Wait()
			p.last(s)
			return s, err
		}
		select {
		case <-ctx.Done():
			stop()
			return sample{}, errors.Join(g.Wait(), ctx.Err())
		case <-tick.C:
		}
	}
}

const demoLogEvery = 2 * time.Second
