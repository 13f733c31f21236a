package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/console"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/dustin/go-humanize"
	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// tour shows what the demo's index holds, and how to query it.
type tour struct {
	daemon  *daemon
	network *simnet.Network
	term    *console.Terminal
	out     io.Writer
	started time.Time
	program string
	exit    bool
}

const (
	// tourLines bounds the lines of an answer that are shown.
	tourLines = 24
	// tourWriteEvery is the time between two writes of accounts, and tourWait bounds the wait for
	// the first event.
	tourWriteEvery = 300 * time.Millisecond
	tourWait       = 20 * time.Second
	// tourBodyMax bounds an answer.
	tourBodyMax = 1 << 20
)

// Run prints the report and then waits until ctx ends, unless exit is set. Meanwhile accounts of
// the network write. Run ends early if the report cannot be written.
func (t *tour) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(ctx)
	var writers errgroup.Group
	err := t.present(ctx, func() { writers.Go(func() error { return t.write(writing) }) })
	stop()
	return errors.Join(err, writers.Wait())
}

func (t *tour) present(ctx context.Context, startWriting func()) error {
	err := t.report(ctx, startWriting)
	switch {
	case ctx.Err() != nil || errors.Is(err, syscall.EPIPE):
		return nil
	case err != nil || t.exit:
		return err
	}
	if err := t.outlook(); err != nil {
		return err
	}
	<-ctx.Done()
	_, err = fmt.Fprintln(t.out, "\nStopped.")
	return err
}

func (t *tour) report(ctx context.Context, startWriting func()) error {
	s, err := t.indexed(ctx)
	if err != nil {
		return err
	}
	if err := t.summary(s, time.Since(t.started)); err != nil {
		return err
	}
	for i, q := range t.questions() {
		if err := t.ask(ctx, i+1, q); err != nil {
			return err
		}
	}
	return t.live(ctx, len(t.questions())+1, startWriting)
}

func (t *tour) summary(s sample, took time.Duration) error {
	counts := t.daemon.store.Counts()
	sizes, err := t.daemon.store.Sizes()
	if err != nil {
		return err
	}
	var disk int64
	for _, n := range sizes {
		disk += n
	}
	rate := int64(float64(s.records) / took.Seconds())
	rows := [][2]string{
		{"repositories", repositories(s)},
		{"records", humanize.Comma(s.records)},
		{"events", humanize.Comma(counts["events"]) + ", replayable from any id"},
		{"time", fmt.Sprintf("%.1f s, %s records/s", took.Seconds(), humanize.Comma(rate))},
		{"disk", fmt.Sprintf("%s in %s", humanize.IBytes(uint64(disk)), t.daemon.cfg.Data)},
	}
	refusal, err := t.refusal()
	if err != nil {
		return err
	}
	if refusal != "" {
		rows = append(rows, [2]string{"refused", refusal})
	}
	return t.facts("Indexed", rows)
}

// facts prints names and values under a heading.
func (t *tour) facts(heading string, rows [][2]string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n", t.paint(console.Bold, heading))
	for _, r := range rows {
		fmt.Fprintf(&b, "  %s %s\n", t.paint(console.Dim, fmt.Sprintf("%-13s", r[0])),
			command.Page("{{wrap . 16}}", r[1], t.term.Columns()-1))
	}
	_, err := io.WriteString(t.out, b.String())
	return err
}

// repositories counts the repositories by their outcome.
func repositories(s sample) string {
	text := humanize.Comma(s.done) + " complete and verified"
	return strings.Join(append([]string{text}, s.failures()...), ", ")
}

// refusal returns why some repository was refused, "" if none was refused.
func (t *tour) refusal() (string, error) {
	refused := func(r *store.Repo) bool { return r.Retry.Kind == store.Generic }
	rows, _, err := t.daemon.store.Repos("", 1, refused)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return console.Printable(rows[0].Retry.Error), nil
}

// question is an example query with the text that introduces it.
type question struct {
	about   string
	private bool // sent to the private listener
	path    string
	query   [][2]string
}

func (t *tour) questions() []question {
	a, collection, rkey := t.example()
	if a == nil {
		return nil
	}
	did := a.DID()
	host := strings.TrimPrefix(a.Host().URL(), "http://")
	return []question{
		{about: "One record, as its author signed it", path: "/xrpc/com.atproto.repo.getRecord",
			query: [][2]string{{"repo", did}, {"collection", collection}, {"rkey", rkey}}},
		{about: "The newest records of a collection, by the handle of the account",
			path:  "/xrpc/com.atproto.repo.listRecords",
			query: [][2]string{{"repo", a.Handle()}, {"collection", collection}, {"limit", "2"}}},
		{about: "The size of the index, from exact counters", path: "/stats"},
		{about: "The host of that account, with its limits and failures", private: true,
			path: "/hosts/" + host},
	}
}

// example returns a record to show, a post if there is one, and its account, nil without a record.
func (t *tour) example() (of *simnet.Account, collection, rkey string) {
	const favourite = "app.bsky.feed.post/"
	for _, a := range t.network.Accounts() {
		paths := a.Paths()
		i := slices.IndexFunc(paths, func(p string) bool { return strings.HasPrefix(p, favourite) })
		if i < 0 && len(paths) > 0 {
			i = 0
		}
		if i >= 0 {
			collection, rkey, _ = strings.Cut(paths[i], "/")
			return a, collection, rkey
		}
	}
	return nil, "", ""
}

// ask prints a question as a command, and the answer of the index.
func (t *tour) ask(ctx context.Context, number int, q question) error {
	listener := t.daemon.public
	if q.private {
		listener = t.daemon.admin
	}
	base := "http://" + listener.Addr().String() + q.path
	command := "curl " + base
	values := url.Values{}
	for i, p := range q.query {
		if i == 0 {
			command = "curl -sG " + base
		}
		command += " \\\n      -d " + p[0] + "=" + p[1]
		values.Set(p[0], p[1])
	}
	answer, err := httpGet(ctx, base+"?"+values.Encode())
	if err != nil {
		return fmt.Errorf("example %d: %w", number, err)
	}
	return t.show(number, q.about, command, answer)
}

// show prints a command and its answer.
func (t *tour) show(number int, about, command string, answer []byte) error {
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, answer, "", "  "); err != nil {
		return fmt.Errorf("example %d: %w", number, err)
	}
	var b strings.Builder
	title := t.paint(console.Bold, fmt.Sprintf("%d. %s", number, about))
	fmt.Fprintf(&b, "\n%s\n\n  $ %s\n\n", title, t.paint(console.Cyan, command))
	lines := strings.Split(strings.TrimRight(pretty.String(), "\n"), "\n")
	for i, line := range lines {
		if i == tourLines && len(lines) > tourLines+1 {
			more := fmt.Sprintf("… %d more lines", len(lines)-i)
			fmt.Fprintf(&b, "  %s\n", t.paint(console.Dim, more))
			break
		}
		line = console.Printable(line)
		if console.IsTerminal(t.out) {
			line = console.Clip(line, t.term.Columns()-3)
		}
		fmt.Fprintf(&b, "  %s\n", line)
	}
	_, err := io.WriteString(t.out, b.String())
	return err
}

// live starts the writes of the accounts, and shows the first event that they cause.
func (t *tour) live(ctx context.Context, number int, startWriting func()) error {
	ctx, cancel := context.WithTimeout(ctx, tourWait)
	defer cancel()
	address := fmt.Sprintf("ws://%s/stream", t.daemon.public.Addr())
	conn, _, err := websocket.DefaultDialer.DialContext(ctx, address, nil)
	if err != nil {
		return fmt.Errorf("example %d: %w", number, err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer conn.Close()
	conn.SetReadLimit(tourBodyMax)
	startWriting()
	_, event, err := conn.ReadMessage()
	if err != nil {
		return fmt.Errorf("example %d: no event within %s: %w", number, tourWait, err)
	}
	return t.show(number, "Live events, as accounts write", "websocat "+address, event)
}

// write changes records of the accounts in turn, until ctx ends.
func (t *tour) write(ctx context.Context) error {
	tick := time.NewTicker(tourWriteEvery)
	defer tick.Stop()
	for {
		for _, a := range t.network.Accounts() {
			if _, err := a.Mutate(1); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}
}

// httpGet sends a request to a listener of the daemon.
func httpGet(ctx context.Context, target string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: tourWait}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, tourBodyMax))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", target, res.Status, console.Clip(string(body), 200))
	}
	return body, err
}

// outlook prints what else the user can try.
func (t *tour) outlook() error {
	public, admin := t.daemon.public.Addr().String(), t.daemon.admin.Addr().String()
	program := cmp.Or(t.program, "cistern")
	return t.facts("Serving until Ctrl-C", [][2]string{
		{"public", "http://" + public},
		{"PLC", t.network.PLC() + " (simulated; /DID has the document of an account)"},
		{"private", "http://" + admin + " (a dashboard; /repos, /hosts, /filter, /metrics)"},
		{"every event", program + " tail --cursor 0 --url " + public + ", a few more each second"},
		{"failing", program + " repo ls --state resync --admin " + admin},
	})
}

func (t *tour) paint(color, text string) string {
	if !console.IsTerminal(t.out) {
		return text
	}
	return t.term.Paint(color, text)
}
