package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/cmd/cistern/command"
	"cistern/ingest"
	"cistern/ingest/firehose"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/gorilla/websocket"
)

// childVariable makes this test binary run the daemon instead of a test, either a hasty one or the
// one that ships.
const (
	childVariable = "CISTERNTEST_CHILD"
	childAsShips  = childVariable + "=ships"
	childPrunes   = childVariable + "=prunes"   // its log, several times a second
	childOffloads = childVariable + "=offloads" // small segments, until it dies as dieVariable says
	dieVariable   = "CISTERNTEST_DIE"
	childGreedy   = childVariable + "=greedy" // no daemon, but a client of one
)

func TestMain(m *testing.M) {
	switch os.Getenv(childVariable) {
	case "":
		os.Exit(m.Run())
	case "greedy":
		beGreedy(os.Args[1], os.Args[2:])
	}
	a := &app{Process: command.Process{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Exit: os.Exit}, tune: hasty()}
	switch os.Getenv(childVariable) {
	case "ships":
		a.tune = tuning{top: panicAt(os.Getenv(panicVariable)), check: holdWhile(os.Getenv(holdVariable))}
	case "offloads":
		offloads(&a.tune, os.Getenv(dieVariable))
	case "syncs":
		a.tune = tuning{store: timedSyncs}
	case "prunes":
		usual := a.tune.store
		a.tune.store = func(o *store.Options) {
			usual(o)
			o.PruneEvery = 100 * time.Millisecond
		}
	}
	a.Environ = os.Environ()
	os.Exit(command.ExitCode(a.run(context.Background(), os.Args[1:]), os.Stderr))
}

// hasty makes small worlds take the paths of large ones: groups of a few repositories that are
// ingested as tables, and retries within the time of a test.
func hasty() tuning {
	return tuning{
		store:    func(o *store.Options) { o.GroupAge, o.SmallBytes = 25*time.Millisecond, 8<<10 },
		backfill: func(o *backfill.Options) { o.RetryBase, o.RetryMax = 200*time.Millisecond, time.Second },
		firehose: func(o *firehose.Options) {
			o.RetryBase, o.RetryMax, o.ReconcileEvery = 20*time.Millisecond, 200*time.Millisecond, 50*time.Millisecond
		},
		ingest: func(o *ingest.Options) { o.RefetchBase = 200 * time.Millisecond },
	}
}

// testIndex is a daemon under test, seen from outside.
type testIndex struct {
	dir, public, admin string
	token              string // of the private listener, if it has one
}

func newTestIndex(t *testing.T) *testIndex {
	return &testIndex{dir: t.TempDir(), public: freeAddress(t), admin: freeAddress(t)}
}

// freeAddress returns an address that no process listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := simnet.Listen()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// args returns the command line of the daemon.
func (x *testIndex) args(n *simnet.Network, more ...string) []string {
	return append([]string{"run", "--data", x.dir, "--listen", x.public, "--admin", x.admin, "--plc", n.PLC(),
		"--allow-private", "--disk-reserve", "0", "--log-level", "warn"}, more...)
}

// start runs the daemon in this process. stop ends it as a signal would.
func (x *testIndex) start(t *testing.T, args []string) (stop func()) {
	t.Helper()
	return x.startTuned(t, args, hasty())
}

func (x *testIndex) startTuned(t *testing.T, args []string, tune tuning) (stop func()) {
	t.Helper()
	var stderr bytes.Buffer
	a := &app{Process: command.Process{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &stderr, Exit: os.Exit}, tune: tune}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // explain asks it at the end
	result := make(chan error, 1)
	go func() { result <- a.run(ctx, args) }()
	stop = func() {
		t.Helper()
		cancel()
		err := <-result // the daemon bounds the time that it takes to stop, and fails if it takes longer
		result <- nil
		if err != nil {
			t.Errorf("run: %v\n%s", err, &stderr)
		}
	}
	t.Cleanup(stop)
	t.Cleanup(func() { x.explain(t, &stderr) })
	x.await(t, "the daemon to answer", func() error {
		select {
		case err := <-result:
			result <- nil
			t.Fatalf("run: %v\n%s", err, &stderr)
		default:
		}
		_, err := x.counts(t.Context())
		return err
	})
	return stop
}

// explain logs the state of a daemon that still runs after a failure.
func (x *testIndex) explain(t *testing.T, stderr *bytes.Buffer) {
	if !t.Failed() {
		return
	}
	ctx := context.WithoutCancel(t.Context())
	for _, path := range []string{"/firehose/sources", "/metrics"} {
		_ = x.call(ctx, "GET", path, nil, func(b []byte) error {
			for line := range strings.Lines(string(b)) {
				if path != "/metrics" || strings.HasPrefix(line, "cistern_ingest") && !strings.HasSuffix(line, " 0\n") {
					t.Log(strings.TrimSpace(line))
				}
			}
			return nil
		})
	}
	t.Logf("%s", stderr)
}

// startDaemon runs a daemon that newDaemon returned.
func startDaemon(t *testing.T, d *daemon, result chan<- error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	go func() { result <- d.run(ctx) }()
	t.Cleanup(cancel)
	return cancel
}

// patience decides how long to wait. It ends when the awaited state has not changed for a while: a
// busy machine slows everything, but stops nothing.
type patience struct {
	limit time.Duration
	state string
	until time.Time
}

// ends reports whether the state has been the same for the limit.
func (p *patience) ends(state ...any) bool {
	now := time.Now()
	if s := fmt.Sprint(state...); s != p.state || p.until.IsZero() {
		p.state, p.until = s, now.Add(p.limit)
	}
	return now.After(p.until)
}

// await polls until f returns no error, as long as its errors change.
func (x *testIndex) await(t *testing.T, what string, f func() error) {
	t.Helper()
	x.awaitFor(t, time.Minute, what, f)
}

func (x *testIndex) awaitFor(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	p := patience{limit: limit}
	for {
		err := f()
		if err == nil {
			return
		}
		if p.ends(err) {
			t.Fatalf("nothing changed for %s while waiting for %s: %v", limit, what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (x *testIndex) counts(ctx context.Context) (map[string]int64, error) {
	var stats struct{ Counts map[string]int64 }
	return stats.Counts, x.call(ctx, "GET", "/stats", nil, func(b []byte) error { return json.Unmarshal(b, &stats) })
}

// call sends a request to the private listener.
func (x *testIndex) call(ctx context.Context, method, path string, dids []string, fn func([]byte) error) error {
	var body bytes.Buffer
	for _, did := range dids {
		fmt.Fprintf(&body, "{\"did\":%q}\n", did)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+x.admin+path, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	if x.token != "" {
		req.Header.Set("Authorization", "Bearer "+x.token)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return errors.Join(err, fmt.Errorf("%s %s: %s %s", method, path, res.Status, answer))
	}
	if fn != nil {
		err = fn(answer)
	}
	return err
}

// settle waits until every named count is as wanted and nothing is pending or in flight.
func (x *testIndex) settle(t *testing.T, want map[string]int64) {
	t.Helper()
	want = maps.Clone(want)
	want["pending"], want["syncing"], want["draining"], want["resync"] = 0, 0, 0, 0
	x.await(t, fmt.Sprint(want), func() error {
		counts, err := x.counts(t.Context())
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if err == nil && counts[name] != want[name] {
				err = fmt.Errorf("%s is %d of %v", name, counts[name], counts)
			}
		}
		return err
	})
}

// frame is one event as it arrived, and the fields that tests look at.
type frame struct {
	raw    []byte
	ID     uint64
	Type   string
	Record struct {
		DID, Rev, Collection, Rkey, Action, CID string
		Live                                    bool
		Record                                  json.RawMessage
	}
	Account struct {
		DID    string
		Active bool
		Status string
	}
	Identity       struct{ DID string }
	Repo           struct{ DID, State string }
	Error, Message string
}

func (f *frame) did() string { return f.Record.DID + f.Account.DID + f.Identity.DID + f.Repo.DID }

// everyKind is the parameter of a stream that gives events of all kinds.
const everyKind = "&kinds=record,account,identity,repo"

// stream calls fn for the events of all kinds from cursor on, until fn stops it, the connection breaks or ctx
// ends.
func (x *testIndex) stream(ctx context.Context, cursor uint64, fn func(frame) (more bool, err error)) error {
	dialer := websocket.Dialer{HandshakeTimeout: 10 * time.Second}
	conn, res, err := dialer.DialContext(ctx, fmt.Sprintf("ws://%s/stream?cursor=%d", x.public, cursor)+everyKind, nil)
	if err != nil {
		if res != nil {
			text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
			err = fmt.Errorf("%w: %s %s", err, res.Status, text)
		}
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	for {
		_, raw, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		f := frame{raw: raw}
		if err := json.Unmarshal(raw, &f); err != nil {
			return fmt.Errorf("frame %s: %w", raw, err)
		}
		if more, err := fn(f); err != nil || !more {
			return err
		}
	}
}

// replay reads the whole log up to its current head.
func (x *testIndex) replay(t *testing.T) []frame {
	t.Helper()
	return x.replayFrom(t, 0)
}

// replayFrom reads the log from an id on, up to its current head.
func (x *testIndex) replayFrom(t *testing.T, cursor uint64) []frame {
	t.Helper()
	head := x.head(t)
	var frames []frame
	if head == 0 || head < cursor {
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	idle := time.AfterFunc(time.Minute, cancel)
	defer idle.Stop()
	err := x.stream(ctx, cursor, func(f frame) (bool, error) {
		if f.Type == "error" {
			return false, fmt.Errorf("%s: %s", f.Error, f.Message)
		}
		frames = append(frames, f)
		idle.Reset(time.Minute)
		return f.ID < head, nil
	})
	if err != nil {
		t.Fatalf("replay to %d: %v", head, err)
	}
	return frames
}

// fold is the state of a consumer of the stream: did → path → CID.
type fold map[string]map[string]string

// apply fails on an event that does not follow from those before it.
func (f fold) apply(e frame) error {
	if e.Type == "account" && !e.Account.Active {
		delete(f, e.Account.DID)
	}
	if e.Type != "record" {
		return nil
	}
	r := e.Record
	path := r.Collection + "/" + r.Rkey
	held, known := f[r.DID][path]
	switch {
	case r.Action == "create" && known, r.Action != "create" && !known, r.Action == "update" && held == r.CID:
		return fmt.Errorf("event %d: %s of %s/%s %s when it is %q", e.ID, r.Action, r.DID, path, r.CID, held)
	case r.Action == "delete":
		delete(f[r.DID], path)
		return nil
	}
	if f[r.DID] == nil {
		f[r.DID] = map[string]string{}
	}
	f[r.DID][path] = r.CID
	return nil
}

// wantTruth compares the state of a consumer with the network.
func (f fold) wantTruth(t *testing.T, accounts []*simnet.Account) {
	t.Helper()
	for _, a := range accounts {
		truth := a.Truth()
		held := f[truth.DID]
		n := 0
		if truth.Status != simnet.Active {
			truth.Records = nil
		}
		for path, cid := range truth.Records {
			if _, _, ok := repo.SplitPath([]byte(path)); !ok {
				continue // hidden
			}
			n++
			if held[path] != cid.String() {
				t.Errorf("%s/%s: the stream leaves %q, want %s", truth.DID, path, held[path], cid)
			}
		}
		if len(held) != n {
			t.Errorf("%s: the stream leaves %d records, want %d", truth.DID, len(held), n)
		}
	}
}

// wantLog replays the whole log, in which each event must follow from those before it, and compares
// what it leaves with the network.
func (x *testIndex) wantLog(t *testing.T, accounts []*simnet.Account) {
	t.Helper()
	got := fold{}
	for _, f := range x.replay(t) {
		if err := got.apply(f); err != nil {
			t.Error(err)
		}
	}
	got.wantTruth(t, accounts)
}

// wantStore checks the store of a stopped daemon and compares it with the network, byte for byte.
func (x *testIndex) wantStore(t *testing.T, accounts []*simnet.Account) {
	t.Helper()
	s, err := openForCheck(x.dir, newLogger(io.Discard, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, err := s.Check(t.Context(), func(d string) { t.Errorf("difference: %s", d) }); n != 0 || err != nil {
		t.Errorf("check: %d differences, %v", n, err)
	}
	for _, a := range accounts {
		if err := wantRepo(s, a); err != nil {
			t.Errorf("%s: %v", a.DID(), err)
		}
	}
}

// errFewer means that a repository lacks records, and that the records it has are right.
var errFewer = errors.New("records are missing")

// wantRepo compares one repository.
func wantRepo(s *store.Store, a *simnet.Account) error {
	truth := a.Truth()
	row, err := s.Repo(truth.DID)
	if err != nil {
		return err
	}
	if row.Status.String() != string(truth.Status) || row.Handle != truth.Handle || row.PDS != truth.Host {
		return fmt.Errorf("%s, handle %s at %s, want %s, %s at %s", row.Status, row.Handle, row.PDS, truth.Status, truth.Handle, truth.Host)
	}
	switch {
	case truth.Status != simnet.Active && row.State != store.StateGone:
		return fmt.Errorf("%s is %s", truth.Status, row.State)
	case truth.Status == simnet.Deleted && (row.Ordinal != 0 || row.Records != 0):
		return fmt.Errorf("deleted, and holds %d records", row.Records)
	case truth.Status != simnet.Active:
		return nil
	}
	if row.State != store.StateSynced || row.Rev != truth.Rev || row.Data != truth.Data {
		return fmt.Errorf("%s at %s %s, want synced at %s %s (%s)", row.State, row.Rev, row.Data, truth.Rev, truth.Data, row.Retry.Error)
	}
	if len(truth.Records) == 0 {
		return nil
	}
	rows, err := s.Rows(row.Ordinal)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		path, cid := string(rows.Row().Path), rows.Row().CID
		if truth.Records[path] != cid {
			return fmt.Errorf("%s is %s, want %s", path, cid, truth.Records[path])
		}
		n++
		collection, rkey, _ := strings.Cut(path, "/")
		if rows.Row().Hidden {
			continue
		}
		r, err := s.Record(&row, collection, rkey)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !bytes.Equal(r.Record, a.Record(path)) {
			return fmt.Errorf("%s has other bytes", path)
		}
	}
	if n != len(truth.Records) {
		return fmt.Errorf("%d records: %w of %d", n, errFewer, len(truth.Records))
	}
	return nil
}

// startNetwork starts a network for a test.
func startNetwork(t *testing.T, o simnet.Options) *simnet.Network {
	t.Helper()
	n, err := simnet.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.Start(t.Context()), n.Build(t.Context())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// records returns how many records of accounts an index should hold.
func records(accounts []*simnet.Account) int64 {
	var n int64
	for _, a := range accounts {
		if t := a.Truth(); t.Status != simnet.Deleted {
			n += int64(len(t.Records))
		}
	}
	return n
}

// active returns how many accounts are active.
func active(accounts []*simnet.Account) int64 {
	var n int64
	for _, a := range accounts {
		if a.Truth().Status == simnet.Active {
			n++
		}
	}
	return n
}
