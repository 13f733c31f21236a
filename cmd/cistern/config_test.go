package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/backfill/fetch"
	"cistern/cmd/cistern/command"
	"cistern/condition"
	"cistern/store"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v3"
)

// update rewrites the golden text.
var update = flag.Bool("update", false, "rewrite the generated parts of docs/")

// loadArgs reads a command line and an environment as cistern run does.
func loadArgs(t *testing.T, args, environ []string) (Config, error) {
	t.Helper()
	var cfg Config
	var loadErr error
	var out bytes.Buffer
	cmd := &cli.Command{Name: "run", Flags: command.Flags(cfg.options()), Writer: &out, ErrWriter: &out,
		Action: func(_ context.Context, cmd *cli.Command) error { loadErr = cfg.load(cmd, environ); return nil }}
	if err := cmd.Run(t.Context(), append([]string{"run"}, args...)); err != nil {
		return cfg, err
	}
	return cfg, loadErr
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	got, err := loadArgs(t, nil, []string{"PATH=/bin", "CISTERN_MODE="})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Data: "./cistern-data", Listen: ":2481", Admin: "127.0.0.1:2480", PLC: []string{"https://plc.directory"},
		CrawlEvery: 24 * time.Hour, Mode: "filter", Store: "wanted", Handles: "on", Verify: "full", VerifyShare: 25, RepoMax: 4 << 30, FetchTimeout: 6 * time.Hour, Reserve: reserve{percent: 5}, Retention: 7 * 24 * time.Hour, SubscriptionRetention: 14 * 24 * time.Hour, SnapshotRetention: 6 * time.Hour, LogLevel: slog.LevelInfo, LogFormat: "text", TraceShare: 1,
		BackupEvery: time.Hour, BackupKeep: 24, OffloadAfter: 24 * time.Hour, ExportFormat: "parquet", ExportKeep: 4}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(reserve{})); diff != "" {
		t.Error(diff)
	}
}

// TestConfigSources sets the same values by flags and by variables.
func TestConfigSources(t *testing.T) {
	t.Parallel()
	want := Config{Data: "/d", Listen: "127.0.0.1:0", StatusPage: true, Admin: ":2480", AdminToken: "opensesame", PLC: []string{"https://a", "http://b:1"},
		Crawl:  []discover.Source{{Kind: "repos", URL: "https://pds.example"}, {Kind: "repos", URL: "http://127.0.0.1:3"}},
		Relays: []store.Source{{URL: "wss://relay.example"}, {URL: "ws://127.0.0.1:4"}}, PDS: []store.Source{{URL: "wss://pds.example", PDS: true}},
		CrawlEvery: 24 * time.Hour, Mode: "full", Collections: []string{"app.bsky.feed.*", "app.bsky.actor.profile"}, Excludes: []string{"did:web:a.example"}, Store: "all",
		Given: []string{"data", "listen", "status-page", "admin", "admin-token", "plc", "crawl", "relay", "pds", "mode", "collection", "store", "exclude", "allow-private",
			"handles", "verify", "verify-share", "strategy", "repo-max", "fetch-timeout", "disk-reserve", "retention", "retention-bytes", "subscription-retention", "snapshot-retention", "backup-every", "backup-keep", "offload-after", "export-format", "export-collection", "export-keep", "log-level", "log-format", "traces", "trace-share"}, AllowPrivate: true, Handles: "off", Verify: "none", VerifyShare: 50, Strategy: fetch.StrategySparse,
		RepoMax: 8 << 30, FetchTimeout: 24 * time.Hour, Reserve: reserve{bytes: 10 << 30}, Retention: 48 * time.Hour, RetentionBytes: 100 << 30, SubscriptionRetention: 72 * time.Hour, SnapshotRetention: 12 * time.Hour, BackupEvery: 36 * time.Hour, BackupKeep: 9, OffloadAfter: 6 * time.Hour,
		ExportFormat: "ndjson", ExportCollections: []string{"app.bsky.graph.*"}, ExportKeep: 3, LogLevel: slog.LevelDebug, LogFormat: "json", Traces: "http://127.0.0.1:4318", TraceShare: 10}
	rows := map[string]struct{ args, environ []string }{
		"flags": {args: []string{"--data", "/d", "--listen=127.0.0.1:0", "--status-page", "--admin", ":2480", "--admin-token", "opensesame",
			"--plc", "https://a/", "--plc", "http://b:1", "--crawl", "repos::https://pds.example", "--crawl", "repos::http://127.0.0.1:3/",
			"--relay", "wss://relay.example", "--relay", "http://127.0.0.1:4/", "--pds", "https://PDS.example:443", "--mode", "full", "--collection", "app.bsky.feed.*",
			"--collection", "app.bsky.actor.profile", "--exclude", "did:web:a.example", "--store", "all", "--allow-private", "--handles", "off", "--verify", "none", "--verify-share", "50", "--strategy", "sparse",
			"--repo-max", "8GiB", "--fetch-timeout", "1d", "--disk-reserve", "10GiB", "--retention", "2d", "--retention-bytes", "100GiB", "--subscription-retention", "3d", "--snapshot-retention", "12h", "--backup-every", "1.5d", "--backup-keep", "9", "--offload-after", "6h",
			"--export-format", "ndjson", "--export-collection", "app.bsky.graph.*", "--export-keep", "3", "--log-level", "debug",
			"--log-format", "json", "--traces", "http://127.0.0.1:4318/", "--trace-share", "10%"}},
		"variables": {environ: []string{"CISTERN_DATA=/d", "CISTERN_LISTEN=127.0.0.1:0", "CISTERN_STATUS_PAGE=true", "CISTERN_ADMIN=:2480", "CISTERN_ADMIN_TOKEN=opensesame",
			"CISTERN_PLC=https://a, http://b:1", "CISTERN_CRAWL=repos::https://pds.example,repos::http://127.0.0.1:3",
			"CISTERN_RELAY=https://relay.example, ws://127.0.0.1:4", "CISTERN_PDS=wss://pds.example", "CISTERN_MODE=full",
			"CISTERN_COLLECTION=app.bsky.feed.*,app.bsky.actor.profile", "CISTERN_EXCLUDE=did:web:a.example", "CISTERN_STORE=all", "CISTERN_ALLOW_PRIVATE=1", "CISTERN_HANDLES=off", "CISTERN_VERIFY=none", "CISTERN_VERIFY_SHARE=50%", "CISTERN_STRATEGY=sparse",
			"CISTERN_REPO_MAX=8GiB", "CISTERN_FETCH_TIMEOUT=24h", "CISTERN_DISK_RESERVE=10GiB", "CISTERN_RETENTION=48h", "CISTERN_RETENTION_BYTES=100GiB", "CISTERN_SUBSCRIPTION_RETENTION=72h", "CISTERN_SNAPSHOT_RETENTION=12h", "CISTERN_BACKUP_EVERY=36h", "CISTERN_BACKUP_KEEP=9", "CISTERN_OFFLOAD_AFTER=6h",
			"CISTERN_EXPORT_FORMAT=ndjson", "CISTERN_EXPORT_COLLECTION=app.bsky.graph.*", "CISTERN_EXPORT_KEEP=3", "CISTERN_LOG_LEVEL=debug",
			"CISTERN_LOG_FORMAT=json", "CISTERN_TRACES=http://127.0.0.1:4318", "CISTERN_TRACE_SHARE=10"}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := loadArgs(t, row.args, row.environ)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(reserve{})); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("flag wins", func(t *testing.T) {
		t.Parallel()
		got, err := loadArgs(t, []string{"--allow-private=false", "--plc", "https://flag"}, []string{"CISTERN_ALLOW_PRIVATE=true", "CISTERN_PLC=https://variable"})
		if err != nil || got.AllowPrivate || !cmp.Equal(got.PLC, []string{"https://flag"}) {
			t.Errorf("%v, %+v", err, got)
		}
	})
}

// TestConfigMistakes checks that each mistake names its option or variable, the bad value, and what
// is wanted instead.
func TestConfigMistakes(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name          string
		args, environ []string
		want          []string
	}{
		{"unknown variable", nil, []string{"CISTERN_DISKRESERVE=1"}, []string{"CISTERN_DISKRESERVE", "CISTERN_DISK_RESERVE"}},
		{"unlike any variable", nil, []string{"CISTERN_ZZZZZZ=1"}, []string{"CISTERN_ZZZZZZ", "nearest known is CISTERN_"}},
		{"bad switch", nil, []string{"CISTERN_ALLOW_PRIVATE=maybe"}, []string{`CISTERN_ALLOW_PRIVATE "maybe"`, "true or false"}},
		{"backup without a slash", []string{"--backup", "backups"}, nil, []string{`--backup "backups"`, "./backups"}},
		{"backup elsewhere", []string{"--backup", "gs://b/p"}, nil, []string{"--backup", `"gs"`, "s3://BUCKET/PREFIX"}},
		{"backup without keys", []string{"--backup", "s3://b/p"}, nil, []string{"--backup", "s3://b/p", "AWS_ACCESS_KEY_ID"}},
		{"backup too often", []string{"--backup-every", "0"}, nil, []string{`--backup-every "0"`, "5m"}},
		{"schedule of nothing", []string{"--schedule", "verfy=7d"}, nil, []string{`--schedule "verfy=7d"`, "compact, export, gc, offload, prune, reconcile, verify"}},
		{"schedule without a period", []string{"--schedule", "verify"}, nil, []string{`--schedule "verify"`, "verify=7d", "off"}},
		{"schedule of a wrong period", []string{"--schedule", "verify=often"}, nil, []string{`--schedule "verify=often"`, "7d", "or off"}},
		{"schedule too often", nil, []string{"CISTERN_SCHEDULE=verify=7d, compact=1s"}, []string{`CISTERN_SCHEDULE "compact=1s"`, "a minute or more"}},
		{"schedule without prune", []string{"--schedule", "prune=off"}, nil, []string{`--schedule "prune=off"`, "cannot be switched off", "1m"}},
		{"schedule of gc by the year", []string{"--schedule", "gc=365d"}, nil, []string{`--schedule "gc=365d"`, "from 1m to 1h"}},
		{"schedule of backups", []string{"--schedule", "backup=1d"}, nil, []string{`--schedule "backup=1d"`, "--backup-every"}},
		{"schedule of offload alone", []string{"--schedule", "offload=10m"}, nil, []string{"--schedule gives offload a period", "needs --offload"}},
		{"schedule of export alone", []string{"--schedule", "export=7d"}, nil, []string{"--schedule gives export a period", "needs --export"}},
		{"export of events only", []string{"--export", "./x", "--ephemeral"}, nil, []string{"--ephemeral keeps events only"}},
		{"schedule twice", []string{"--schedule", "verify=7d", "--schedule", "verify=off"}, nil, []string{"--schedule gives verify two periods"}},
		{"quiet hours", []string{"--quiet-hours", "22"}, nil, []string{`--quiet-hours "22"`, "22-6"}},
		{"quiet hours of no length", []string{"--quiet-hours", "6-6"}, nil, []string{`--quiet-hours "6-6"`, "two different"}},
		{"backups kept", []string{"--backup-keep", "-1"}, nil, []string{`--backup-keep "-1"`, "0 to"}},
		{"crawl kind", []string{"--crawl", "collections::https://a"}, nil, []string{"--crawl", `unknown kind "collections"`, "known: hosts, repos, collection"}},
		{"crawl without a pause", []string{"--crawl-every", "0"}, nil, []string{`--crawl-every "0"`, "6h"}},
		{"crawl without kind", []string{"--crawl", "https://a"}, nil, []string{"KIND::URL"}},
		{"crawl of nothing", []string{"--crawl", "repos::"}, nil, []string{`--crawl "repos::"`, "http, https"}},
		{"crawl without a scheme", []string{"--crawl", "repos::localhost:12583"}, nil, []string{`--crawl "repos::localhost:12583"`, "http://"}},
		{"relay and pds without a scheme", []string{"--relay", "relay.example.com", "--pds", "127.0.0.1:2583"}, nil, []string{`--relay "relay.example.com"`, `--pds "127.0.0.1:2583"`, "http://"}},
		{"crawl of a path", []string{"--crawl", "repos::https://a/xrpc"}, nil, []string{"--crawl", "has a path"}},
		{"relay scheme", []string{"--relay", "ftp://a"}, nil, []string{`--relay "ftp://a"`, "wss"}},
		{"no host", []string{"--pds", "wss://"}, nil, []string{`--pds "wss://"`}},
		{"signal", []string{"--signal", "app.bsky.feed.*.x"}, nil, []string{`--signal "app.bsky.feed.*.x"`}},
		{"signal that is everything", []string{"--signal", "*"}, nil, []string{`--signal "*"`}},
		{"collection", []string{"--collection", "app.bsky"}, nil, []string{`--collection "app.bsky"`, "app.bsky.*"}},
		{"second collection", nil, []string{"CISTERN_COLLECTION=app.bsky.feed.post,post"}, []string{`CISTERN_COLLECTION "post"`}},
		{"exclude of a handle", []string{"--exclude", "alice.test"}, nil, []string{`--exclude "alice.test"`, "did:plc:"}},
		{"store", []string{"--store", "everything"}, nil, []string{`--store "everything"`, "wanted, all"}},
		{"relay and PDS at once", []string{"--relay", "wss://a.example", "--pds", "https://A.example:443"}, nil, []string{"wss://a.example cannot", "--relay", "--pds"}},
		{"private relay", []string{"--relay", "http://127.0.0.1:1"}, nil, []string{"ws://127.0.0.1:1", "--allow-private"}},
		{"private PDS", []string{"--pds", "http://localhost"}, nil, []string{"ws://localhost", "--allow-private"}},
		{"password in a URL", []string{"--relay", "https://me:hunter2@a.example"}, nil, []string{`--relay "https://…@a.example": want`, "more than a host"}},
		{"signal without a firehose", []string{"--signal", "app.bsky.*"}, nil, []string{"--signal", "--relay"}},
		{"signal in full mode", []string{"--signal", "app.bsky.*", "--relay", "wss://a.example", "--mode", "full"}, nil, []string{"--signal", "--mode filter"}},
		{"relay to list under a path", []string{"--relay", "wss://a.example/base", "--mode", "full"}, nil, []string{"wss://a.example/base", "path"}},
		{"password in a URL", []string{"--plc", "https://u:p@a"}, nil, []string{`--plc "https://…@a"`, "more than a host"}},
		{"query in a URL", []string{"--plc", "https://a?b"}, nil, []string{`--plc "https://a?b"`, "more than a host"}},
		{"URL of another protocol", []string{"--plc", "wss://a"}, nil, []string{`--plc "wss://a"`, "not http"}},
		{"second in a list", nil, []string{"CISTERN_PLC=https://a,,https://b"}, []string{`CISTERN_PLC ""`}},
		{"no port", []string{"--listen", "localhost"}, nil, []string{`--listen "localhost"`, "host:port"}},
		{"port above all", []string{"--listen", ":70000"}, nil, []string{"--listen", "host:port"}},
		{"repository that no CAR can hold", []string{"--repo-max", "17GiB"}, nil, []string{`--repo-max "17GiB"`, "16GiB"}},
		{"no time to fetch", []string{"--fetch-timeout", "0"}, nil, []string{`--fetch-timeout "0"`, "6h"}},
		{"no dictionary file", []string{"--jetstream-dictionary", "/no/such/file"}, nil, []string{"--jetstream-dictionary", "/no/such/file", "no such file"}},
		{"no dictionary", []string{"--jetstream-dictionary", "config_test.go"}, nil, []string{`--jetstream-dictionary "config_test.go"`, "not a zstd dictionary"}},
		{"share above all", []string{"--disk-reserve", "150%"}, nil, []string{`--disk-reserve "150%"`, "90%"}},
		{"size without unit", []string{"--disk-reserve", "10"}, nil, []string{"--disk-reserve", "10GiB"}},
		{"mount point that is relative", []string{"--data-mount", "srv"}, nil, []string{`--data-mount "srv"`, "/srv"}},
		{"hours", []string{"--backfill-hours", "22"}, nil, []string{`--backfill-hours "22"`, "22:30-06:00"}},
		{"no lag", []string{"--pause-lag", "0"}, nil, []string{`--pause-lag "0"`, "1000000", "10m"}},
		{"pressure of nothing", []string{"--pause-pressure", "disk=10"}, nil, []string{`--pause-pressure "disk=10"`, "cpu, memory or io"}},
		{"pressure without a number", []string{"--pause-pressure", "cpu=NaN"}, nil, []string{`--pause-pressure "cpu=NaN"`, "memory=10"}},
		{"pressure twice", []string{"--pause-pressure", "cpu=10", "--pause-pressure", "cpu=20"}, nil, []string{"--pause-pressure cpu is given twice"}},
		{"grace of an unknown kind", []string{"--alert-after", "disk=1h"}, nil, []string{`--alert-after "disk=1h"`, "source", "source=10m"}},
		{"grace without a time", []string{"--alert-after", "source"}, nil, []string{`--alert-after "source"`, "source=10m"}},
		{"alerts without a secret", []string{"--alert-webhook", "https://a.example/x"}, nil, []string{"--alert-webhook", "CISTERN_ALERT_WEBHOOK_SECRET"}},
		{"alerts to a private address", []string{"--alert-webhook", "https://127.0.0.1/x"}, nil, []string{"--alert-webhook"}},
		{"alerts in the open", []string{"--alert-webhook", "http://a.example/x"}, nil, []string{"--alert-webhook", "is not https (http needs --allow-private)"}},
		{"secret of alerts", nil, []string{"CISTERN_ALERT_WEBHOOK_SECRET=hunter2"}, []string{"CISTERN_ALERT_WEBHOOK_SECRET: want whsec_"}},
		{"log of some bytes", []string{"--retention-bytes=100"}, nil, []string{"--retention-bytes", "100", "1MiB"}},
		{"negative duration", []string{"--retention=-1h"}, nil, []string{"--retention", "72h"}},
		{"twice", []string{"--mode", "filter", "--mode", "filter"}, nil, []string{"--mode: given 2 times"}},
		{"near miss of a strategy", []string{"--strategy", "spars"}, nil, []string{`--strategy "spars"`, "auto, sparse, full"}},
		{"share of nothing", []string{"--verify-share", "0"}, nil, []string{`--verify-share "0"`, "1 to 100"}},
		{"near miss", []string{"--verify", "backfil"}, nil, []string{`--verify "backfil"`, "full, backfill, none"}},
		{"open admin", []string{"--admin", "0.0.0.0:2480"}, nil, []string{"--admin 0.0.0.0:2480", "--admin-token"}},
		{"open admin by default host", []string{"--admin", ":2480"}, nil, []string{"--admin :2480", "--admin-token"}},
		{"banned and read", []string{"--pds", "https://pds.example.com", "--host-ban", "*.example.com"}, nil, []string{"wss://pds.example.com", "--host-ban"}},
		{"banned and listed", []string{"--crawl", "repos::https://pds.example.com", "--host-ban", "pds.example.com"}, nil, []string{"https://pds.example.com", "--host-ban"}},
		{"full of nothing", []string{"--mode", "full"}, nil, []string{"--mode full", "--relay"}},
		{"all at once", []string{"--mode", "x", "--verify", "y"}, []string{"CISTERN_LOG_LEVEL=z", "CISTERN_FOO=1"},
			[]string{"4 mistakes", `--mode "x"`, `--verify "y"`, `CISTERN_LOG_LEVEL "z"`, "CISTERN_FOO"}},
		{"nothing ever goes", []string{"--ephemeral", "--retention", "0"}, nil, []string{"--ephemeral needs --retention or --retention-bytes"}},
		{"links of nothing", []string{"--ephemeral", "--backlinks"}, nil, []string{"--backlinks needs records"}},
		{"keeps all and nothing", []string{"--ephemeral", "--store", "all"}, nil, []string{"--ephemeral", "--store all"}},
		{"values and what they are together", []string{"--admin", ":1", "--mode", "full", "--verify", "y"}, nil, []string{"3 mistakes", "--admin-token", "--relay", "--verify"}},
		{"together with what was refused", []string{"--admin", ":1", "--admin-token", "short", "--mode", "full", "--relay", "x"}, nil, []string{"2 mistakes", "--admin-token: want", `--relay "x"`}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := loadArgs(t, row.args, row.environ)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range row.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestConfigKeepsSecrets(t *testing.T) {
	t.Parallel()
	_, err := loadArgs(t, []string{"--admin-token", "a b c d e"}, nil)
	if err == nil || strings.Contains(err.Error(), "a b c") || !strings.Contains(err.Error(), "--admin-token") {
		t.Error(err)
	}
	_, err = loadArgs(t, []string{"--backup", "s3://id:hunter22@b/p"}, nil)
	if err == nil || strings.Contains(err.Error(), "hunter22") || !strings.Contains(err.Error(), "@b/p") {
		t.Error(err)
	}
}

func TestCrawlSources(t *testing.T) {
	t.Parallel()
	cfg := Config{Crawl: []discover.Source{{Kind: "repos", URL: "https://relay.example"}},
		Relays: []store.Source{{URL: "wss://relay.example"}, {URL: "ws://127.0.0.1:1"}, {URL: "wss://b"}, {URL: "wss://c/path"}}, PDS: []store.Source{{URL: "wss://pds", PDS: true}}}
	want := []discover.Source{{Kind: "repos", URL: "https://relay.example"}, {Kind: "hosts", URL: "http://127.0.0.1:1", Implied: true}, {Kind: "hosts", URL: "https://b", Implied: true}}
	if got := cfg.crawlSources(); !cmp.Equal(got, want) {
		t.Error(got)
	}
}

// TestConfigConditions: repeated limits of lag are one limit.
func TestConfigConditions(t *testing.T) {
	t.Parallel()
	got, err := loadArgs(t, []string{"--data-mount", "/srv/", "--backfill-hours", "22-6"}, []string{"CISTERN_PAUSE_LAG=10m, 5000,1d,7000", "CISTERN_PAUSE_PRESSURE=cpu=150,io=40%"})
	if err != nil {
		t.Fatal(err)
	}
	if got.DataMount != "/srv" || got.BackfillHours.String() != "22:00-06:00" || got.lagLimit() != (condition.LagLimit{Events: 5000, Age: 10 * time.Minute}) ||
		!slices.Equal(got.Pressure, []pressureLimit{{condition.CPU, 150}, {condition.IO, 40}}) {
		t.Errorf("%+v", got)
	}
}

func TestReserve(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{"5%": 50, "0": 0, "0%": 0, "1.5KiB": 1536, "2kB": 2000, "10B": 10} {
		r, err := parseReserve(text)
		if got := r.of(1000); err != nil || got != want {
			t.Errorf("%s of 1000: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "%", "-1%", "NaN%", "91%", "1", "-1B", "InfB", "1e30TiB", "1,5GiB", "5 %%"} {
		if r, err := parseReserve(text); err == nil {
			t.Errorf("%q gives %+v", text, r)
		}
	}
}

// TestDocsOptions keeps the table in docs/options.md equal to the options.
func TestDocsOptions(t *testing.T) {
	t.Parallel()
	name := filepath.Join("..", "..", "docs", "options.md")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const open, shut = "<!-- options -->\n", "<!-- /options -->"
	before, rest, ok := strings.Cut(string(text), open)
	got, after, ok2 := strings.Cut(rest, shut)
	if !ok || !ok2 {
		t.Fatal("docs/options.md has no markers for the table")
	}
	want := optionsTable((&Config{}).options())
	if *update {
		if err := os.WriteFile(name, []byte(before+open+want+shut+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/options.md differs (go test ./cmd/cistern -run Docs -update):\n%s", diff)
	}
}

// optionsTable returns the table of options for docs/options.md.
func optionsTable(options []command.Option) string {
	var b strings.Builder
	b.WriteString("| flag | variable | default | meaning |\n|---|---|---|---|\n")
	for _, o := range options {
		standard := "-"
		if o.Default != "" {
			standard = "`" + o.Default + "`"
		}
		flag := strings.ReplaceAll(strings.TrimSpace("--"+o.Name+" "+o.Value), "|", `\|`)
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", flag, o.Variable(), standard, o.Help)
	}
	return b.String()
}
