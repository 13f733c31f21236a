package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"
)

// didRow is one line of a request.
type didRow struct {
	DID string `json:"did"`
}

// outcomeRow is what became of one DID of a request.
type outcomeRow struct {
	DID     string `json:"did"`
	Result  string `json:"result"`
	Message string `json:"message"` // why it was refused
}

// notFound is the result for a DID that the daemon does not know.
const notFound = "not found"

// repoRow is what ls shows of a row.
type repoRow struct {
	DID     string `json:"did"`
	State   string `json:"state"`
	Status  string `json:"status"`
	Rev     string `json:"rev"`
	Records int64  `json:"records"`
	PDS     string `json:"pds"`
	Reason  string `json:"reason"`
}

const repoAbout = `Drive a running daemon through its private listener, at 127.0.0.1:2480 or --admin. Answers are tables;
--json gives the daemon's rows as JSON lines instead. 'cistern repo COMMAND --help' tells more.`

// didsMax is how many DIDs one request carries; more go in several.
const didsMax = 1000

func (a *app) repoCommand() *cli.Command {
	return &cli.Command{
		Name:        "repo",
		Usage:       "add, list, inspect, resync and remove repositories of a running daemon",
		Description: strings.ReplaceAll(wrap(repoAbout, 3), "\n   ", "\n"),
		Action:      a.unknownCommand,
		Commands: []*cli.Command{
			a.repoSubcommand("add", "DID... | -f FILE", "track repositories and fetch them",
				[]helpRow{fileRow}, []cli.Flag{fileFlag()}, (*repoSession).add,
				"  cistern repo add did:plc:ewvi7nxzyoun6zhxrhs64oiz\n  sort -u dids.txt | cistern repo add -f -"),
			a.repoSubcommand("ls", "", "list repositories",
				[]helpRow{{"--state STATE", "Only those in this state: pending, draining, synced, resync, gone or idle."},
					{"--verified LEVEL", "Only those last written with this much verified: full, hashes, ops or formerkey."},
					{"--host HOST", "Only those of this host, as in pds.example.com."},
					{"--limit N", "At most so many. Default 100; 0 for all."}},
				[]cli.Flag{&cli.StringFlag{Name: "state"}, &cli.StringFlag{Name: "verified"}, &cli.StringFlag{Name: "host"}, &cli.IntFlag{Name: "limit", Value: 100}}, (*repoSession).ls,
				"  cistern repo ls --state resync --limit 0\n  cistern repo ls --host pds.example.com --json | jq -r .did"),
			a.repoSubcommand("show", "DID", "show all that is known of a repository", nil, nil, (*repoSession).show,
				"  cistern repo show did:plc:ewvi7nxzyoun6zhxrhs64oiz"),
			a.repoSubcommand("resync", "DID... | -f FILE | --state STATE", "fetch repositories again now and emit what changed",
				[]helpRow{fileRow, {"--state STATE", "All repositories in this state instead of DIDs: resync is those that wait for a retry."}},
				[]cli.Flag{fileFlag(), &cli.StringFlag{Name: "state"}}, (*repoSession).resync,
				"  cistern repo resync did:plc:ewvi7nxzyoun6zhxrhs64oiz\n  cistern repo resync --state resync"),
			a.repoSubcommand("rm", "DID... | -f FILE", "stop following repositories; their records stay unless --purge",
				[]helpRow{fileRow, {"--purge", "Wipe their records, too. Only a new fetch brings them back."}},
				[]cli.Flag{fileFlag(), &cli.BoolFlag{Name: "purge"}}, (*repoSession).rm,
				"  cistern repo rm did:plc:ewvi7nxzyoun6zhxrhs64oiz\n  cistern repo rm --purge -f gone.txt"),
		},
	}
}

var fileRow = helpRow{"-f, --file FILE", "Read DIDs from a file, one a line; - is standard input. Blank lines and # comments are skipped."}

func fileFlag() cli.Flag { return &cli.StringFlag{Name: "file", Aliases: []string{"f"}} }

// repoSession is one run of a repo command.
type repoSession struct {
	*app
	cmd    *cli.Command
	client *adminClient
}

func (a *app) repoSubcommand(name, arguments, about string, rows []helpRow, own []cli.Flag, act func(*repoSession, context.Context) error, examples string) *cli.Command {
	var cfg Config
	shared := only(cfg.options(), []string{"admin", "admin-token"})
	rows = append(rows, helpRow{"--json", "Print the daemon's rows as JSON lines."},
		helpRow{"--admin ADDR", "The daemon's private listener, host:port or URL. Default 127.0.0.1:2480."},
		helpRow{"--admin-token TOKEN", "Its secret, if it has one. Better in CISTERN_ADMIN_TOKEN."})
	return &cli.Command{
		Name:               name,
		Usage:              about,
		ArgsUsage:          arguments,
		Flags:              append(append(own, &cli.BoolFlag{Name: "json"}), flags(shared)...),
		CustomHelpTemplate: helpText(strings.TrimSpace("cistern repo "+name+" [options] "+arguments), strings.ToUpper(about[:1])+about[1:]+".", rows, false, examples),
		Action: func(ctx context.Context, cmd *cli.Command) error {
			client, err := a.adminClientFor(cmd)
			if err != nil {
				return err
			}
			return a.untilSignal(ctx, func(ctx context.Context) error {
				return act(&repoSession{app: a, cmd: cmd, client: client}, ctx)
			})
		},
	}
}

// adminClientFor finds the daemon by the options and variables that the daemon itself takes, but
// for the address, which may be a URL here.
func (a *app) adminClientFor(cmd *cli.Command) (*adminClient, error) {
	var cfg Config
	env, errs := readEnviron(a.environ, cfg.options())
	value := func(name string) string {
		if values := cmd.StringSlice(name); len(values) > 0 {
			return values[len(values)-1]
		}
		return env[option{name: name}.variable()]
	}
	client, err := newAdminClient(cmp.Or(value("admin"), "127.0.0.1:2480"), value("admin-token"))
	return client, mistakes(append(errs, err))
}

func (s *repoSession) add(ctx context.Context) error {
	return s.change(ctx, "PUT", "/repos", nil)
}

func (s *repoSession) rm(ctx context.Context) error {
	if s.cmd.Bool("purge") {
		return s.change(ctx, "DELETE", "/repos", url.Values{"purge": {"true"}})
	}
	return s.change(ctx, "DELETE", "/repos", nil)
}

func (s *repoSession) resync(ctx context.Context) error {
	state := s.cmd.String("state")
	if state == "" {
		return s.change(ctx, "POST", "/repos/resync", nil)
	}
	if s.cmd.NArg() > 0 || s.cmd.String("file") != "" {
		return errors.New("give either DIDs or --state, not both")
	}
	var dids []string
	_, err := s.pages(ctx, url.Values{"state": {state}}, 0, func(line json.RawMessage) error {
		var row didRow
		err := json.Unmarshal(line, &row)
		dids = append(dids, row.DID)
		return err
	})
	if err != nil {
		return err
	}
	return s.send(ctx, "POST", "/repos/resync", nil, dids)
}

// change applies a request to the DIDs of the command line.
func (s *repoSession) change(ctx context.Context, method, path string, query url.Values) error {
	dids, err := s.dids()
	if err != nil {
		return err
	}
	if len(dids) == 0 {
		return fmt.Errorf("%s needs DIDs, as arguments or from a file with -f", subject(s.cmd))
	}
	return s.send(ctx, method, path, query, dids)
}

// send sends DIDs in requests of bounded size, counts what became of them, and names those refused.
func (s *repoSession) send(ctx context.Context, method, path string, query url.Values, dids []string) error {
	results, refused := map[string]int64{}, table{heading: []string{"DID", "ERROR"}}
	for page := range slices.Chunk(dids, didsMax) {
		rows := make([]didRow, len(page))
		for i, did := range page {
			rows[i] = didRow{did}
		}
		_, err := s.client.do(ctx, method, path, query, rows, func(line json.RawMessage) error {
			var row outcomeRow
			if err := json.Unmarshal(line, &row); err != nil {
				return fmt.Errorf("row %s: %w", clip(printable(string(line)), 80), err)
			}
			if row.Message != "" || row.Result == notFound {
				refused.add(printable(row.DID), printable(cmp.Or(row.Message, row.Result)))
			} else {
				results[row.Result]++
			}
			return s.printJSON(line)
		})
		if err != nil {
			return err
		}
	}
	failures := int64(len(refused.rows))
	if !s.cmd.Bool("json") {
		if err := s.report(results, &refused); err != nil {
			return err
		}
	}
	if failures > 0 {
		return fmt.Errorf("%s refused", plural(failures, "DID", "DIDs"))
	}
	return nil
}

// report prints how many had each result, and what was refused.
func (s *repoSession) report(results map[string]int64, refused *table) error {
	for _, result := range slices.Sorted(maps.Keys(results)) {
		fmt.Fprintf(s.stdout, "%s %s\n", thousands(results[result]), printable(result))
	}
	if len(refused.rows) > 0 {
		return refused.write(s.stdout)
	}
	if len(results) == 0 {
		fmt.Fprintln(s.stdout, "no repositories")
	}
	return nil
}

func (s *repoSession) printJSON(line json.RawMessage) error {
	if !s.cmd.Bool("json") {
		return nil
	}
	_, err := fmt.Fprintf(s.stdout, "%s\n", line)
	return err
}

// dids are those of the arguments and of the file.
func (s *repoSession) dids() ([]string, error) {
	dids := s.cmd.Args().Slice()
	name := s.cmd.String("file")
	if name == "" {
		return dids, nil
	}
	in := s.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	more, err := readDIDs(in)
	if err != nil {
		return nil, fmt.Errorf("read DIDs from %s: %w", name, err)
	}
	return append(dids, more...), nil
}

func readDIDs(in io.Reader) ([]string, error) {
	var dids []string
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text != "" {
			dids = append(dids, text)
		}
	}
	return dids, lines.Err()
}

func (s *repoSession) ls(ctx context.Context) error {
	if err := noArguments(s.cmd); err != nil {
		return err
	}
	limit := s.cmd.Int("limit")
	if limit < 0 {
		return fmt.Errorf("--limit %d: want 0 for all, or more", limit)
	}
	query := url.Values{}
	for _, name := range []string{"state", "verified", "host"} {
		if v := s.cmd.String(name); v != "" {
			query.Set(name, v)
		}
	}
	heading := []string{"DID", "STATE", "STATUS", "RECORDS", "REV", "HOST", "ERROR"}
	t := table{heading: heading}
	n := 0
	more, err := s.pages(ctx, query, limit, func(line json.RawMessage) error {
		n++
		if s.cmd.Bool("json") {
			return s.printJSON(line)
		}
		var r repoRow
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("row %s: %w", clip(printable(string(line)), 80), err)
		}
		t.add(r.cells()...)
		return nil
	})
	if err != nil || s.cmd.Bool("json") {
		return err
	}
	if n == 0 {
		_, err := fmt.Fprintln(s.stdout, "no repositories")
		return err
	}
	if err := t.write(s.stdout); err != nil || !more {
		return err
	}
	_, err = fmt.Fprintf(s.stderr, "there are more: --limit 0 lists all\n")
	return err
}

func (r repoRow) cells() []string {
	host := r.PDS
	if u, err := url.Parse(r.PDS); err == nil && u.Host != "" {
		host = u.Host
	}
	cells := []string{r.DID, r.State, r.Status, thousands(r.Records), r.Rev, host, clip(r.Reason, 60)}
	for i, c := range cells {
		cells[i] = cmp.Or(printable(c), "-")
	}
	return cells
}

// pageMax is how many rows one request asks for.
const pageMax = 1000

// pages gives the rows that match to fn, limit of them or all, and says whether there may be more.
func (s *repoSession) pages(ctx context.Context, query url.Values, limit int, fn func(json.RawMessage) error) (more bool, err error) {
	left := limit
	for {
		size := pageMax
		if limit > 0 {
			size = min(size, left)
		}
		query.Set("limit", strconv.Itoa(size))
		next, err := s.client.do(ctx, "GET", "/repos", query, nil, func(line json.RawMessage) error {
			left--
			return fn(line)
		})
		if err != nil || next == "" || (limit > 0 && left <= 0) {
			return next != "", err
		}
		query.Set("cursor", next)
	}
}

func (s *repoSession) show(ctx context.Context) error {
	if s.cmd.NArg() != 1 {
		return fmt.Errorf("%s needs one DID", subject(s.cmd))
	}
	path := "/repos/" + url.PathEscape(s.cmd.Args().First())
	_, err := s.client.do(ctx, "GET", path, nil, nil, func(line json.RawMessage) error {
		if s.cmd.Bool("json") {
			return s.printJSON(line)
		}
		return writeFields(s.stdout, "", line)
	})
	return err
}

// writeFields prints a JSON object one field a line, in its order, and objects in it with their
// name before their fields'.
func writeFields(w io.Writer, prefix string, object json.RawMessage) error {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil {
		return err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return err
		}
		name := fmt.Sprint(prefix, key)
		if value[0] == '{' {
			if err := writeFields(w, name+" ", value); err != nil {
				return err
			}
			continue
		}
		text := string(value)
		if s := ""; json.Unmarshal(value, &s) == nil {
			text = s
		}
		if _, err := fmt.Fprintf(w, "%-18s %s\n", printable(name), printable(text)); err != nil {
			return err
		}
	}
	return nil
}
