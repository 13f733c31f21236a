package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strings"
	"time"

	"cistern/alert"
	"cistern/api/atproto"
	"cistern/api/backlinks"
	"cistern/api/clients"
	"cistern/api/collections"
	"cistern/api/dashboard"
	"cistern/api/deliver"
	"cistern/api/durable"
	"cistern/api/export"
	"cistern/api/frontpage"
	"cistern/api/names"
	"cistern/api/statuspage"
	"cistern/api/tap"
	"cistern/api/webhook"
	"cistern/chart"
	"cistern/condition"
	"cistern/copies"
	"cistern/gate"
	"cistern/ingest/identity"
	"cistern/logbook"
	"cistern/maintain"
	"cistern/phase"
	"cistern/store"
	"cistern/store/linkindex"
	"cistern/verdict"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Store is the store that is served. Required.
	Store *store.Store
	// Log is the event log that consumers read. Default: that of Store.
	Log deliver.Log
	// Archived reports whether Log reads the event of an id from an archive, slowly. Default: none.
	Archived func(id uint64) bool
	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
	// Gatherer supplies the metrics of /metrics. Default: Registerer, if it is one.
	Gatherer prometheus.Gatherer
	// AdminToken is the secret of the private listener. Default: none, and only loopback
	// names and the listener's own address are answered.
	AdminToken string
	// Syncing is the number of repositories being fetched right now. Default: 0.
	Syncing func() int
	// Wake is called after the pending queue may have grown. Default: nothing.
	Wake func()
	// Resolve reads the DID document of an account that the store does not know, for clients of
	// tap. Default: such accounts are not found.
	Resolve func(ctx context.Context, did string) (identity.Identity, error)
	// Names looks up handles and DIDs for clients of the public listener. Default: nothing is
	// looked up, and handles are refused.
	Names *names.Resolver
	// Backlinks is the index of links. Default: queries for links are refused.
	Backlinks *linkindex.Index
	// Refilter reports whether a changed filter is being applied to repositories, and the last DID
	// that was handled. Default: no filter is being applied.
	Refilter func() (cursor string, running bool, err error)
	// Firehose follows the sources. Default: no source is followed.
	Firehose Firehose
	// Crawler discovers repositories. Default: nothing is crawled.
	Crawler Crawler
	// Hosts are the hosts from which repositories are fetched. Default: no host is asked.
	Hosts Hosts
	// Ingestion are the switches of /ingestion. Default: no switch.
	Ingestion Ingestion
	// Maintenance runs the operations of /maintenance. Default: there are none.
	Maintenance *maintain.Coordinator
	// Checkpoint makes the checkpoints that are lent. Default: Store.Checkpoint.
	Checkpoint func(context.Context) (*store.Checkpoint, error)
	// Copies has what commands make of these checkpoints. Default: a registry that a restart empties.
	Copies *copies.Registry
	// Phase changes the phase of the daemon. Default: there are no phases.
	Phase *phase.Keeper
	// Conditions returns what pauses backfill and crawling. Default: nothing does.
	Conditions func() []condition.Status
	// Alerts returns the subjects that fail, in order of kind and name. Default: none fails.
	Alerts func() []alert.Subject
	// Charts are the recent figures that /overview shows. Default: none are kept.
	Charts *chart.Recorder
	// Journal has the log lines that /overview shows. Default: none are kept.
	Journal *logbook.Book
	// Disk reads the disk of the store for /overview. Default: it is not shown.
	Disk func() (Disk, error)
	// Ignored returns the options of the filter that differ from the filter in force. Default: none.
	Ignored func() []verdict.Ignored
	// WebhookGate pauses the requests of webhooks. Default: nothing pauses them.
	WebhookGate *gate.Gate
	// StatusPage serves the public status page. Default: no.
	StatusPage bool
	// Stopping reports whether the daemon has begun to stop, for /readyz. Default: it has not.
	Stopping func() bool
	// Verify is the level of verification that /stats reports. Default "full".
	Verify string
	// Version is what /xrpc/_health reports. Default "dev".
	Version string

	// SubscribersMax, WriteTimeout, PageBytes, PageEvents and SharedBytes are the options of
	// package deliver, with its defaults.
	SubscribersMax int
	WriteTimeout   time.Duration
	PageBytes      int
	PageEvents     int
	SharedBytes    int
	// JetstreamDictionary is Jetstream1Dictionary of package deliver.
	JetstreamDictionary []byte
	// AllowPrivate permits webhooks at addresses that are not public, and without TLS. For
	// development only.
	AllowPrivate bool
	// DrainTimeout bounds the time that Serve drains. Default 10 s.
	DrainTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = o.Store
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if g, ok := o.Registerer.(prometheus.Gatherer); ok && o.Gatherer == nil {
		o.Gatherer = g
	}
	if o.Syncing == nil {
		o.Syncing = func() int { return 0 }
	}
	if o.Wake == nil {
		o.Wake = func() {}
	}
	if o.Refilter == nil {
		o.Refilter = func() (string, bool, error) { return "", false, nil }
	}
	if o.Checkpoint == nil && o.Store != nil {
		o.Checkpoint = o.Store.Checkpoint
	}
	if o.Conditions == nil {
		o.Conditions = func() []condition.Status { return nil }
	}
	if o.Alerts == nil {
		o.Alerts = func() []alert.Subject { return nil }
	}
	if o.Ignored == nil {
		o.Ignored = func() []verdict.Ignored { return nil }
	}
	if o.Stopping == nil {
		o.Stopping = func() bool { return false }
	}
	o.Verify = cmp.Or(o.Verify, "full")
	o.Version = cmp.Or(o.Version, "dev")
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 10*time.Second)
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Store == nil {
		errs = append(errs, errors.New("api needs a store"))
	}
	if o.Gatherer == nil {
		errs = append(errs, errors.New("api needs a gatherer beside its registerer"))
	}
	if o.DrainTimeout < 0 {
		errs = append(errs, fmt.Errorf("api drain timeout %s is negative", o.DrainTimeout))
	}
	return errors.Join(errs...)
}

// Server answers requests.
type Server struct {
	logger       *slog.Logger
	gatherer     prometheus.Gatherer
	metrics      *metrics
	drainTimeout time.Duration

	answers     *answers
	collections *collections.Collections
	access      access
	pages       pages
	front       front
	status      statusPage
	overview    overview
	xrpc        xrpc
	exports     *export.Records
	delivery    *deliver.Delivery
	stats       stats
	repos       repos
	changes     changes
	filters     filters
	hosts       hosts
	sources     sources
	crawls      crawlSources
	ingestion   Ingestion
	phases      phases

	description   description
	conditions    conditions
	alerts        alerts
	maintenance   maintenance
	checkpoints   checkpoints
	copies        copyRoutes
	subscriptions subscriptions
	webhooks      *webhook.Runner
	tap           *tap.API
}

// New returns a server. It starts nothing: call Serve, or use the handlers Public and Admin.
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	a := &answers{logger: o.Logger, metrics: m, store: o.Store, fatal: make(chan error, 1)}
	registry, err := durable.New(durable.Options{Store: o.Store, Log: o.Log, Logger: o.Logger,
		Registerer: o.Registerer, CheckURL: webhook.CheckURL(o.AllowPrivate)})
	if err != nil {
		return nil, err
	}
	var snapshots deliver.Records
	if !o.Store.Ephemeral() {
		snapshots = o.Store
	}
	delivery, err := deliver.New(deliver.Options{
		Log: o.Log, Archived: o.Archived, Subscriptions: registry, Records: snapshots, Epoch: o.Store.Epoch(), Logger: o.Logger, Registerer: o.Registerer,
		Refused: m.refused, Watch: a.watch, Refusal: refusalOf, SubscribersMax: o.SubscribersMax,
		WriteTimeout: o.WriteTimeout, PageBytes: o.PageBytes, PageEvents: o.PageEvents,
		SharedBytes: o.SharedBytes, Jetstream1Dictionary: o.JetstreamDictionary,
	})
	if err != nil {
		return nil, err
	}
	shown, err := dashboard.NewFiles()
	if err != nil {
		return nil, err
	}
	page, err := frontpage.New()
	if err != nil {
		return nil, err
	}
	brake, err := clients.NewBrake(time.Now)
	if err != nil {
		return nil, err
	}
	queue := clients.NewQueue(runtime.GOMAXPROCS(0), time.Now)
	exports, err := export.NewExports(o.Store, queue, o.Wake, o.Logger, o.Registerer)
	if err != nil {
		return nil, err
	}
	files, err := export.NewRecords(exports)
	if err != nil {
		return nil, err
	}
	lent, err := o.registry()
	if err != nil {
		return nil, err
	}
	s := &Server{
		logger: o.Logger, gatherer: o.Gatherer, metrics: m, drainTimeout: o.DrainTimeout,
		answers:     a,
		collections: collections.New(collections.Options{Store: o.Store, Refused: m.refused}),
		access:      access{token: o.AdminToken, requests: m.requests, answers: a, sessions: dashboard.NewSessions(time.Now), brake: brake},
		exports:     files,
		delivery:    delivery,
		repos:       repos{store: o.Store, hosts: o.Hosts},
		changes:     changes{store: o.Store, wake: o.Wake},
		filters:     filters{store: o.Store, wake: o.Wake, refilter: o.Refilter},
		hosts:       hosts{store: o.Store, opts: o.Hosts, logger: o.Logger},
		sources:     sources{o.Firehose},
		crawls:      crawlSources{o.Crawler},
		ingestion:   o.Ingestion,
		phases:      phases{o.Phase},

		conditions:    conditions{o.Conditions},
		alerts:        alerts{o.Alerts},
		maintenance:   maintenance{o.Maintenance},
		checkpoints:   checkpoints{make: o.Checkpoint, copies: lent, stopping: o.Stopping, version: o.Version, logger: o.Logger},
		copies:        copyRoutes{lent},
		subscriptions: subscriptions{registry},
	}
	if s.xrpc, err = s.newXRPC(o, exports, queue); err != nil {
		return nil, err
	}
	if s.description, err = describe(o.Version, s.xrpc.coder); err != nil {
		return nil, err
	}
	s.stats = stats{store: o.Store, sizes: paced[map[string]int64]{read: o.Store.Sizes}, sources: &s.sources,
		ingestion: &s.ingestion, phases: s.phases, conditions: s.conditions, syncing: o.Syncing, verify: o.Verify, version: o.Version,
		stopping: o.Stopping, logger: o.Logger}
	s.pages = pages{access: &s.access, files: shown}
	s.front = front{page: page, store: o.Store, xrpc: &s.xrpc, sources: &s.sources, names: o.Names != nil, status: o.StatusPage, version: o.Version}
	s.newOverview(o, registry)
	if s.status, err = newStatusPage(o.StatusPage, &s.overview, shown, s.xrpc.coder); err != nil {
		return nil, err
	}
	if err := errors.Join(s.newTap(o, registry), s.newWebhooks(o, registry)); err != nil {
		return nil, err
	}
	return s, nil
}

// newOverview makes the handler of /overview from the others.
func (s *Server) newOverview(o Options, registry *durable.Registry) {
	s.overview = overview{stats: &s.stats, sources: &s.sources, registry: registry,
		hosts:       paced[hostSummary]{read: func() (hostSummary, error) { return s.hosts.summary(s.sources.only) }},
		maintenance: &s.maintenance, copies: s.copies, conditions: s.conditions, alerts: o.Alerts, charts: o.Charts,
		journal: o.Journal, disk: o.Disk, crawler: o.Crawler, ignored: o.Ignored, started: time.Now(), token: o.AdminToken != ""}
}

// newXRPC makes the handler of queries.
func (s *Server) newXRPC(o Options, exports *export.Exports, queue *clients.Queue) (xrpc, error) {
	r := atproto.New(atproto.Options{Store: o.Store, Refused: s.metrics.refused, Names: o.Names,
		Hosts: func() func(*store.Host) atproto.HostStatus { return s.hosts.statuses(&s.sources) }})
	c, err := newCoder()
	return xrpc{methods: methods(r), lookups: lookups(r), cars: cars(exports), answers: s.answers,
		links: backlinks.New(o.Backlinks, o.Store),
		coder: c, queue: queue,
		turns: clients.NewTurns(queriesMax), large: clients.NewTurns(largeBytesMax)}, err
}

// Public returns the handler of the public listener.
func (s *Server) Public() http.Handler {
	mux := http.NewServeMux()
	s.readSide(mux)
	mux.Handle("GET /{$}", s.answers.route("front", s.front.show))
	mux.Handle("GET "+frontpage.Prefix+"{file}", s.answers.route("front_part", s.front.part))
	if s.status.page != nil {
		mux.Handle("GET /status", s.answers.route("status", s.status.show))
		mux.Handle("GET /status.json", s.answers.route("status_json", s.status.figures))
		mux.Handle("GET "+statuspage.Prefix+"{file}", s.answers.route("status_part", s.status.part))
	}
	mux.Handle("/", s.answers.unknown(mux))
	return open(mux)
}

// readSide adds the routes of both listeners.
func (s *Server) readSide(mux *http.ServeMux) {
	mux.Handle("/xrpc/{method}", s.xrpc.handler())
	for path, h := range s.reads() {
		mux.Handle("GET "+path, h)
	}
}

// reads returns the routes of both listeners beside the methods of XRPC, by path. Package openapi
// describes each.
func (s *Server) reads() map[string]http.Handler {
	const jetstream = "network.bsky.jetstream."
	route, untimed := s.answers.route, s.answers.untimed
	all := map[string]http.Handler{
		"/xrpc/_health":      route("_health", s.stats.health),
		"/stream":            untimed("stream", s.delivery.Stream),
		"/stream/dictionary": route("dictionary", s.delivery.ZstdDictionary),
		"/subscribe":         untimed("subscribe", s.delivery.Jetstream1),
		"/stats":             route("stats", s.stats.show),
		"/openapi.json":      route("openapi", s.description.show),
		"/export":            untimed("export", s.exports.Get),

		"/xrpc/" + jetstream + "subscribeEvents": untimed(jetstream+"subscribeEvents", s.delivery.Jetstream2),
		"/xrpc/" + jetstream + "getZstdDictionary": route(jetstream+"getZstdDictionary",
			s.delivery.ZstdDictionary),
	}
	maps.Copy(all, s.aboutCollections(s.collections))
	for path, method := range s.xrpc.links.Older() {
		all[path] = s.xrpc.backlinks(strings.ReplaceAll(path[1:], "/", "_"), method)
	}
	return all
}

// Admin returns the handler of the private listener. It has the routes of the public one too.
func (s *Server) Admin() http.Handler {
	mux := http.NewServeMux()
	s.readSide(mux)
	route, change := s.answers.route, s.answers.change
	mux.Handle("GET /{$}", route("dashboard", s.pages.dashboard))
	mux.Handle("GET "+dashboard.Prefix+"{file}", route("dashboard_part", s.pages.part))
	mux.Handle("GET /login", route("login", s.pages.ask))
	mux.Handle("POST /login", route("login", s.pages.login))
	mux.Handle("POST /logout", route("logout", s.pages.logout))
	mux.Handle("GET /overview", route("overview", s.overview.show))
	mux.Handle("GET /repos", route("repos", s.repos.list))
	mux.Handle("GET /repos/{did}", route("repo", s.repos.show))
	mux.Handle("PUT /repos", change("track", s.changes.track))
	mux.Handle("DELETE /repos", change("untrack", s.changes.untrack))
	mux.Handle("POST /repos/resync", change("resync", s.changes.resync))
	mux.Handle("GET /filter", route("filter", s.filters.show))
	mux.Handle("PATCH /filter", change("set_filter", s.filters.change))
	mux.Handle("GET /firehose/sources", route("sources", s.sources.list))
	mux.Handle("POST /firehose/sources", change("add_source", s.sources.add))
	mux.Handle("DELETE /firehose/sources", change("remove_source", s.sources.remove))
	mux.Handle("DELETE /firehose/cursors", change("forget_cursor", s.sources.forget))
	mux.Handle("GET /crawler/sources", route("crawls", s.crawls.list))
	mux.Handle("POST /crawler/sources", change("add_crawl", s.crawls.add))
	mux.Handle("DELETE /crawler/sources", change("remove_crawl", s.crawls.remove))
	mux.Handle("DELETE /crawler/cursors", change("forget_crawl", s.crawls.forget))
	mux.Handle("GET /hosts", route("hosts", s.hosts.list))
	mux.Handle("GET /hosts/{host}", route("host", s.hosts.show))
	mux.Handle("PUT /hosts/{host}/limits", change("limit_host", s.hosts.limit))
	mux.Handle("DELETE /hosts/{host}/limits", change("unlimit_host", s.hosts.unlimit))
	mux.Handle("PUT /hosts/{host}/ban", change("ban_host", s.hosts.ban))
	mux.Handle("DELETE /hosts/{host}/ban", change("unban_host", s.hosts.unban))
	mux.Handle("GET /ingestion", route("ingestion", s.ingestion.show))
	mux.Handle("PATCH /ingestion", s.answers.turn("set_ingestion", s.ingestion.set))
	mux.Handle("GET /alerts", route("alerts", s.alerts.list))
	mux.Handle("GET /conditions", route("conditions", s.conditions.show))
	mux.Handle("GET /maintenance", route("maintenance", s.maintenance.show))
	mux.Handle("POST /maintenance/{operation}", change("run_operation", s.maintenance.run))
	mux.Handle("DELETE /maintenance/{operation}",
		change("cancel_operation", s.maintenance.cancel))
	mux.Handle("POST /checkpoint", s.answers.untimed("checkpoint",
		onlyJSON(s.answers.unlessFrozen(s.checkpoints.lend))))
	mux.Handle("GET /copies", route("copies", s.copies.list))
	mux.Handle("PUT /copies/{id}/result", s.answers.untimed("copy_result", onlyJSON(s.copies.report)))
	mux.Handle("GET /phase", route("phase", s.phases.show))
	mux.Handle("PUT /phase", s.answers.turn("set_phase", s.phases.set))
	mux.Handle("GET /subscriptions", route("subscriptions", s.subscriptions.list))
	mux.Handle("GET /subscriptions/{name}", route("subscription", s.subscriptions.show))
	mux.Handle("PUT /subscriptions/{name}", change("put_subscription", s.subscriptions.put))
	mux.Handle("POST /subscriptions/{name}/replay",
		change("replay_subscription", s.subscriptions.replay))
	mux.Handle("DELETE /subscriptions/{name}", change("drop_subscription", s.subscriptions.drop))
	mux.Handle("POST /subscriptions/{name}/resume",
		change("resume_subscription", s.subscriptions.resume))
	mux.Handle("GET /subscriptions/{name}/events",
		s.answers.untimed("subscription_events", s.delivery.Durable))
	s.tapSide(mux)
	mux.Handle("GET /healthz", route("healthz", alive))
	mux.Handle("GET /readyz", route("readyz", s.stats.ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("/", s.answers.unknown(mux))
	return s.access.guard(mux)
}

const bannerText = `This is a Cistern: an index of AT Protocol repositories, each verified against its owner's key.

  /openapi.json       every route, with its parameters
  /xrpc/com.atproto.repo.{getRecord,listRecords,describeRepo}
  /xrpc/com.atproto.sync.{getLatestCommit,getRecord,getRepo,getRepoStatus,listRepos,...}
  /xrpc/com.atproto.identity.{resolveHandle,resolveDid,resolveIdentity}
  /xrpc/blue.microcosm.links.{getBacklinks,getBacklinksCount,...}
  /stream?cursor=N    every change of every record, as a WebSocket
  /subscribe          the same for clients of Jetstream
  /xrpc/network.bsky.jetstream.subscribeEvents
  /collections        what is held of each, and /collections/{nsid}/records
  /counts, /stats
  /export             all current records, or those of some collections, as NDJSON or Parquet,
                      or whole repositories as CARs
`
