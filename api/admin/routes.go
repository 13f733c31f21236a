package admin

import "net/http"

// Kind says which requests a route takes, and when.
type Kind int

// The kinds of routes.
const (
	// Read changes nothing.
	Read Kind = iota + 1
	// Write changes the store. A request is JSON by its content type, and is refused while the store
	// is frozen.
	Write
	// Control changes what the daemon does, and not the store. A request is JSON by its content type.
	Control
	// Wait changes the store, and waits while it is frozen. A request is JSON by its content
	// type. Its duration says nothing about the daemon, and is not measured.
	Wait
	// Lend is Write for a request that lasts until its client has finished: its duration says nothing
	// about the daemon, and is not measured.
	Lend
)

// Route is a route of the private listener.
type Route struct {
	// Pattern has the method and the path, as http.ServeMux takes them.
	Pattern string
	// Name is the name of the route in metrics.
	Name string
	Kind Kind
	// Handle answers a request, or returns an error that is still to be answered: a wire.Refusal,
	// or an error of the store. It may be called by any goroutine.
	Handle func(w http.ResponseWriter, r *http.Request) error
}

// Routes returns the routes that only the private listener has.
func (h *Handlers) Routes() []Route {
	return []Route{
		{"GET /overview", "overview", Read, h.overview.show},
		{"GET /repos", "repos", Read, h.repos.list},
		{"GET /repos/{did}", "repo", Read, h.repos.show},
		{"PUT /repos", "track", Write, h.changes.track},
		{"DELETE /repos", "untrack", Write, h.changes.untrack},
		{"POST /repos/resync", "resync", Write, h.changes.resync},
		{"GET /filter", "filter", Read, h.filters.show},
		{"PATCH /filter", "set_filter", Write, h.filters.change},
		{"GET /firehose/sources", "sources", Read, h.sources.list},
		{"POST /firehose/sources", "add_source", Write, h.sources.add},
		{"DELETE /firehose/sources", "remove_source", Write, h.sources.remove},
		{"DELETE /firehose/cursors", "forget_cursor", Write, h.sources.forget},
		{"GET /crawler/sources", "crawls", Read, h.crawls.list},
		{"POST /crawler/sources", "add_crawl", Write, h.crawls.add},
		{"DELETE /crawler/sources", "remove_crawl", Write, h.crawls.remove},
		{"DELETE /crawler/cursors", "forget_crawl", Write, h.crawls.forget},
		{"GET /hosts", "hosts", Read, h.hosts.list},
		{"GET /hosts/{host}", "host", Read, h.hosts.show},
		{"PUT /hosts/{host}/limits", "limit_host", Write, h.hosts.limit},
		{"DELETE /hosts/{host}/limits", "unlimit_host", Write, h.hosts.unlimit},
		{"PUT /hosts/{host}/ban", "ban_host", Write, h.hosts.ban},
		{"DELETE /hosts/{host}/ban", "unban_host", Write, h.hosts.unban},
		{"GET /ingestion", "ingestion", Read, h.ingestion.show},
		{"PATCH /ingestion", "set_ingestion", Control, h.ingestion.set},
		{"GET /alerts", "alerts", Read, h.alerts.list},
		{"GET /conditions", "conditions", Read, h.conditions.show},
		{"GET /maintenance", "maintenance", Read, h.maintenance.show},
		{"POST /maintenance/{operation}", "run_operation", Write, h.maintenance.run},
		{"DELETE /maintenance/{operation}", "cancel_operation", Write, h.maintenance.cancel},
		{"POST /checkpoint", "checkpoint", Lend, h.checkpoints.lend},
		{"GET /copies", "copies", Read, h.copies.list},
		{"PUT /copies/{id}/result", "copy_result", Wait, h.copies.report},
		{"GET /phase", "phase", Read, h.phases.show},
		{"PUT /phase", "set_phase", Control, h.phases.set},
		{"GET /subscriptions", "subscriptions", Read, h.subscriptions.list},
		{"GET /subscriptions/{name}", "subscription", Read, h.subscriptions.show},
		{"PUT /subscriptions/{name}", "put_subscription", Write, h.subscriptions.put},
		{"POST /subscriptions/{name}/replay", "replay_subscription", Write, h.subscriptions.replay},
		{"DELETE /subscriptions/{name}", "drop_subscription", Write, h.subscriptions.drop},
		{"POST /subscriptions/{name}/resume", "resume_subscription", Write, h.subscriptions.resume},
		{"GET /healthz", "healthz", Read, alive},
		{"GET /readyz", "readyz", Read, h.stats.ready},
	}
}
