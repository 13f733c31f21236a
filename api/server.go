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
	"cistern/api/admin"
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
	Firehose admin.Firehose
	// Crawler discovers repositories. Default: nothing is crawled.
	Crawler admin.Crawler
	// Hosts are the hosts from which repositories are fetched. Default: no host is asked.
	Hosts admin.Hosts
	// Ingestion are the switches of /ingestion. Default: no switch.
	Ingestion admin.Ingestion
	// Maintenance runs the operations of /maintenance. Default: there are none.
	Maintenance *maintain.Coordinator
	// Checkpoint makes the checkpoints that are lent. Default: Store.Checkpoint.
	Checkpoint func(context.Context) (*store.Checkpoint, error)
	// Copies records the copies of these checkpoints. Default: a registry that a restart empties.
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
	Disk func() (admin.Disk, error)
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
	if o.Wake == nil {
		o.Wake = func() {}
	}
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
	version      string

	answers     *answers
	access      access
	pages       pages
	front       front
	status      statusPage
	description description
	xrpc        xrpc
	collections *collections.Collections
	exports     *export.Records
	admin       *admin.Handlers
	registry    *durable.Registry
	delivery    *deliver.Delivery
	webhooks    *webhook.Runner
	tap         *tap.API
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
		Log: o.Log, Archived: o.Archived, Subscriptions: registry, Records: snapshots,
		Epoch: o.Store.Epoch(), Logger: o.Logger, Registerer: o.Registerer,
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
	operator, err := newAdmin(o, registry)
	if err != nil {
		return nil, err
	}
	s := &Server{
		logger: o.Logger, gatherer: o.Gatherer, metrics: m, drainTimeout: o.DrainTimeout,
		version:     o.Version,
		answers:     a,
		collections: collections.New(collections.Options{Store: o.Store, Refused: m.refused}),
		access: access{token: o.AdminToken, requests: m.requests, answers: a,
			sessions: dashboard.NewSessions(time.Now), brake: brake},
		exports:  files,
		registry: registry,
		delivery: delivery,
		admin:    operator,
	}
	if s.xrpc, err = s.newXRPC(o, exports, queue); err != nil {
		return nil, err
	}
	if s.description, err = describe(o.Version, s.xrpc.coder); err != nil {
		return nil, err
	}
	s.pages = pages{access: &s.access, files: shown}
	s.front = front{page: page, store: o.Store, xrpc: &s.xrpc, lag: s.admin.Lag, names: o.Names != nil,
		status: o.StatusPage, version: o.Version}
	if s.status, err = newStatusPage(o.StatusPage, s.admin.PublicStatus, shown,
		s.xrpc.coder); err != nil {
		return nil, err
	}
	if err := errors.Join(s.newTap(o), s.newWebhooks(o)); err != nil {
		return nil, err
	}
	return s, nil
}

// newAdmin makes the handlers of the operator's routes.
func newAdmin(o Options, registry *durable.Registry) (*admin.Handlers, error) {
	return admin.New(admin.Options{Store: o.Store, Subscriptions: registry, Logger: o.Logger,
		Login: o.AdminToken != "", Syncing: o.Syncing, Wake: o.Wake, Refilter: o.Refilter,
		Firehose: o.Firehose, Crawler: o.Crawler, Hosts: o.Hosts, Ingestion: o.Ingestion,
		Maintenance: o.Maintenance, Checkpoint: o.Checkpoint, Copies: o.Copies,
		Phase:      o.Phase,
		Conditions: o.Conditions, Alerts: o.Alerts, Charts: o.Charts, Journal: o.Journal,
		Disk: o.Disk, Ignored: o.Ignored, Stopping: o.Stopping, Verify: o.Verify,
		Version: o.Version})
}

// newXRPC makes the handler of queries.
func (s *Server) newXRPC(o Options, exports *export.Exports, queue *clients.Queue) (xrpc, error) {
	r := atproto.New(atproto.Options{Store: o.Store, Refused: s.metrics.refused, Names: o.Names,
		Hosts: s.admin.HostStatuses})
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
		"/xrpc/_health":      route("_health", health(s.version)),
		"/stream":            untimed("stream", s.delivery.Stream),
		"/stream/dictionary": route("dictionary", s.delivery.ZstdDictionary),
		"/subscribe":         untimed("subscribe", s.delivery.Jetstream1),
		"/stats":             route("stats", s.admin.Stats),
		"/openapi.json":      route("openapi", s.description.show),
		"/export":            untimed("export", s.exports.Get),

		"/xrpc/" + jetstream + "subscribeEvents": untimed(
			jetstream+"subscribeEvents", s.delivery.Jetstream2),
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
	s.operatorSide(mux)
	route := s.answers.route
	mux.Handle("GET /{$}", route("dashboard", s.pages.dashboard))
	mux.Handle("GET "+dashboard.Prefix+"{file}", route("dashboard_part", s.pages.part))
	mux.Handle("GET /login", route("login", s.pages.ask))
	mux.Handle("POST /login", route("login", s.pages.login))
	mux.Handle("POST /logout", route("logout", s.pages.logout))
	mux.Handle("GET /subscriptions/{name}/events",
		s.answers.untimed("subscription_events", s.delivery.Durable))
	s.tapSide(mux)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("/", s.answers.unknown(mux))
	return s.access.guard(mux)
}

// operatorSide adds the routes of package admin.
func (s *Server) operatorSide(mux *http.ServeMux) {
	for _, r := range s.admin.Routes() {
		mux.Handle(r.Pattern, s.answers.operator(r))
	}
}

// Sizes returns the bytes on disk of each keyspace, and their sum as "total", as /stats shows them:
// some seconds old. Callers do not change the map. An error is one of the store.
func (s *Server) Sizes() (map[string]int64, error) { return s.admin.Sizes() }

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
