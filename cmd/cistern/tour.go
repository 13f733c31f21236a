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

	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// tour shows a visitor what the demo's index holds and how to ask it.
type tour struct {
	daemon  *daemon
	network *simnet.Network
	term    *terminal
	out     io.Writer
	started time.Time
	program string
	exit    bool
}

const (
	// tourLines is how much of an answer is shown.
	tourLines = 20
	// tourWriteEvery is how often an account writes, and tourWait how long the first event may take.
	tourWriteEvery = 300 * time.Millisecond
	tourWait       = 20 * time.Second
	// tourBodyMax bounds an answer.
	tourBodyMax = 1 << 20
	// tourColumns is the width of the report, where that of the terminal is not known.
	tourColumns = 100
)

// Run reports, and then waits for ctx to end, or not, while the accounts of the network write. It ends early
// when nobody reads on.
func (t *tour) Run(ctx context.Context) error {
	writing, stop := context.WithCancel(ctx)
	var writers errgroup.Group
	err := t.tell(ctx, func() { writers.Go(func() error { return t.write(writing) }) })
	stop()
	return errors.Join(err, writers.Wait())
}

func (t *tour) tell(ctx context.Context, startWriting func()) error {
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
		{"records", thousands(s.records)},
		{"events", fmt.Sprintf("%s, replayable from any id", thousands(counts["events"]))},
		{"time", fmt.Sprintf("%.1f s, %s records/s", took.Seconds(), thousands(rate))},
		{"disk", fmt.Sprintf("%s in %s", bytesText(uint64(disk)), t.daemon.cfg.Data)},
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
	fmt.Fprintf(&b, "\n%s\n\n", t.paint(bold, heading))
	for _, r := range rows {
		fmt.Fprintf(&b, "  %s %s\n", t.paint(dim, fmt.Sprintf("%-13s", r[0])), wrapAt(r[1], 16, t.columns()-1))
	}
	_, err := io.WriteString(t.out, b.String())
	return err
}

// repositories says how they stand.
func repositories(s sample) string {
	text := thousands(s.done) + " complete and verified"
	for _, e := range errorKinds(s) {
		text += fmt.Sprintf(", %s %s", thousands(e.n), e.name)
	}
	return text
}

// refusal says of one repository that failed why, if there is one.
func (t *tour) refusal() (string, error) {
	rows, _, err := t.daemon.store.Repos("", 1, func(r *store.Repo) bool { return r.Retry.Kind == store.Generic })
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return printable(rows[0].Retry.Error), nil
}

// question is an example query with the words that introduce it.
type question struct {
	about   string
	private bool // asked of the private listener
	path    string
	query   [][2]string
}

func (t *tour) questions() []question {
	did, collection, rkey := t.example()
	return []question{
		{about: "One record, as its author signed it", path: "/xrpc/com.atproto.repo.getRecord",
			query: [][2]string{{"repo", did}, {"collection", collection}, {"rkey", rkey}}},
		{about: "The newest of a collection", path: "/xrpc/com.atproto.repo.listRecords",
			query: [][2]string{{"repo", did}, {"collection", collection}, {"limit", "2"}}},
		{about: "How much there is, from exact counters", path: "/stats"},
		{about: "Whom Cistern asks, how much, and who refuses", private: true, path: "/hosts", query: [][2]string{{"limit", "1"}}},
	}
}

// example is a record to show: a post if there is one.
func (t *tour) example() (did, collection, rkey string) {
	const favourite = "app.bsky.feed.post/"
	for _, a := range t.network.Accounts() {
		paths := a.Paths()
		i := slices.IndexFunc(paths, func(p string) bool { return strings.HasPrefix(p, favourite) })
		if i < 0 && len(paths) > 0 {
			i = 0
		}
		if i >= 0 {
			collection, rkey, _ = strings.Cut(paths[i], "/")
			return a.DID(), collection, rkey
		}
	}
	return "", "", ""
}

// ask prints a question as a command and the answer it really gets.
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
	answer, err := fetch(ctx, base+"?"+values.Encode())
	if err != nil {
		return fmt.Errorf("example %d: %w", number, err)
	}
	return t.show(number, q.about, command, answer)
}

// show prints a command, and what it answers.
func (t *tour) show(number int, about, command string, answer []byte) error {
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, answer, "", "  "); err != nil {
		return fmt.Errorf("example %d: %w", number, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n\n  $ %s\n\n", t.paint(bold, fmt.Sprintf("%d. %s", number, about)), t.paint(cyan, command))
	lines := strings.Split(strings.TrimRight(pretty.String(), "\n"), "\n")
	for i, line := range lines {
		if i == tourLines && len(lines) > tourLines+1 {
			fmt.Fprintf(&b, "  %s\n", t.paint(dim, fmt.Sprintf("… %d more lines", len(lines)-i)))
			break
		}
		fmt.Fprintf(&b, "  %s\n", clip(printable(line), t.columns()-3))
	}
	_, err := io.WriteString(t.out, b.String())
	return err
}

// live has the accounts write, and shows the first event that comes of it.
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
	return t.show(number, "What accounts write, as it happens", "websocat "+address, event)
}

// write lets one account after the other change a record until ctx ends.
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

// fetch asks our own listener.
func fetch(ctx context.Context, target string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, tourBodyMax))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", target, res.Status, clip(string(body), 200))
	}
	return body, err
}

// outlook says what else there is to try.
func (t *tour) outlook() error {
	public, admin := t.daemon.public.Addr(), t.daemon.admin.Addr()
	return t.facts("Serving until Ctrl-C", [][2]string{
		{"public", fmt.Sprintf("http://%s", public)},
		{"private", fmt.Sprintf("http://%s (/repos, /hosts, /filter, /metrics, /debug/pprof/)", admin)},
		{"every event", fmt.Sprintf("websocat 'ws://%s/stream?cursor=0', and a few more each second", public)},
		{"failing", fmt.Sprintf("%s repo ls --state resync --admin %s", cmp.Or(t.program, "cistern"), admin)},
	})
}

func (t *tour) columns() int {
	if t.term.live() {
		return t.term.columns()
	}
	return tourColumns
}

func (t *tour) paint(color, text string) string {
	if !isTerminal(t.out) {
		return text
	}
	return t.term.paint(color, text)
}
