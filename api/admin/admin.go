package admin

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"time"

	"cistern/alert"
	"cistern/api/durable"
	"cistern/chart"
	"cistern/condition"
	"cistern/copies"
	"cistern/logbook"
	"cistern/maintain"
	"cistern/phase"
	"cistern/store"
	"cistern/verdict"
)

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Store is what is shown and changed, and Subscriptions has its durable subscriptions. Required.
	Store         *store.Store
	Subscriptions *durable.Registry
	// Logger. Default: discard.
	Logger *slog.Logger
	// Login reports that the listener has a token, so that readers of the dashboard have sessions.
	Login bool
	// Syncing is the number of repositories being fetched right now. Default: 0.
	Syncing func() int
	// Wake is called after the pending queue may have grown. Default: nothing.
	Wake func()
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
	Disk func() (Disk, error)
	// Ignored returns the options of the filter that differ from the filter in force. Default: none.
	Ignored func() []verdict.Ignored
	// Stopping reports whether the daemon has begun to stop, for /readyz. Default: it has not.
	Stopping func() bool
	// Verify is the level of verification that /stats reports. Default "full".
	Verify string
	// Version is the version of the daemon that answers state. Default "dev".
	Version string
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
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
	if o.Checkpoint == nil {
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
	return o
}

// Handlers has the handlers of the operator's routes, one for the routes of each noun.
type Handlers struct {
	stats         stats
	overview      overview
	repos         repos
	changes       changes
	filters       filters
	hosts         hosts
	sources       sources
	crawls        crawlSources
	ingestion     Ingestion
	phases        phases
	conditions    conditions
	alerts        alerts
	maintenance   maintenance
	checkpoints   checkpoints
	copies        copyRoutes
	subscriptions subscriptions
}

// New returns handlers. It starts nothing. An error means that the default of Copies could not be
// made.
func New(o Options) (*Handlers, error) {
	o = o.withDefaults()
	lent, err := o.registry()
	if err != nil {
		return nil, err
	}
	h := &Handlers{
		repos:     repos{store: o.Store, hosts: o.Hosts},
		changes:   changes{store: o.Store, wake: o.Wake},
		filters:   filters{store: o.Store, wake: o.Wake, refilter: o.Refilter},
		hosts:     hosts{store: o.Store, opts: o.Hosts, logger: o.Logger},
		sources:   sources{o.Firehose},
		crawls:    crawlSources{o.Crawler},
		ingestion: o.Ingestion,
		phases:    phases{o.Phase},

		conditions:    conditions{o.Conditions},
		alerts:        alerts{o.Alerts},
		maintenance:   maintenance{o.Maintenance},
		copies:        copyRoutes{lent},
		subscriptions: subscriptions{o.Subscriptions},
	}
	h.stats = stats{store: o.Store, sizes: paced[map[string]int64]{read: o.Store.Sizes},
		sources: &h.sources, ingestion: &h.ingestion, phases: h.phases, conditions: h.conditions,
		syncing: o.Syncing, verify: o.Verify, version: o.Version, stopping: o.Stopping,
		logger: o.Logger}
	h.checkpoints = checkpoints{make: o.Checkpoint, copies: lent, stopping: o.Stopping,
		version: o.Version, logger: o.Logger}
	h.overview = overview{stats: &h.stats, sources: &h.sources, registry: o.Subscriptions,
		hosts: paced[hostSummary]{read: func() (hostSummary, error) {
			return h.hosts.summary(h.sources.only)
		}},
		maintenance: &h.maintenance, copies: h.copies, conditions: h.conditions, alerts: o.Alerts,
		charts: o.Charts, journal: o.Journal, disk: o.Disk, crawler: o.Crawler, ignored: o.Ignored,
		started: time.Now(), token: o.Login}
	return h, nil
}

// Stats answers GET /stats, which both listeners have. The caller answers its error, as for a
// Route.
func (h *Handlers) Stats(w http.ResponseWriter, r *http.Request) error { return h.stats.show(w, r) }

// Sizes returns the bytes on disk of each keyspace, and their sum as "total", as /stats shows them:
// some seconds old. Callers do not change the map. An error is one of the store.
func (h *Handlers) Sizes() (map[string]int64, error) { return h.stats.sizes.get() }
