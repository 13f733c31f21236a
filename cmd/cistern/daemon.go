package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"cistern/alert"
	"cistern/api"
	"cistern/api/admin"
	"cistern/api/names"
	"cistern/archive"
	"cistern/backfill"
	"cistern/backfill/discover"
	"cistern/backup"
	"cistern/chart"
	"cistern/cmd/cistern/command"
	"cistern/condition"
	"cistern/console"
	"cistern/copies"
	"cistern/dump"
	"cistern/filter"
	"cistern/ingest"
	"cistern/ingest/firehose"
	"cistern/ingest/identity"
	"cistern/logbook"
	"cistern/logs"
	"cistern/maintain"
	"cistern/phase"
	"cistern/store"
	"cistern/trace"
	"cistern/verdict"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/urfave/cli/v3"
)

const runAbout = `Run the daemon: discover repositories, or take those that 'cistern repo add'
names, fetch them from their hosts, verify them, follow the firehoses of relays,
and serve the result. SIGTERM or Ctrl-C stops it after the work in flight; a
second one stops it at once, which loses nothing that was durable.

Every option is also a variable: --disk-reserve is CISTERN_DISK_RESERVE. Where
an option may be repeated, commas separate the values in its variable. A flag
wins over its variable.`

const runExamples = `  cistern run                                         index what 'repo add' names
  cistern run --crawl repos::https://pds.example.com  all repositories of a host
  cistern run --relay https://relay1.us-east.bsky.network --signal app.bsky.feed.post
  cistern run --relay https://relay1.us-east.bsky.network --collection 'app.bsky.feed.*'
  cistern run --mode full --relay https://relay1.us-east.bsky.network
  CISTERN_DATA=/var/lib/cistern CISTERN_ADMIN=:2480 CISTERN_ADMIN_TOKEN=... cistern run
`

// shutdownBudget bounds a clean stop.
const shutdownBudget = 30 * time.Second

func (a *app) runCommand() *cli.Command {
	var cfg Config
	return &cli.Command{
		Name:               "run",
		Usage:              "run the daemon",
		UsageText:          "cistern run [options]",
		Description:        runAbout,
		Flags:              command.Flags(cfg.options()),
		CustomHelpTemplate: command.HelpTemplate + runExamples,
		Action: func(ctx context.Context, cmd *cli.Command) error {
			if err := errors.Join(command.NoArguments(cmd), cfg.load(cmd, a.Environ)); err != nil {
				return err
			}
			return a.UntilSignal(ctx, func(ctx context.Context) error { return a.daemon(ctx, cfg) })
		},
	}
}

// daemon runs the daemon until ctx ends.
func (a *app) daemon(ctx context.Context, cfg Config) error {
	signal.Ignore(syscall.SIGPIPE) // the daemon outlives the reader of its log
	public, err := listen("--listen", cfg.Listen)
	if err != nil {
		return err
	}
	admin, err := listen("--admin", cfg.Admin)
	if err != nil {
		return errors.Join(err, public.Close())
	}
	term := console.New(a.Stderr, a.Environ)
	lines := logs.New(logs.Options{Output: term, Level: cfg.LogLevel, JSON: cfg.LogFormat == "json"})
	log := slog.New(lines)
	d, err := newDaemon(cfg, log, listeners{public, admin}, a.tune)
	if err != nil {
		return err
	}
	d.log.Info("serving", "version", version(), "data", cfg.Data, "public", public.Addr().String(),
		"admin", admin.Addr().String())
	err = d.run(ctx, box{"progress", d.progress(term, log).Run})
	if err == nil {
		log.Info("stopped")
	}
	return errors.Join(err, lines.Flush(time.Now()))
}

// listen listens on the address of an option. Its error names the option, and the port if another
// program uses it.
func listen(option, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(address)
		return nil, fmt.Errorf("%s %s: another program uses port %s: end it, or give another address "+
			"with %[1]s", option, address, port)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", option, err)
	}
	return l, nil
}

// journaled returns a log whose lines also go to a journal: those that are written to the log of
// the daemon, so that many of one kind leave room for others.
func journaled(log *slog.Logger, journal *logbook.Book) *slog.Logger {
	if lines, ok := log.Handler().(*logs.Handler); ok {
		return slog.New(lines.Through(journal.Handler))
	}
	return slog.New(journal.Handler(log.Handler())) // the log of the demo
}

// newLogger returns the log of a command that is not the daemon.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

type listeners struct{ public, admin net.Listener }

// tuning changes options that an operator cannot set. The demo and the tests use it.
type tuning struct {
	store    func(*store.Options)
	identity func(*identity.Options)
	backfill func(*backfill.Options)
	discover func(*discover.Options)
	firehose func(*firehose.Options)
	ingest   func(*ingest.Options)
	archive  func(*archive.Options)
	probe    func(*condition.Probe)
	names    func(*names.Options)
	budget   time.Duration // for a clean stop; 0: shutdownBudget

	conditions func(*condition.Options)
	alerts     func(*alert.Options)
	charts     func(*chart.Options)
	top        func(step string)  // called before each step of the screen of top
	check      func(console.Work) // called when check has shown its progress
}

// daemon is the wiring of one index.
type daemon struct {
	listeners
	cfg     Config
	seed    filter.Config // of the options, which only a new store takes; unset with --read-only
	tune    tuning
	log     *slog.Logger
	metrics *prometheus.Registry
	tracer  *trace.Tracer // nil without --traces
	gates   *gates
	ending  atomic.Bool // the boxes are being stopped

	meter      *condition.Meter
	conditions *condition.Watcher
	now        func() time.Time // the clock of conditions
	alerts     *alert.Watcher
	charts     *chart.Recorder
	journal    *logbook.Book // takes what is written to log

	store    *store.Store
	damage   chan error // that an operation of maintenance found in the store
	maintain *maintain.Coordinator
	identity *identity.Directory
	phases   *phase.Keeper
	backfill *backfill.Runner
	discover *discover.Runner
	sources  *firehose.Sources
	ingest   *ingest.Runner
	api      *api.Server
	backups  *backup.Maker // nil without --backup
	lender   *backup.Lender
	copies   *copies.Registry // of commands
	archive  *archive.Archive // nil without --offload
	links    backlinks
	exports  *dump.Maker // nil without --export
}

// newDaemon constructs the boxes, each from earlier boxes, and starts none. It owns the listeners.
// Steps that can fail without the store come before the store, and the filter comes last: a failed
// start must not leave a store with the filter of its options.
func newDaemon(cfg Config, log *slog.Logger, l listeners, tune tuning) (*daemon, error) {
	journal := logbook.New()
	d := &daemon{listeners: l, cfg: cfg, tune: tune, log: journaled(log, journal), journal: journal,
		metrics: prometheus.NewRegistry(), gates: new(gates),
		damage: make(chan error, 1)}
	if lines, ok := log.Handler().(*logs.Handler); ok { // not the log of the demo
		d.metrics.MustRegister(lines)
	}
	if cfg.ReadOnly {
		d.cfg.Reserve = reserve{} // it takes no space
	}
	d.metrics.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.metrics.MustRegister(diskLoad()...)
	var err error
	if d.tracer, err = newTracer(&d.cfg, d.log, d.metrics); err != nil {
		return nil, errors.Join(err, d.close())
	}
	for _, build := range []func() error{d.checkDisk, d.newIdentity, d.openStore, d.newPhases,
		d.newBackups, d.newMaintain, d.newConditions, d.newAlerts,
		d.newBackfill, d.newDiscover,
		d.newIngest, func() error { return newCharts(d) }, d.newAPI,
		func() error { return d.conditions.Look() }, d.seedFilter} {
		if err := build(); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, nil
}

// boxes returns the running parts in the order of their start.
func (d *daemon) boxes() []box {
	serve := box{"api", func(ctx context.Context) error {
		return d.api.Serve(ctx, d.public, d.admin)
	}}
	charts := box{"charts", d.charts.Run}
	if d.cfg.ReadOnly {
		return []box{{"store", d.store.Run}, serve, charts, {"supervisor", d.supervisor().Run}}
	}
	return []box{
		{"traces", d.tracer.Run}, // below all that it traces
		{"store", d.store.Run},
		{"phase", d.phases.Run}, // below all that may wait for the disk
		serve,
		{"webhooks", d.api.Webhooks},
		{"maintenance", d.runMaintenance},
		{"backlinks", d.links.run},
		{"conditions", d.runConditions}, // below what it counts
		{"backfill", func(ctx context.Context) error {
			awaitSources(ctx, d.sources)
			return d.gates.backfill.Run(ctx, d.backfill.Run)
		}},
		{"crawl", func(ctx context.Context) error {
			return d.gates.crawler.Run(ctx, d.discover.Run)
		}},
		{"identity", d.identity.Run},
		{"alerts", d.alerts.Run},
		charts,
		{"ingest", d.ingest.Run}, // also while disk space is low: live events are few
		{"supervisor", d.supervisor().Run},
	}
}

// sourcesBudget is how long fetches wait for the firehose. If a source connects later, its listing
// is compared with the store.
const sourcesBudget = 10 * time.Second

// awaitSources waits until the firehose is followed. If a repository were fetched before, the
// commits between its copy and the first event would be missed.
func awaitSources(ctx context.Context, sources *firehose.Sources) {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for end := time.Now().Add(sourcesBudget); !sources.Tried() && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// run runs the boxes and the watchers, and closes the store when nothing writes to it any more.
func (d *daemon) run(ctx context.Context, watchers ...box) error {
	budget := cmp.Or(d.tune.budget, shutdownBudget)
	var stopped time.Time
	err := boxes{list: append(d.boxes(), watchers...), budget: budget,
		stopping: func() {
			stopped = time.Now()
			d.stop()
		}}.Run(ctx)
	if errors.Is(err, errBudget) || errors.Is(err, api.ErrDraining) {
		return fmt.Errorf("%w: exiting without closing the store, which recovers when it is opened",
			err)
	}
	if err == nil && !d.cfg.ReadOnly {
		err = d.links.close()
		d.suspend(context.WithoutCancel(ctx), stopped.Add(budget))
	}
	return errors.Join(err, d.close())
}

// stop ends the work that brings data in, before the boxes are stopped one after the other.
func (d *daemon) stop() {
	d.ending.Store(true)
	d.phases.Stop()
	d.supervisor().stopping()
}

func (d *daemon) supervisor() supervisor {
	return supervisor{log: d.log, ready: d.store.Ready}
}

func (d *daemon) close() error {
	errs := []error{closeListener(d.public), closeListener(d.admin)}
	if d.store != nil {
		d.store.Thaw() // closing writes
		errs = append(errs, d.links.close(), d.store.Close())
	}
	return errors.Join(errs...)
}

// closeListener closes a listener that a server may have closed already.
func closeListener(l net.Listener) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (d *daemon) openStore() (err error) {
	o := store.Options{Dir: d.cfg.Data, Retention: d.cfg.Retention,
		RetentionBytes: d.cfg.RetentionBytes, SubscriptionRetention: d.cfg.SubscriptionRetention,
		SnapshotRetention: d.cfg.SnapshotRetention, Archive: d.cfg.OffloadTo != nil,
		Ephemeral: d.cfg.Ephemeral, Logger: d.log,
		Registerer: d.metrics}
	if d.tune.store != nil {
		d.tune.store(&o)
	}
	if d.cfg.ReadOnly {
		o.MustExist = true
	}
	d.store, err = store.Open(o)
	switch {
	case errors.Is(err, store.ErrMode):
		return command.UsageError(err)
	case err != nil:
		return err
	}
	if d.store.Ephemeral() {
		d.log.Info("the store keeps events only (--ephemeral): records go with their events, and " +
			"queries for records are refused")
	}
	d.archive, err = newArchive(d)
	if err == nil {
		d.links, err = openBacklinks(d)
	}
	if err == nil {
		d.exports, err = newExports(d)
	}
	if err != nil || !d.cfg.ReadOnly {
		return err
	}
	return d.store.Freeze(context.Background()) // for good: closing the store thaws it
}

// newTracer returns what sends traces, nil if there is no collector for them.
func newTracer(c *Config, log *slog.Logger, reg prometheus.Registerer) (*trace.Tracer, error) {
	if c.Traces == "" || c.ReadOnly {
		return nil, nil
	}
	return trace.New(trace.Options{Endpoint: c.Traces, Share: float64(c.TraceShare) / 100,
		Version: version(), Logger: log, Registerer: reg})
}

func (d *daemon) newIdentity() (err error) {
	o := identity.Options{PLC: d.cfg.PLC, AllowPrivate: d.cfg.AllowPrivate,
		UserAgent: userAgent(), Registerer: d.metrics}
	if d.tune.identity != nil {
		d.tune.identity(&o)
	}
	d.identity, err = identity.New(o)
	return err
}

func (d *daemon) newBackfill() (err error) {
	o := backfill.Options{Store: d.store, HostRules: d.cfg.HostRules, Directory: d.identity,
		AllowPrivate: d.cfg.AllowPrivate, UserAgent: userAgent(), Strategy: d.cfg.Strategy,
		SkipSignatures: d.cfg.Verify == "none",
		CARBytesMax:    d.cfg.RepoMax, FetchTimeout: d.cfg.FetchTimeout,
		SpoolDir: d.cfg.Data, Gate: &d.gates.backfill, Receive: d.meter.Receive,
		Seed: rand.Uint64(), Tracer: d.tracer, Logger: d.log, Registerer: d.metrics,
		// newIngest makes d.sources and d.ingest next. These are called only once both run.
		Follows: func(source uint32) bool { return d.sources.Follows(source) },
		Drain:   func(did string) { d.ingest.Drain(did) }}
	if d.tune.backfill != nil {
		d.tune.backfill(&o)
	}
	d.backfill, err = backfill.New(o)
	return err
}

func (d *daemon) newDiscover() (err error) {
	o := discover.Options{Store: d.store, Hosts: d.backfill.Hosts(), Directory: d.identity,
		Enqueued: d.backfill.Enqueued, AllowPrivate: d.cfg.AllowPrivate,
		Crawl: d.cfg.crawlSources(), CrawlEvery: d.cfg.CrawlEvery, Gate: &d.gates.crawler,
		Seed: rand.Uint64(), Logger: d.log, Registerer: d.metrics,
		// newIngest makes d.sources next. This is called only once both run.
		Unheard: func(origin string) error { return d.sources.FollowHost(origin) }}
	if d.tune.discover != nil {
		d.tune.discover(&o)
	}
	d.discover, err = discover.New(o)
	return err
}

// wake reports that rows were enqueued or have become due, that events were missed, or that the
// filter was changed.
func (d *daemon) wake() {
	d.backfill.Wake()
	d.discover.Wake()
}

func (d *daemon) newIngest() (err error) {
	from := firehose.Options{Store: d.store, Sources: slices.Concat(d.cfg.Relays, d.cfg.PDS),
		AllowPrivate: d.cfg.AllowPrivate, UserAgent: userAgent(), Wake: d.wake,
		Gate: &d.gates.firehose, Seed: rand.Uint64(), Tracer: d.tracer, Logger: d.log,
		Registerer: d.metrics}
	if d.tune.firehose != nil {
		d.tune.firehose(&from)
	}
	if d.sources, err = firehose.New(from); err != nil {
		return err
	}
	o := ingest.Options{Store: d.store, Directory: d.identity, Firehose: d.sources,
		SkipSignatures: d.cfg.Verify != "full", Wake: d.wake, Logger: d.log,
		Registerer: d.metrics}
	if d.tune.ingest != nil {
		d.tune.ingest(&o)
	}
	d.ingest, err = ingest.New(o)
	return err
}

// newNames returns the resolver of handles and DIDs for clients, nil if lookups are off.
func newNames(c *Config, d *identity.Directory, reg prometheus.Registerer,
	tune func(*names.Options)) (*names.Resolver, error) {
	if c.Handles != "on" || c.ReadOnly {
		return nil, nil
	}
	o := names.Options{Directory: d, AllowPrivate: c.AllowPrivate, UserAgent: userAgent(),
		Registerer: reg}
	if tune != nil {
		tune(&o)
	}
	return names.New(o)
}

func (d *daemon) newAPI() (err error) {
	resolver, err := newNames(&d.cfg, d.identity, d.metrics, d.tune.names)
	if err != nil {
		return err
	}
	log, archived := eventLog(d.archive)
	d.api, err = api.New(api.Options{Store: d.store, Log: log, Archived: archived,
		AdminToken: d.cfg.AdminToken, StatusPage: d.cfg.StatusPage,
		Syncing: d.backfill.Syncing, Wake: d.wake, Resolve: d.identity.Resolve, Names: resolver,
		Backlinks: d.links.index,
		Refilter:  d.backfill.Refilter, Crawler: d.crawler(), Firehose: d.firehose(), Hosts: d.hosts(),
		Ingestion: d.gates.ingestion(d.log), Maintenance: d.maintain, Phase: d.phases,
		Checkpoint: d.lender.Borrow, Copies: d.copies, Conditions: d.conditions.Status,
		Alerts: d.alerts.Subjects, Charts: d.charts, Journal: d.journal,
		Ignored: func() []verdict.Ignored {
			return d.cfg.ignored(d.seed, d.store.Filter().Config())
		},
		Disk:        func() (admin.Disk, error) { return freeDisk(d) },
		WebhookGate: &d.gates.webhooks, Stopping: d.ending.Load, Verify: d.cfg.Verify,
		Version: version(), Logger: d.log, Registerer: d.metrics,
		JetstreamDictionary: d.cfg.Jetstream, AllowPrivate: d.cfg.AllowPrivate})
	return err
}

// hosts returns the functions with which the private listener shows and limits hosts.
func (d *daemon) hosts() admin.Hosts {
	return admin.Hosts{
		Changed: func(id uint32) {
			d.backfill.HostChanged(id)
			d.discover.HostChanged(id)
		},
		Standing: func(id uint32) admin.HostStanding {
			return admin.HostStanding(d.backfill.HostStanding(id))
		},
	}
}

func userAgent() string { return "cistern/" + version() }

func (d *daemon) sample() sample {
	s := newSample(time.Now(), d.store.Counts(), d.backfill.Syncing(), d.sources.Status())
	s.waiting = waiting(d.conditions.Status())
	return s
}

func (d *daemon) progress(term *console.Terminal, log *slog.Logger) *progress {
	return &progress{term: term, log: log, sample: d.sample, logEvery: logEveryDefault}
}
