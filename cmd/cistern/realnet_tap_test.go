//go:build realnet

// The comparison by way of the published client of tap, which consumes Cistern unchanged.

package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
)

// tapEvent is a line of tap.mjs.
type tapEvent struct {
	Error                                    string
	Answer                                   json.RawMessage
	ID                                       uint64
	Type, DID, Action, Collection, RKey, CID string
	Record                                   any
	Handle, Status                           string
	IsActive                                 bool
}

// tapClient is a client of tap that consumes Cistern through a cutter.
type tapClient struct {
	*realClient
	cutter   *cutter
	in       io.Writer
	answers  chan json.RawMessage
	statuses map[string]string // mu guards: of inactive accounts
}

// consume starts a client. It ends with the test.
func (x *realIndex) consume(t *testing.T) *tapClient {
	t.Helper()
	c := &tapClient{realClient: &realClient{name: "tap", records: map[string]map[string]realRecord{}, handles: map[string]string{}},
		cutter: newCutter(t, x.admin), answers: make(chan json.RawMessage, 1), statuses: map[string]string{}}
	cmd := x.hosts.command(t, "tap.mjs", "http://"+c.cutter.address(), "any password")
	in, err := cmd.StdinPipe()
	must(t, err)
	c.in = in
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var g errgroup.Group
	g.Go(func() error {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var ev tapEvent
			if err := decodeJSON(bytes.NewReader(lines.Bytes()), &ev); err != nil {
				return err
			}
			c.apply(&ev)
		}
		return lines.Err()
	})
	t.Cleanup(func() {
		in.Close() // its signal to stop
		if err := g.Wait(); err != nil {
			t.Errorf("tap: %v", err)
		}
		cmd.Wait()
		for _, wrong := range c.wrong {
			t.Errorf("tap: %s", wrong)
		}
		t.Logf("tap got %d events", c.events)
	})
	return c
}

func (c *tapClient) apply(ev *tapEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events++
	path := ev.Collection + "/" + ev.RKey
	switch {
	case ev.Error != "":
		c.wrong = append(c.wrong, ev.Error)
	case ev.Answer != nil:
		c.answers <- ev.Answer
	case ev.Type == "identity":
		c.handles[ev.DID] = ev.Handle
		if delete(c.statuses, ev.DID); !ev.IsActive {
			c.statuses[ev.DID] = ev.Status
			delete(c.records, ev.DID)
		}
	case ev.Action == "delete":
		delete(c.records[ev.DID], path)
	default:
		put(c.records, ev.DID, path, realRecord{ev.CID, ev.Record})
	}
}

// ask sends a request by the client, and decodes the answer.
func (c *tapClient) ask(t *testing.T, what, did string, answer any) {
	t.Helper()
	_, err := fmt.Fprintf(c.in, "{%q:%q}\n", what, did)
	must(t, err)
	must(t, json.Unmarshal(<-c.answers, answer))
}

// cutter passes connections on to an address, until they are cut.
type cutter struct {
	listener net.Listener
	to       string

	mu   sync.Mutex
	open map[net.Conn]bool // mu guards
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &cutter{listener: l, to: to, open: map[net.Conn]bool{}}
	var g errgroup.Group
	g.Go(func() error {
		for {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			g.Go(func() error { return c.pass(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.cut()
		g.Wait()
	})
	return c
}

func (c *cutter) address() string { return c.listener.Addr().String() }

// pass passes a connection on in both directions.
func (c *cutter) pass(client net.Conn) error {
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return client.Close() // as without a listener
	}
	c.mu.Lock()
	c.open[client], c.open[server] = true, true
	c.mu.Unlock()
	var g errgroup.Group
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		g.Go(func() error {
			_, err := io.Copy(pair[0], pair[1])
			return errors.Join(err, client.Close(), server.Close())
		})
	}
	err = g.Wait()
	c.mu.Lock()
	delete(c.open, client)
	delete(c.open, server)
	c.mu.Unlock()
	return err
}

// cut breaks all connections, and returns how many there were.
func (c *cutter) cut() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
	}
	return len(c.open) / 2
}

// TestRealnetTap has @atproto/tap consume Cistern from the beginning, through a backfill, live
// changes, a cut connection and a restart, until it holds exactly the records of the PDSes. The
// connection is cut while the client has nothing to handle: this version waits for ever for an
// acknowledgement that it could not send.
func TestRealnetTap(t *testing.T) {
	hosts := startRealHosts(t)
	hosts.node(t, "seed.mjs", fmt.Sprint(realAccounts), fmt.Sprint(realRecords))
	index := newRealIndex(t, hosts)
	index.follows, index.stays = true, true
	index.start(t)
	client := index.consume(t)
	same := func(want realTruth) {
		t.Helper()
		index.waitTruth(t, want)
		eventually(t, streamLimit, func() error {
			if err := client.differs(want); err != nil {
				return err
			}
			var left struct {
				N int64 `json:"outbox_buffer"`
			}
			if err := getJSON("http://"+index.admin+"/stats/outbox-buffer", nil, &left); err != nil || left.N > 0 {
				return fmt.Errorf("%d events are left, %v", left.N, err)
			}
			return nil
		})
	}
	same(hosts.truth(t))
	index.waitFollowing(t)
	hosts.mutate(t, "create u000 1", "create u001 3", "delete u001 app.bsky.graph.follow", "update u002", "batch u004", "handle u005 renamed005.test",
		"deactivate u006", "takedown u007", "deleteaccount u008")
	changed := hosts.truth(t)
	same(changed)
	eventually(t, streamLimit, func() error {
		client.mu.Lock()
		defer client.mu.Unlock()
		for name, status := range map[string]string{"u006": "deactivated", "u007": "takendown", "u008": "deleted"} {
			if got := client.statuses[hosts.did(t, name)]; got != status {
				return fmt.Errorf("%s is %q, want %s", name, got, status)
			}
		}
		if got := client.handles[hosts.did(t, "u005")]; got != "renamed005.test" {
			return fmt.Errorf("the handle is %q", got)
		}
		return nil
	})
	client.requests(t, hosts, changed)

	if client.cutter.cut() == 0 {
		t.Fatal("there is no connection to cut")
	}
	hosts.mutate(t, "create u009 2", "update u003")
	same(hosts.truth(t))

	index.stop(t) // the client connects again by itself
	hosts.mutate(t, "activate u006", "untakedown u007", "create u006 1", "create u000 2", "update u010", "batch u011")
	index.start(t)
	same(hosts.truth(t))
	index.kill()
	hosts.mutate(t, "create u012 3", "update u013")
	index.start(t)
	same(hosts.truth(t))
	index.stop(t)
	index.check(t)
}

// requests checks the client's other requests.
func (c *tapClient) requests(t *testing.T, hosts *realHosts, truth realTruth) {
	t.Helper()
	did := hosts.did(t, "u000")
	var info struct {
		DID, Handle, State, Rev string
		Records                 int
	}
	account := truth.accounts[did]
	c.ask(t, "info", did, &info)
	if info.DID != did || info.State != "active" || info.Rev != account.Rev || info.Records != len(truth.records[did]) || info.Handle == "" {
		t.Errorf("info is %+v, want that of %+v", info, account)
	}
	var doc struct {
		ID      string
		Service []struct{ ServiceEndpoint string }
	}
	c.ask(t, "resolve", did, &doc)
	if doc.ID != did || len(doc.Service) != 1 || !slices.Contains(hosts.PDS, doc.Service[0].ServiceEndpoint) {
		t.Errorf("the document is %+v, want one with a host of %v", doc, hosts.PDS)
	}
	var none any
	if c.ask(t, "resolve", "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", &none); none != nil {
		t.Errorf("the document of an unknown DID is %v", none)
	}
	c.ask(t, "add", did, &none)
}
