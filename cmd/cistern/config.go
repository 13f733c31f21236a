package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"cistern/api/durable"
	"cistern/backfill/discover"
	"cistern/backfill/fetch"
	"cistern/backfill/pace"
	"cistern/cmd/cistern/command"
	"cistern/cmd/cistern/remote"
	"cistern/condition"
	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/maintain"
	"cistern/objects"
	"cistern/store"

	"github.com/urfave/cli/v3"
)

// Config is what an operator can choose. Every field is one option; none is required.
type Config struct {
	Data         string
	Listen       string
	StatusPage   bool
	Admin        string
	AdminToken   string
	PLC          []string
	Crawl        []discover.Source
	CrawlEvery   time.Duration
	Relays       []store.Source
	PDS          []store.Source
	Mode         string
	Signals      []string
	Collections  []string
	Excludes     []string
	Store        string
	HostRules    pace.Rules
	AllowPrivate bool
	Handles      string // on or off
	Verify       string
	VerifyShare  int
	Strategy     fetch.Strategy
	RepoMax      int64
	FetchTimeout time.Duration
	Reserve      reserve
	Retention    time.Duration
	ReadOnly     bool
	Ephemeral    bool
	Backlinks    bool
	LogLevel     slog.Level
	LogFormat    string // text or json
	Traces       string // URL of a collector; "": traces are off
	TraceShare   int    // percent
	Jetstream    []byte // the dictionary

	DataMount     string          // "" for any
	BackfillHours *maintain.Hours // nil for all day
	Bandwidth     int64           // bytes a second; 0 for any
	BandwidthDay  int64           // bytes a day; 0 for any
	PauseLag      []condition.LagLimit
	Pressure      []pressureLimit

	AlertAfter   []alertGrace
	AlertWebhook string // "" for none
	AlertSecret  []byte // of AlertWebhook

	RetentionBytes        int64
	SubscriptionRetention time.Duration
	SnapshotRetention     time.Duration

	Schedules  []schedule
	QuietHours maintain.Hours // zero for all day

	Backup      string // destination; "" for none
	BackupEvery time.Duration
	BackupKeep  int
	BackupTo    objects.Destination // of Backup; nil for none

	Offload      string // destination; "" for none
	OffloadAfter time.Duration
	OffloadTo    objects.Destination // of Offload; nil for none

	Export            string // destination; "" for none
	ExportFormat      string // ndjson or parquet
	ExportCollections []string
	ExportKeep        int
	ExportTo          objects.Destination // of Export; nil for none

	Given []string // names of the options that a flag or a variable has set
}

// options is the table of all options of the daemon, each bound to its field of c.
func (c *Config) options() []command.Option {
	return []command.Option{
		{Name: "data", Value: "DIR", Default: "./cistern-data",
			Set: command.Set(&c.Data, command.Text),
			Help: "Directory of the store. The daemon creates it if it is missing. One process " +
				"at a time can use it."},
		{Name: "listen", Value: "ADDR", Default: remote.ListenDefault,
			Set: command.Set(&c.Listen, command.ParseListen),
			Help: "Address of the public, read-only listener for XRPC queries and /stream. One " +
				"client gets at most three quarters of its connections and streams. Behind a " +
				"proxy all clients count as one."},
		{Name: "status-page", Set: command.Set(&c.StatusPage, command.ParseSwitch),
			Help: "Show at /status of the public listener, to any visitor, whether the daemon is " +
				"well: repositories by state, throughput, lag, firehose sources, the progress of " +
				"the backfill, and what fails, without details."},
		{Name: "admin", Value: "ADDR", Default: remote.AdminDefault,
			Set: command.Set(&c.Admin, command.ParseListen),
			Help: "Address of the private listener for /repos, /filter, /hosts, /crawler, " +
				"/firehose, /stats, /metrics and pprof. An address that is not loopback needs " +
				"--admin-token."},
		{Name: "admin-token", Value: "TOKEN", Secret: true,
			Set: command.Set(&c.AdminToken, parseToken),
			Help: "Secret that requests to the private listener must carry, as a bearer token or " +
				"as the basic-auth password of user admin. Prefer the variable: process lists " +
				"show flags."},
		{Name: "plc", Value: "URL", Default: "https://plc.directory", Repeat: true,
			Set: command.Add(&c.PLC, command.ParseURL),
			Help: "PLC directory that resolves did:plc. Repeat the option for fallbacks, which " +
				"are asked in this order."},
		{Name: "crawl", Value: "KIND::URL", Repeat: true, Set: command.Add(&c.Crawl, parseCrawl),
			Help: "Where to discover repositories, such as repos::https://pds.example.com. Kind " +
				"hosts: the hosts that a relay lists, and the repositories of each of them. Kind " +
				"repos: the repositories that one relay or PDS lists. Kind collection: the " +
				"accounts that a relay lists for the collections of --signal. Mode full implies " +
				"hosts of every --relay."},
		{Name: "crawl-every", Value: "DURATION", Default: "24h",
			Set: command.Set(&c.CrawlEvery, parsePeriod),
			Help: "Time from the end of one pass over a listing to the next pass, such as 6h or " +
				"7d. Each pass finds new accounts and missed changes."},
		{Name: "relay", Value: "URL", Repeat: true, Set: command.Add(&c.Relays, parseSource(false)),
			Help: "Relay whose firehose is followed, as an http, https, ws or wss URL without " +
				"the path of the endpoint. Repeat the option for several relays; an event " +
				"received from several is applied once."},
		{Name: "pds", Value: "URL", Repeat: true, Set: command.Add(&c.PDS, parseSource(true)),
			Help: "PDS whose own firehose is followed, without a relay. Only its events about " +
				"its own accounts are accepted."},
		{Name: "mode", Value: "filter|full", Default: filter.ModeFilter,
			Set: command.Set(&c.Mode, command.Choice(command.Text, filter.ModeFilter, filter.ModeFull)),
			Help: "Which repositories are followed. filter: those added by name or found by " +
				"--crawl or --signal. full: also every repository that the relays list or send " +
				"events of. This option and the next four apply to a new store only; PATCH " +
				"/filter changes them later."},
		{Name: "signal", Value: "NSID", Repeat: true,
			Set: command.Add(&c.Signals, command.ParsePattern),
			Help: "Follow every repository that the firehose or --crawl shows to have a record " +
				"in this collection, such as app.bsky.feed.post or app.bsky.*."},
		{Name: "collection", Value: "NSID", Repeat: true,
			Set: command.Add(&c.Collections, command.ParsePattern),
			Help: "Collection whose records are wanted, such as app.bsky.feed.post or " +
				"app.bsky.*. Without this option all records are wanted."},
		{Name: "store", Value: "wanted|all", Default: filter.StoreWanted,
			Set: command.Set(&c.Store, command.Choice(command.Text, filter.StoreWanted, filter.StoreAll)),
			Help: "Which records of a repository are stored. wanted: those of every " +
				"--collection. all: also the others, hidden, so that a collection added later " +
				"needs no fetch."},
		{Name: "exclude", Value: "DID", Repeat: true,
			Set:  command.Add(&c.Excludes, command.ParseDID),
			Help: "Repository that is never followed, even when added by name."},
		{Name: "host-limit", Value: "HOST=" + pace.OverrideForm, Repeat: true,
			Set: command.Add(&c.HostRules, pace.ParseRule),
			Help: "Limit requests to each host that matches a name or pattern: so many at a " +
				"time, a second, an hour and a day, such as *.example.com=4:10:5000. The first " +
				"matching option applies. A host without one gets up to 10 requests at a time."},
		{Name: "host-ban", Value: "HOST", Repeat: true, Set: command.Add(&c.HostRules, parseBan),
			Help: "Send no requests to hosts that match a name or pattern, such as " +
				"pds.example.com or *.example.com. Their repositories stay queued."},
		{Name: "allow-private", Set: command.Set(&c.AllowPrivate, command.ParseSwitch),
			Help: "Also connect to loopback and private addresses and to addresses of this " +
				"machine. For development only: on a server it lets outsiders reach your " +
				"internal network."},
		{Name: "handles", Value: "on|off", Default: "on",
			Set: command.Set(&c.Handles, command.Choice(command.Text, "on", "off")),
			Help: "Whether queries may look up handles (by DNS and at https://HANDLE) and DIDs " +
				"that the store does not hold, within limits for each client. off: no lookups; " +
				"handles in parameters are refused, and handleIsCorrect is false. --read-only " +
				"implies off."},
		{Name: "verify", Value: "full|backfill|none", Default: "full",
			Set: command.Set(&c.Verify, command.Choice(command.Text, "full", "backfill", "none")),
			Help: "Which commit signatures are verified. full: all. backfill: those of fetched " +
				"repositories, not those of live commits. none: no signature. Hashes and trees " +
				"are always verified."},
		{Name: "verify-share", Value: "PERCENT", Default: "25",
			Set: command.Set(&c.VerifyShare, parseShare),
			Help: "How much of the time 'cistern maintain run verify' works, as a percentage of one " +
				"CPU, from 1 to 100. It rests in between. Its reads of the disk are part of that " +
				"time."},
		{Name: "strategy", Value: "auto|sparse|full", Default: "auto",
			Set: command.Set(&c.Strategy, command.Choice(fetch.ParseStrategy, "auto", "sparse", "full")),
			Help: "How a repository is fetched when only some collections are wanted. sparse: " +
				"only their records and the proof of them. full: the whole repository. auto: " +
				"what is likely to be fewer bytes. A sparse fetch takes more requests, so auto " +
				"fetches whole repositories once half of the host's quota for such requests is " +
				"spent. A host that serves no parts is asked for whole repositories."},
		{Name: "repo-max", Value: "SIZE", Default: "4GiB",
			Set: command.Set(&c.RepoMax, parseRepoMax),
			Help: "Largest repository that is fetched, as the size of its CAR file, up to 16GiB. " +
				"One block is allowed for each 512 bytes of this size: 6.5 million records at " +
				"4GiB."},
		{Name: "fetch-timeout", Value: "DURATION", Default: "6h",
			Set: command.Set(&c.FetchTimeout, parsePeriod),
			Help: "Time limit for the download of one repository. A download slower than 2 KiB a " +
				"second for half a minute is aborted earlier. While other repositories wait, at " +
				"most three quarters of the concurrent downloads may take longer than five " +
				"minutes."},
		{Name: "disk-reserve", Value: "SIZE|PERCENT", Default: "5%",
			Set: command.Set(&c.Reserve, parseReserve),
			Help: "Disk space to leave free, such as 10GiB or 5%. Below it imports pause while " +
				"live events are still applied. Below a quarter of it the daemon stops. 0 turns " +
				"this off."},
		{Name: "data-mount", Value: "PATH", Set: command.Set(&c.DataMount, parseMount),
			Help: "Mount point that --data must be on, such as /srv. Otherwise the daemon does not " +
				"start, or, once it runs, backfill and crawling pause."},
		{Name: "backfill-hours", Value: "FROM-TO", Set: command.Set(&c.BackfillHours, parseHours),
			Help: "Hours of the day, by local time, in which backfill and crawling run, such as " +
				"22-6 or 22:30-06:00. Live events are applied at any time."},
		{Name: "bandwidth", Value: "SIZE", Default: "0",
			Set: command.Set(&c.Bandwidth, parseLogSize),
			Help: "Bytes a second that backfill and crawling receive from hosts at most, such as " +
				"10MiB. The firehose is not counted. 0 is no limit."},
		{Name: "bandwidth-day", Value: "SIZE", Default: "0",
			Set: command.Set(&c.BandwidthDay, parseLogSize),
			Help: "Bytes that backfill and crawling receive from hosts in a day by local time, " +
				"such as 100GiB. Then they pause until midnight; what is under way is ended. 0 " +
				"is no limit."},
		{Name: "pause-lag", Value: "EVENTS|DURATION", Repeat: true,
			Set: command.Add(&c.PauseLag, parseLag),
			Help: "Pause backfill and crawling while a durable subscription is further behind " +
				"the log than so many events, such as 1000000, or so long, such as 10m. A " +
				"subscription without a consumer counts too. Repeat the option for both limits."},
		{Name: "pause-pressure", Value: "RESOURCE=PERCENT", Repeat: true,
			Set: command.Add(&c.Pressure, parsePressure),
			Help: "Pause backfill and crawling while tasks of the machine waited for cpu, memory " +
				"or io in more than so many percent of the last ten seconds, such as memory=10. " +
				"On a kernel without PSI, cpu bounds by how much the load exceeds the processors, " +
				"and memory is the share that must be available."},
		{Name: "retention", Value: "DURATION", Default: "7d",
			Set: command.Set(&c.Retention, command.ParseAge),
			Help: "How long events stay in the log, such as 72h or 30d. 0 keeps events of any age. " +
				"Records are not affected, unless --ephemeral is given."},
		{Name: "retention-bytes", Value: "SIZE", Default: "0",
			Set: command.Set(&c.RetentionBytes, parseLogSize),
			Help: "Size of the log, such as 100GiB, beyond which its oldest events are deleted, " +
				"however young they are. Counted are its rows before compression, and replaced " +
				"and deleted records, which only the log keeps. 0 allows any size."},
		{Name: "ephemeral", Set: command.Set(&c.Ephemeral, command.ParseSwitch),
			Help: "Keep events only: a record goes when the event that wrote it leaves the log. " +
				"Repositories are fetched, verified and delivered as before, but queries for " +
				"records and snapshots are refused. A store is ephemeral from its beginning, or " +
				"never. Needs --retention or --retention-bytes, which then counts records too."},
		{Name: "backlinks", Set: command.Set(&c.Backlinks, command.ParseSwitch),
			Help: "Keep an index of what links to what: every at-URI, DID and URI in every record. " +
				"It is built behind the log, and after the option was turned on, from what is " +
				"stored. It is in links below --data, which may be deleted while the option is " +
				"off, and is then built anew when it is on."},
		{Name: "subscription-retention", Value: "DURATION", Default: "14d",
			Set: command.Set(&c.SubscriptionRetention, command.ParseAge),
			Help: "How long events that a durable subscription has not acknowledged stay in the " +
				"log even if --retention is shorter. With --retention-bytes they may take that " +
				"size once more. 0 keeps them no longer than others."},
		{Name: "snapshot-retention", Value: "DURATION", Default: "6h",
			Set: command.Set(&c.SnapshotRetention, command.ParseAge),
			Help: "How long events after the beginning of a snapshot (/stream?snapshot=true) " +
				"stay in the log even beyond --retention and --retention-bytes: the time that a " +
				"client has for a snapshot, with all disconnects. 0 keeps them no longer than " +
				"others."},
		{Name: "backup", Value: "DEST", Set: command.Set(&c.Backup, parseDestination),
			Help: "Back up the store to DEST on a schedule: a directory with a slash in its name, " +
				"or s3://BUCKET/PREFIX, with the access that 'cistern backup --help' describes."},
		{Name: "backup-every", Value: "DURATION", Default: "1h",
			Set:  command.Set(&c.BackupEvery, parseBackupEvery),
			Help: "Time from the beginning of one backup to the next, such as 5m or 1d."},
		{Name: "backup-keep", Value: "N", Default: "24", Set: command.Set(&c.BackupKeep, parseKeep),
			Help: "How many backups of --backup to keep. Older ones are deleted when a newer one is " +
				"complete. 0 keeps all."},
		{Name: "offload", Value: "DEST", Set: command.Set(&c.Offload, parseDestination),
			Help: "Move old events of the log to DEST, a place as of --backup, before they are " +
				"deleted here. Streams and subscriptions read them there. Nothing that DEST does " +
				"not have is deleted, whatever --retention says."},
		{Name: "offload-after", Value: "DURATION", Default: "24h",
			Set:  command.Set(&c.OffloadAfter, parsePeriod),
			Help: "How old events are that --offload moves, such as 6h or 3d."},
		{Name: "export", Value: "DEST", Set: command.Set(&c.Export, parseDestination),
			Help: "Where 'cistern maintain run export' and --schedule export=7d write all current " +
				"records as files, a place as of --backup. Each export has a directory of its own there."},
		{Name: "export-format", Value: "ndjson|parquet", Default: "parquet",
			Set:  command.Set(&c.ExportFormat, command.Choice(command.Text, "ndjson", "parquet")),
			Help: "The form of the files of --export."},
		{Name: "export-collection", Value: "NSID", Repeat: true,
			Set: command.Add(&c.ExportCollections, command.ParsePattern),
			Help: "Collection whose records --export writes, such as app.bsky.feed.post or " +
				"app.bsky.*. Without this option it writes all records."},
		{Name: "export-keep", Value: "N", Default: "4", Set: command.Set(&c.ExportKeep, parseKeep),
			Help: "How many complete exports of --export to keep. Older ones are deleted when a newer " +
				"one is complete. 0 keeps all."},
		{Name: "alert-after", Value: "KIND=DURATION", Repeat: true,
			Set: command.Add(&c.AlertAfter, parseGrace),
			Help: "How long a subject of a kind fails before it is an alert: hosts (all together), " +
				"host, directory (of PLC), source, subscription, operation or condition, such as " +
				"source=10m. Attempts count too: see /alerts in docs/http.md."},
		{Name: "alert-webhook", Value: "URL",
			Set: command.Set(&c.AlertWebhook, command.Text), Secret: true,
			Help: "URL to which each alert, and its end, is posted as a signed request (Standard " +
				"Webhooks). Needs --alert-webhook-secret."},
		{Name: "alert-webhook-secret", Value: "SECRET", Secret: true,
			Set: command.Set(&c.AlertSecret, durable.ParseSecret),
			Help: "Secret of --alert-webhook, whsec_ and base64. Prefer the variable: process lists " +
				"show flags."},
		{Name: "jetstream-dictionary", Value: "FILE",
			Set: command.Set(&c.Jetstream, parseDictionary),
			Help: "File with the zstd dictionary that clients of Jetstream v1 have built in. It " +
				"enables compress=true on /subscribe. Cistern does not ship the dictionary."},
		{Name: "read-only", Set: command.Set(&c.ReadOnly, command.ParseSwitch),
			Help: "Serve the store of --data as it is, such as a restored backup: queries, streams " +
				"and subscriptions, but no network, no maintenance and no changes. " +
				"What subscriptions acknowledge is forgotten when the daemon ends."},
		{Name: "schedule", Value: "OPERATION=PERIOD", Repeat: true,
			Set: command.Add(&c.Schedules, parseSchedule),
			Help: "Run an operation of 'cistern maintain' by itself, such as verify=7d, compact=30d " +
				"or export=7d: one period after the end of its last success. OPERATION=off runs " +
				"it on request only. offload runs every hour by default; while it is off, the log keeps " +
				"every event that is not in a segment. prune and gc run every minute by " +
				"default, and cannot be switched off."},
		{Name: "quiet-hours", Value: "FROM-TO",
			Set: command.Set(&c.QuietHours, maintain.ParseHours),
			Help: "Hours of the day, by local time, in which scheduled runs of compact, reconcile " +
				"and verify begin, such as 22-6 or 22:30-06:00. A run on request begins at any " +
				"time, and one that has begun goes on. By default they begin at any time."},
		{Name: "log-level", Value: "debug|info|warn|error", Default: "info",
			Set: command.Set(&c.LogLevel, command.Choice(parseLevel, "debug", "info", "warn", "error")),
			Help: "Least severe message to log on standard error. Of messages of one kind, 20 a " +
				"minute are logged; the next one has the number of those that were left out."},
		{Name: "log-format", Value: "text|json", Default: "text",
			Set:  command.Set(&c.LogFormat, command.Choice(command.Text, "text", "json")),
			Help: "Form of the log: key=value pairs, or one JSON object a line."},
		{Name: "traces", Value: "URL", Set: command.Set(&c.Traces, command.ParseURL),
			Help: "Collector that takes traces of fetches and commits by OTLP over HTTP, such as " +
				"http://localhost:4318. By default nothing is traced."},
		{Name: "trace-share", Value: "PERCENT", Default: "1",
			Set:  command.Set(&c.TraceShare, parseShare),
			Help: "How many of all fetches and commits --traces has, as a percentage, from 1 to 100."},
	}
}

// validate returns the mistakes that no single option shows. bad names the options whose values
// were rejected: a check that depends on one of them is skipped.
func (c *Config) validate(bad []string) (errs []error) {
	reject := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	fine := func(names ...string) bool {
		for _, name := range names {
			if slices.Contains(bad, name) {
				return false
			}
		}
		return true
	}
	full := fine("mode") && c.Mode == filter.ModeFull
	public := c.Admin != "" && !loopback(c.Admin)
	reject(fine("admin", "admin-token") && public && c.AdminToken == "",
		"--admin %s is not a loopback address: set --admin-token (or %sADMIN_TOKEN), or outsiders "+
			"can control the daemon", c.Admin, command.EnvPrefix)
	reject(full && fine("relay", "crawl") && len(c.Relays)+len(c.Crawl) == 0,
		"--mode full needs a --relay or a --crawl to discover repositories")
	reject(full && fine("signal") && len(c.Signals) > 0,
		"--signal needs --mode filter: --mode full follows every repository")
	reject(fine("signal", "relay", "pds", "crawl") && len(c.Signals) > 0 &&
		len(c.Relays)+len(c.PDS)+len(c.Crawl) == 0,
		"--signal needs a --relay, --pds or --crawl to discover repositories")
	if err := c.checkAlerts(); fine("alert-webhook", "alert-webhook-secret") && err != nil {
		errs = append(errs, err)
	}
	for i, p := range c.Pressure {
		twice := slices.ContainsFunc(c.Pressure[:i], func(q pressureLimit) bool { return p.of == q.of })
		reject(twice, "--pause-pressure %s is given twice", p.of)
	}
	reject(fine("retention", "retention-bytes") && c.Ephemeral && c.Retention == 0 &&
		c.RetentionBytes == 0, "--ephemeral needs --retention or --retention-bytes: with both 0 no "+
		"event leaves the log, and so no record goes")
	reject(fine("store") && c.Ephemeral && c.Store == filter.StoreAll,
		"--ephemeral keeps only records that make events: it cannot be combined with --store all")
	reject(c.Backlinks && c.Ephemeral, "--backlinks needs records, which --ephemeral does not keep")
	reject(twice(c.Schedules) != "", "--schedule gives %s two periods", twice(c.Schedules))
	reject(fine("export") && c.Export == "" && schedules(c.Schedules, "export"),
		"--schedule gives export a period, which needs --export")
	reject(fine("export") && c.Ephemeral && c.Export != "",
		"--export needs records, and --ephemeral keeps events only")
	reject(fine("offload") && c.Offload == "" && schedules(c.Schedules, "offload"),
		"--schedule gives offload a period, which needs --offload")
	for _, src := range slices.Concat(c.Relays, c.PDS) {
		host := privateHost(src.URL)
		reject(fine("allow-private") && !c.AllowPrivate && host != "",
			"%s is at the private address %s, which needs --allow-private", src.URL, host)
		reject(src.PDS && slices.Contains(c.Relays, store.Source{URL: src.URL}),
			"%s cannot be both a --relay and a --pds", src.URL)
		_, address, _ := strings.Cut(src.URL, "://")
		reject(full && !src.PDS && strings.Contains(address, "/"),
			"--relay %s has a path: --mode full lists hosts only of relays without one", src.URL)
	}
	for _, name := range []string{"relay", "pds", "crawl", "backup", "export", "ephemeral"} {
		reject(c.ReadOnly && slices.Contains(c.Given, name), "--%s has no use with --read-only", name)
	}
	for _, address := range c.named() {
		_, banned := c.HostRules.Of(identity.HostOf(address))
		reject(banned && fine("host-ban"), "%s is a source, but a --host-ban matches it", address)
	}
	return errs
}

// named returns the URLs that the options name as sources.
func (c *Config) named() (urls []string) {
	for _, src := range slices.Concat(c.Relays, c.PDS) {
		urls = append(urls, src.URL)
	}
	for _, src := range c.Crawl {
		urls = append(urls, src.URL)
	}
	slices.Sort(urls)
	return slices.Compact(urls)
}

// privateHost returns the host of a URL if only this machine or its network can reach it, else "".
func privateHost(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if u.Hostname() == "localhost" || err == nil && identity.CheckPublic(addr) != nil {
		return u.Hostname()
	}
	return ""
}

// load fills the fields of the named options, of all if none is named, and reports every mistake.
func (c *Config) load(cmd *cli.Command, environ []string, names ...string) error {
	env, errs := command.ReadEnviron(environ, variables())
	given, bad, more := command.Load(command.Only(c.options(), names...), cmd, env)
	c.Given = given
	for _, d := range []struct {
		name, at string
		to       *objects.Destination
	}{{"backup", c.Backup, &c.BackupTo}, {"offload", c.Offload, &c.OffloadTo},
		{"export", c.Export, &c.ExportTo}} {
		if to, err := objects.Open(d.at, environ); d.at != "" && err != nil {
			more = append(more, fmt.Errorf("--%s: %w", d.name, err))
		} else if err == nil {
			*d.to = to
		}
	}
	return command.Mistakes(slices.Concat(errs, more, c.validate(bad)))
}
