package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"cistern/backfill"
	"cistern/backfill/pace"
	"cistern/filter"
	"cistern/ingest"
	"cistern/ingest/identity"
	"cistern/store"

	"github.com/urfave/cli/v3"
)

// Config is what an operator can choose. Every field is one option; none is needed.
type Config struct {
	Data         string
	Listen       string
	Admin        string
	AdminToken   string
	PLC          []string
	Crawl        []backfill.Source
	CrawlEvery   time.Duration
	Relays       []store.Source
	PDS          []store.Source
	Full         bool
	Signals      []string
	Collections  []string
	Excludes     []string
	Store        string
	Seeds        []string // options of the filter that were given, by flag or by variable
	HostRules    pace.Rules
	AllowPrivate bool
	Verify       string
	Strategy     backfill.Strategy
	RepoMax      int64
	FetchTimeout time.Duration
	Reserve      reserve
	Retention    time.Duration
	LogLevel     slog.Level
}

// option is one row of the table of options.
type option struct {
	name     string // of the flag; the variable's name derives from it
	value    string // placeholder of the value; "" for a switch
	standard string // the default, as it would be typed
	help     string
	repeat   bool // may be given more than once; commas separate in the variable
	secret   bool // never echoed
	seed     bool // only a new store takes it: what was set while running stays
	set      func(value string) error
}

const envPrefix = "CISTERN_"

func (o option) variable() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_"))
}

// options is the table of all options, each bound to its field of c.
func (c *Config) options() []option {
	return []option{
		{name: "data", value: "DIR", standard: "./cistern-data", set: setText(&c.Data),
			help: "Directory of the store. Created if missing; used by one daemon at a time."},
		{name: "listen", value: "ADDR", standard: ":2481", set: setParsed(&c.Listen, parseListen),
			help: "Address of the public, read-only listener: XRPC queries and /stream. One client gets at most three quarters of its connections and streams; behind a proxy all clients count as one."},
		{name: "admin", value: "ADDR", standard: "127.0.0.1:2480", set: setParsed(&c.Admin, parseListen),
			help: "Address of the private listener: /repos, /filter, /hosts, /crawler, /firehose, /stats, /metrics, pprof. Anything but loopback needs --admin-token."},
		{name: "admin-token", value: "TOKEN", secret: true, set: c.setAdminToken,
			help: "Secret that the private listener asks for: bearer, or basic with user admin. Prefer the variable: flags show in process lists."},
		{name: "plc", value: "URL", standard: "https://plc.directory", repeat: true, set: appendParsed(&c.PLC, parseURL, "https", "http"),
			help: "PLC directory that resolves did:plc. Repeat it for fallbacks, asked in this order."},
		{name: "crawl", value: "KIND::URL", repeat: true, set: c.setCrawl,
			help: "Where to discover repositories. hosts: all hosts that a relay knows, each listed by itself; repos: the listing of one relay or PDS; collection: the accounts with records in the collections of --signal, as a relay lists them. As in repos::https://pds.example.com. Mode full implies hosts of every --relay."},
		{name: "crawl-every", value: "DURATION", standard: "24h", set: setParsed(&c.CrawlEvery, parsePeriod),
			help: "How long after its end a listing is read again, as in 6h or 7d, to find new accounts and missed changes."},
		{name: "relay", value: "URL", repeat: true, set: appendSource(&c.Relays, false),
			help: "Relay whose firehose is followed: an http, https, ws or wss URL, to which the path is added. Repeat it for several; an event received from several relays is applied once."},
		{name: "pds", value: "URL", repeat: true, set: appendSource(&c.PDS, true),
			help: "PDS whose own firehose is followed, without a relay. It is believed about its own accounts only."},
		{name: "mode", value: "filter|full", standard: "filter", seed: true, set: c.setMode,
			help: "filter: only repositories added by name, or found by --crawl or --signal. full: also every repository that the relays list or send events of. This option and the next four apply to a new store: afterwards PATCH /filter changes them."},
		{name: "signal", value: "NSID", repeat: true, seed: true, set: appendPattern(&c.Signals),
			help: "Collection that makes a repository one to follow when the firehose or --crawl shows a record in it, as in app.bsky.feed.post or app.bsky.*."},
		{name: "collection", value: "NSID", repeat: true, seed: true, set: appendPattern(&c.Collections),
			help: "Collection whose records are wanted, as in app.bsky.feed.post or app.bsky.*. Without any, all are."},
		{name: "store", value: "wanted|all", standard: "wanted", seed: true, set: setChoice(&c.Store, filter.StoreWanted, filter.StoreAll),
			help: "What is stored of a repository. wanted: the records of every --collection. all: the others too, kept hidden, so that a collection added later needs no fetch."},
		{name: "exclude", value: "DID", repeat: true, seed: true, set: appendDID(&c.Excludes),
			help: "Repository that is never followed, even when added by name."},
		{name: "host-limit", value: "HOST=N[:S[:H[:D]]]", repeat: true, set: c.setHostLimit,
			help: "Send hosts of that name or pattern at most N requests at a time, S a second, H an hour and D a day, as in *.example.com=4:10:5000. The first matching option applies; hosts without one get up to 10 at a time."},
		{name: "host-ban", value: "HOST", repeat: true, set: c.setHostBan,
			help: "Send no requests to hosts of that name or pattern, as in pds.example.com or *.example.com. Their repositories wait in their queues."},
		{name: "allow-private", set: setSwitch(&c.AllowPrivate),
			help: "Also connect to loopback and private addresses and to addresses of this machine. For development only: on a server it lets outsiders reach your internal network."},
		{name: "verify", value: "full|backfill|none", standard: "full", set: setChoice(&c.Verify, "full", "backfill", "none"),
			help: "Which commit signatures are checked: all, those of backfills but not of live commits, or none. Hashes and trees always are."},
		{name: "strategy", value: "auto|sparse|full", standard: "auto", set: c.setStrategy,
			help: "How a repository is fetched when only some collections are wanted: their records and the proof of them (sparse), all of it (full), or what is likely to be fewer bytes (auto). Parts take more requests, which hosts count: auto fetches all of it once half of the host's quota for such requests is spent. From a host that sends no parts all of it is fetched."},
		{name: "repo-max", value: "SIZE", standard: "4GiB", set: setParsed(&c.RepoMax, parseRepoMax),
			help: "Largest repository that is fetched, as bytes of its CAR, up to 16GiB. It may have one block for each 512 bytes of this size: 6.5 million records at 4GiB."},
		{name: "fetch-timeout", value: "DURATION", standard: "6h", set: setParsed(&c.FetchTimeout, parsePeriod),
			help: "How long the download of one repository may take. A download slower than 2 KiB a second for half a minute is given up earlier. While other repositories wait, three quarters of the downloads may take more than five minutes."},
		{name: "disk-reserve", value: "SIZE|PERCENT", standard: "5%", set: setParsed(&c.Reserve, parseReserve),
			help: "Disk space to leave free, as in 10GiB or 5%. Below it imports pause while live events are still applied; below a quarter of it the daemon stops. 0 turns this off."},
		{name: "retention", value: "DURATION", standard: "0", set: setParsed(&c.Retention, parseAge),
			help: "How long events stay in the log, as in 72h or 30d. 0 keeps them all. Records are not affected."},
		{name: "log-level", value: "debug|info|warn|error", standard: "info", set: c.setLogLevel,
			help: "Least severe message to log on standard error."},
	}
}

func (c *Config) setAdminToken(s string) error {
	if len(s) < 8 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("want at least 8 printable ASCII characters without spaces")
	}
	c.AdminToken = s
	return nil
}

func (c *Config) setStrategy(s string) error {
	var strategy string
	err := setChoice(&strategy, "auto", "sparse", "full")(s)
	if err == nil {
		c.Strategy, err = backfill.ParseStrategy(strategy)
	}
	return err
}

func (c *Config) setHostLimit(s string) error {
	rule, err := pace.ParseRule(s)
	if err == nil {
		c.HostRules = append(c.HostRules, rule)
	}
	return err
}

func (c *Config) setHostBan(s string) error {
	glob, err := pace.ParseGlob(s)
	if err == nil {
		c.HostRules = append(c.HostRules, pace.Rule{Glob: glob, Banned: true})
	}
	return err
}

func (c *Config) setLogLevel(s string) error {
	var level string
	if err := setChoice(&level, "debug", "info", "warn", "error")(s); err != nil {
		return err
	}
	return c.LogLevel.UnmarshalText([]byte(level))
}

// validate finds what no single option shows. bad are the options whose values were refused: what
// depends on them is not judged.
func (c *Config) validate(bad []string) []error {
	var errs []error
	fine := func(names ...string) bool {
		return !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(bad, name) })
	}
	if fine("admin", "admin-token") && c.Admin != "" && !loopback(c.Admin) && c.AdminToken == "" {
		errs = append(errs, fmt.Errorf("--admin %s is not a loopback address: set --admin-token (or %sADMIN_TOKEN) so that strangers cannot drive the daemon", c.Admin, envPrefix))
	}
	if fine("mode", "relay", "crawl") && c.Full && len(c.Relays) == 0 && len(c.Crawl) == 0 {
		errs = append(errs, errors.New("--mode full discovers repositories, but there is no --relay and no --crawl to discover them at"))
	}
	if fine("mode", "signal") && c.Full && len(c.Signals) > 0 {
		errs = append(errs, errors.New("--signal is for --mode filter: --mode full follows every repository"))
	}
	if fine("signal", "relay", "pds", "crawl") && len(c.Signals) > 0 && len(c.Relays)+len(c.PDS)+len(c.Crawl) == 0 {
		errs = append(errs, errors.New("--signal discovers by the firehose or by --crawl, but there is no --relay and no --pds to follow, and no --crawl"))
	}
	for _, src := range slices.Concat(c.Relays, c.PDS) {
		if host := privateHost(src.URL); fine("allow-private") && !c.AllowPrivate && host != "" {
			errs = append(errs, fmt.Errorf("%s is at the private address %s: add --allow-private, or it is never connected to", src.URL, host))
		}
		if src.PDS && slices.Contains(c.Relays, store.Source{URL: src.URL}) {
			errs = append(errs, fmt.Errorf("%s cannot be both a --relay and a --pds", src.URL))
		}
	}
	for _, r := range c.Relays {
		if fine("mode") && c.Full && strings.Contains(afterScheme(r.URL), "/") {
			errs = append(errs, fmt.Errorf("--relay %s has a path, and --mode full lists the hosts of relays at their root only", r.URL))
		}
	}
	for _, address := range c.named() {
		if _, banned := c.HostRules.Of(identity.HostOf(address)); banned && fine("host-ban") {
			errs = append(errs, fmt.Errorf("%s is to be read, but a --host-ban fits it", address))
		}
	}
	return errs
}

// named are the URLs of the hosts that are to be read.
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

// privateHost is the host of a URL that only this machine or its network can reach, "" for any other.
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

// appendSource adds sources of the firehose.
func appendSource(field *[]store.Source, pds bool) func(string) error {
	return func(s string) error {
		src, err := ingest.ParseSource(s, pds)
		if err != nil {
			return fmt.Errorf("want a URL like https://relay.example.com; this one %w", errors.Unwrap(err)) // try names it
		}
		*field = append(*field, src)
		return nil
	}
}

// afterScheme is the host of a URL and what follows it.
func afterScheme(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	return rest
}

// load fills the fields of the options named (all when none is named) from the command's flags,
// else from the environment, else from the defaults, and reports every mistake.
func (c *Config) load(cmd *cli.Command, environ []string, names ...string) error {
	env, errs := readEnviron(environ, c.options())
	var bad []string
	for _, o := range only(c.options(), names) {
		values, source := []string{o.standard}, "--"+o.name
		switch {
		case cmd.IsSet(o.name) && o.value == "":
			values = []string{strconv.FormatBool(cmd.Bool(o.name))}
		case cmd.IsSet(o.name):
			values = cmd.StringSlice(o.name)
		case env[o.variable()] != "":
			values, source = o.split(env[o.variable()]), o.variable()
		case o.standard == "":
			continue
		}
		if len(values) > 1 && !o.repeat {
			errs, bad = append(errs, fmt.Errorf("%s: given %d times, want one value", source, len(values))), append(bad, o.name)
			continue
		}
		if o.seed && (cmd.IsSet(o.name) || env[o.variable()] != "") {
			c.Seeds = append(c.Seeds, o.name)
		}
		for _, v := range values {
			if err := o.try(source, v); err != nil {
				errs, bad = append(errs, err), append(bad, o.name)
			}
		}
	}
	return mistakes(append(errs, c.validate(bad)...))
}

// mistakes is one error that tells all of errs.
func mistakes(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	var lines strings.Builder
	for _, err := range errs {
		fmt.Fprintf(&lines, "\n  %s", err)
	}
	return fmt.Errorf("%d mistakes:%s", len(errs), &lines)
}

// try sets one value and names it with its source if it will not do.
func (o option) try(source, value string) error {
	err := o.set(value)
	switch {
	case err == nil:
		return nil
	case o.secret:
		return fmt.Errorf("%s: %w", source, err)
	}
	return fmt.Errorf("%s %q: %w", source, withoutUser(value), err)
}

func (o option) split(value string) []string {
	if !o.repeat {
		return []string{value}
	}
	values := strings.Split(value, ",")
	for i := range values {
		values[i] = strings.TrimSpace(values[i])
	}
	return values
}

// readEnviron picks our variables and reports those that no option reads.
func readEnviron(environ []string, options []option) (map[string]string, []error) {
	var known []string
	for _, o := range options {
		known = append(known, o.variable())
	}
	env := make(map[string]string)
	var errs []error
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		if !slices.Contains(known, name) {
			best, _ := nearest(name, known)
			errs = append(errs, fmt.Errorf("unknown variable %s; the nearest known is %s", name, best))
			continue
		}
		env[name] = value
	}
	return env, errs
}

// only keeps the options of these names, in the table's order; all of them when there are no names.
func only(options []option, names []string) []option {
	if len(names) == 0 {
		return options
	}
	return slices.DeleteFunc(options, func(o option) bool { return !slices.Contains(names, o.name) })
}

// flags declares options to the command line. Their values are read by load, which treats the
// environment alike.
func flags(options []option) []cli.Flag {
	var flags []cli.Flag
	for _, o := range options {
		if o.value == "" {
			flags = append(flags, &cli.BoolFlag{Name: o.name, Usage: o.help})
			continue
		}
		flags = append(flags, &cli.StringSliceFlag{Name: o.name, Usage: o.help})
	}
	return flags
}

func setText(field *string) func(string) error {
	return func(s string) error { *field = s; return nil }
}

func setParsed[T any](field *T, parse func(string) (T, error)) func(string) error {
	return func(s string) (err error) { *field, err = parse(s); return err }
}

func setSwitch(field *bool) func(string) error {
	return func(s string) (err error) {
		if *field, err = strconv.ParseBool(s); err != nil {
			return errors.New("want true or false")
		}
		return nil
	}
}

func setChoice(field *string, choices ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(choices, s) {
			return fmt.Errorf("want one of %s%s", strings.Join(choices, ", "), suggest(s, choices))
		}
		*field = s
		return nil
	}
}

func appendParsed(field *[]string, parse func(string, ...string) (string, error), schemes ...string) func(string) error {
	return func(s string) error {
		u, err := parse(s, schemes...)
		if err != nil {
			return err
		}
		*field = append(*field, u)
		return nil
	}
}
