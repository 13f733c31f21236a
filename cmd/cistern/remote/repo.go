package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"cistern/cmd/cistern/command"
	"cistern/console"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v3"
)

// didRow is one line of a request.
type didRow struct {
	DID string `json:"did"`
}

// outcomeRow is the result of a request for one DID.
type outcomeRow struct {
	DID     string `json:"did"`
	Result  string `json:"result"`
	Message string `json:"message"` // why the DID was rejected
}

// notFound is the result for a DID that the daemon does not know.
const notFound = "not found"

// repoRow has the fields of a row that ls shows.
type repoRow struct {
	DID     string `json:"did"`
	State   string `json:"state"`
	Status  string `json:"status"`
	Rev     string `json:"rev"`
	Records int64  `json:"records"`
	PDS     string `json:"pds"`
	Reason  string `json:"reason"`
}

const repoAbout = `Control a running daemon through its private listener, at --admin. Answers are
tables; --json prints the daemon's rows as JSON lines instead.
'cistern repo COMMAND --help' describes a command and its options.`

const repoExamples = `  cistern repo add did:plc:ewvi7nxzyoun6zhxrhs64oiz
  cistern repo ls --state resync
`

// didsMax is how many DIDs one request carries. More DIDs take several requests.
const didsMax = 1000

func (o *Options) repoCommand() *cli.Command {
	return &cli.Command{
		Name:               "repo",
		Usage:              "add, list, inspect, resync and remove repositories",
		UsageText:          "cistern repo COMMAND [options]",
		Description:        repoAbout,
		CustomHelpTemplate: command.HelpTemplate + repoExamples,
		Commands: []*cli.Command{
			o.repoSubcommand("add", "DID... | -f FILE", "track repositories and fetch them",
				(*repoSession).add, `  cistern repo add did:plc:ewvi7nxzyoun6zhxrhs64oiz
  sort -u dids.txt | cistern repo add -f -
`, "file"),
			o.repoSubcommand("ls", "", "list repositories",
				(*repoSession).ls, `  cistern repo ls --state resync --limit 0
  cistern repo ls --host pds.example.com --json | jq -r .did
`, "state", "verified", "host", "limit"),
			o.repoSubcommand("show", "DID|HANDLE", "show all that is known of a repository",
				(*repoSession).show, "  cistern repo show did:plc:ewvi7nxzyoun6zhxrhs64oiz\n"),
			o.repoSubcommand("resync", "DID... | -f FILE | --state STATE",
				"fetch repositories again now and emit the changes",
				(*repoSession).resync, `  cistern repo resync did:plc:ewvi7nxzyoun6zhxrhs64oiz
  cistern repo resync --state resync
`, "file", "state"),
			o.repoSubcommand("rm", "DID... | -f FILE",
				"stop following repositories; their records stay unless --purge",
				(*repoSession).rm, `  cistern repo rm did:plc:ewvi7nxzyoun6zhxrhs64oiz
  cistern repo rm --purge -f gone.txt
`, "file", "purge"),
		},
	}
}

// repoSession is one run of a repo command.
type repoSession struct {
	session
	file, state, verified, host string
	limit                       uint64
	purge                       bool
}

func (s *repoSession) options() []command.Option {
	return []command.Option{
		{Name: "file", Alias: "f", Value: "FILE", Set: command.Set(&s.file, command.Text),
			Help: "Read DIDs from a file, one a line; - is standard input. Blank lines and # " +
				"comments are skipped."},
		{Name: "state", Value: "STATE", Set: command.Set(&s.state, command.Text),
			Help: "All repositories in this state: pending, draining, synced, resync (waiting " +
				"for a retry), gone or idle."},
		{Name: "verified", Value: "LEVEL", Set: command.Set(&s.verified, command.Text),
			Help: "Only repositories whose last write was verified to this level: full, hashes, " +
				"ops or formerkey."},
		{Name: "host", Value: "HOST", Set: command.Set(&s.host, command.Text),
			Help: "Only repositories of this host, such as pds.example.com."},
		{Name: "limit", Value: "N", Default: "100",
			Set:  command.Set(&s.limit, command.Number(0, math.MaxInt32)),
			Help: "Most repositories to list. 0 lists all."},
		{Name: "purge", Set: command.Set(&s.purge, command.ParseSwitch),
			Help: "Delete their records too. Only another fetch restores them."},
	}
}

// repoSubcommand returns the command 'repo NAME', with the options of these names and the options
// that locate the daemon.
func (o *Options) repoSubcommand(name, arguments, usage string,
	act func(*repoSession, context.Context) error, examples string, names ...string) *cli.Command {
	s := &repoSession{session: session{Options: o}}
	c := subcommand{name: name, arguments: arguments, usage: usage, examples: examples}
	if len(names) > 0 {
		c.options = command.Only(s.options(), names...)
	}
	return s.command("repo", c, func(ctx context.Context) error { return act(s, ctx) })
}

func (s *repoSession) add(ctx context.Context) error {
	return s.change(ctx, "PUT", "/repos", nil)
}

func (s *repoSession) rm(ctx context.Context) error {
	query := url.Values{}
	if s.purge {
		query.Set("purge", "true")
	}
	return s.change(ctx, "DELETE", "/repos", query)
}

func (s *repoSession) resync(ctx context.Context) error {
	if s.state == "" {
		return s.change(ctx, "POST", "/repos/resync", nil)
	}
	if s.cmd.NArg() > 0 || s.file != "" {
		return command.UsageError(errors.New("give either DIDs or --state, not both"))
	}
	var dids []string
	_, err := s.pages(ctx, url.Values{"state": {s.state}}, 0, func(line json.RawMessage) error {
		var row didRow
		err := unmarshalRow(line, &row)
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
		return command.UsageError(fmt.Errorf("%s needs DIDs, as arguments or from a file with -f",
			command.Subject(s.cmd)))
	}
	return s.send(ctx, method, path, query, dids)
}

// send sends DIDs in requests of bounded size, and prints the count of each result and the DIDs
// that were rejected.
func (s *repoSession) send(ctx context.Context, method, path string, query url.Values,
	dids []string) error {
	results, rejected := map[string]int64{}, int64(0)
	table := s.NewTable()
	for page := range slices.Chunk(dids, didsMax) {
		rows := make([]any, len(page))
		for i, did := range page {
			rows[i] = didRow{did}
		}
		_, err := s.client.Do(ctx, method, path, query, rows, func(line json.RawMessage) error {
			var row outcomeRow
			if err := unmarshalRow(line, &row); err != nil {
				return err
			}
			switch {
			case row.Message == "" && row.Result != notFound:
				results[row.Result]++
			case rejected == 0:
				table.Add("DID", "ERROR")
				fallthrough
			default:
				rejected++
				table.Add(row.DID, cmp.Or(row.Message, row.Result))
			}
			return s.printJSON(line)
		})
		if err != nil {
			return err
		}
	}
	if !s.json {
		for _, result := range slices.Sorted(maps.Keys(results)) {
			fmt.Fprintf(s.Stdout, "%s %s\n", humanize.Comma(results[result]), console.Printable(result))
		}
		if rejected == 0 && len(results) == 0 {
			fmt.Fprintln(s.Stdout, "no repositories")
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if rejected > 0 {
		return fmt.Errorf("%s refused", console.Count(rejected, "DID"))
	}
	return nil
}

// dids returns the DIDs of the arguments and of the file.
func (s *repoSession) dids() ([]string, error) {
	dids := s.cmd.Args().Slice()
	if s.file == "" {
		return dids, nil
	}
	more, err := s.lines(s.file, "DIDs")
	return append(dids, more...), err
}

func (s *repoSession) ls(ctx context.Context) error {
	if err := command.NoArguments(s.cmd); err != nil {
		return err
	}
	query := url.Values{}
	filters := map[string]string{"state": s.state, "verified": s.verified, "host": s.host}
	for name, value := range filters {
		if value != "" {
			query.Set(name, value)
		}
	}
	more := false
	titles := []string{"DID", "STATE", "STATUS", "RECORDS", "REV", "HOST", "ERROR"}
	err := s.list(titles, "no repositories", func(row func(...string)) (err error) {
		more, err = s.pages(ctx, query, int(s.limit), func(line json.RawMessage) error {
			var r repoRow
			if s.json {
				return s.printJSON(line)
			}
			if err := unmarshalRow(line, &r); err != nil {
				return err
			}
			host := r.PDS
			if u, err := url.Parse(r.PDS); err == nil {
				host = cmp.Or(u.Host, r.PDS)
			}
			row(r.DID, r.State, r.Status, humanize.Comma(r.Records), r.Rev, host, r.Reason)
			return nil
		})
		return err
	})
	if err != nil || s.json || !more {
		return err
	}
	_, err = fmt.Fprintln(s.Stderr, "there are more: --limit 0 lists all")
	return err
}

// pageMax is the largest number of rows that one request asks for.
const pageMax = 1000

// pages calls fn for each matching row, up to limit rows, or for all rows if limit is 0. It reports
// whether there may be more rows.
func (s *repoSession) pages(ctx context.Context, query url.Values, limit int,
	fn func(json.RawMessage) error) (more bool, err error) {
	left := limit
	for {
		size := pageMax
		if limit > 0 {
			size = min(size, left)
		}
		query.Set("limit", strconv.Itoa(size))
		row := func(line json.RawMessage) error {
			left--
			return fn(line)
		}
		next, err := s.client.Do(ctx, "GET", "/repos", query, nil, row)
		if err != nil || next == "" || (limit > 0 && left <= 0) {
			return next != "", err
		}
		query.Set("cursor", next)
	}
}

func (s *repoSession) show(ctx context.Context) error {
	if s.cmd.NArg() != 1 {
		return command.UsageError(fmt.Errorf("%s needs one DID or handle", command.Subject(s.cmd)))
	}
	did, err := s.resolve(ctx, s.cmd.Args().First())
	if err != nil {
		return err
	}
	_, err = s.do(ctx, "GET", "/repos/"+url.PathEscape(did), nil, nil,
		func(line json.RawMessage) error {
			var row struct {
				Reason string
				Error  struct{ Message string }
			}
			if err := unmarshalRow(line, &row); err != nil {
				return err
			}
			var without []string // what the reason says already
			if m := row.Error.Message; m != "" && strings.HasSuffix(row.Reason, m) {
				without = append(without, "error message")
			}
			return writeFields(s.Stdout, "", line, without...)
		})
	return err
}

// resolve returns the DID of an account, for which it asks the daemon if account is a handle.
func (s *repoSession) resolve(ctx context.Context, account string) (did string, err error) {
	if strings.HasPrefix(account, "did:") || !strings.Contains(account, ".") {
		return account, nil
	}
	query := url.Values{"handle": {account}}
	_, err = s.client.Do(ctx, "GET", "/xrpc/com.atproto.identity.resolveHandle", query, nil,
		func(line json.RawMessage) error {
			var answer struct{ DID string }
			err := unmarshalRow(line, &answer)
			did = answer.DID
			return err
		})
	return did, err
}
