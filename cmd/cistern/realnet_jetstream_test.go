//go:build realnet

// The comparison by way of published clients of Jetstream, which follow Cistern unchanged.

package main_test

import (
	"bufio"
	"bytes"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// realClient is what a published client that applies all events in turn holds.
type realClient struct {
	name string

	mu      sync.Mutex
	records map[string]map[string]realRecord // mu guards
	handles map[string]string                // mu guards
	last    int64                            // mu guards: time of the newest event
	events  int                              // mu guards
	wrong   []string                         // mu guards
}

type jetstreamEvent struct {
	Error  string
	DID    string
	TimeUS int64 `json:"time_us"`
	Kind   string
	Commit struct {
		Operation, Collection, RKey, CID string
		Record                           any
	}
	Identity struct{ Handle string }
	Account  struct{ Active bool }
}

// follow starts a client. It ends with the test.
func (x *realIndex) follow(t *testing.T, name string, cursor int64, collections ...string) *realClient {
	t.Helper()
	c := &realClient{name: name, records: map[string]map[string]realRecord{}, handles: map[string]string{}}
	cmd := x.hosts.command(t, append([]string{"jetstream.mjs", name, "ws://" + x.public, fmt.Sprint(cursor)}, collections...)...)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var g errgroup.Group
	g.Go(func() error {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			var ev jetstreamEvent
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
			t.Errorf("%s: %v", name, err)
		}
		cmd.Wait()
		for _, wrong := range c.wrong {
			t.Errorf("%s: %s", name, wrong)
		}
		t.Logf("%s got %d events", name, c.events)
	})
	return c
}

func (c *realClient) apply(ev *jetstreamEvent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events++
	path := ev.Commit.Collection + "/" + ev.Commit.RKey
	switch {
	case ev.Error != "":
		c.wrong = append(c.wrong, ev.Error)
	case ev.TimeUS < c.last: // the newest event comes again after a reconnect
		c.wrong = append(c.wrong, fmt.Sprintf("%s of %s at %d comes after one at %d", ev.Kind, ev.DID, ev.TimeUS, c.last))
	case ev.Kind == "identity":
		c.handles[ev.DID] = ev.Identity.Handle
	case ev.Kind == "account" && !ev.Account.Active:
		delete(c.records, ev.DID)
	case ev.Kind == "commit" && ev.Commit.Operation == "delete":
		delete(c.records[ev.DID], path)
	case ev.Kind == "commit":
		put(c.records, ev.DID, path, realRecord{ev.Commit.CID, ev.Commit.Record})
	}
	c.last = max(c.last, ev.TimeUS)
}

// differs returns how the records of active accounts differ from those of their hosts.
func (c *realClient) differs(want realTruth) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for did, account := range want.accounts {
		if !account.Active {
			continue
		}
		for path, record := range want.records[did] {
			if got, ok := c.records[did][path]; !ok || !reflect.DeepEqual(got, record) {
				return fmt.Errorf("%s has %v at %s %s, want %v", c.name, got, did, path, record)
			}
		}
		if got, wanted := len(c.records[did]), len(want.records[did]); got != wanted {
			return fmt.Errorf("%s has %d records of %s, want %d", c.name, got, did, wanted)
		}
	}
	for did, records := range c.records {
		if !want.accounts[did].Active && len(records) > 0 {
			return fmt.Errorf("%s has %d records of %s, which is not active", c.name, len(records), did)
		}
	}
	return nil
}

func (c *realClient) handle(did string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handles[did]
}

// TestRealnetJetstream has @skyware/jetstream and @atcute/jetstream follow Cistern from the
// beginning, through a backfill, live changes and a restart, until they hold exactly the records of
// the PDSes, or those of the collections that they want.
func TestRealnetJetstream(t *testing.T) {
	hosts := startRealHosts(t)
	hosts.node(t, "seed.mjs", fmt.Sprint(realAccounts), fmt.Sprint(realRecords))
	index := newRealIndex(t, hosts)
	index.follows, index.stays = true, true
	began := time.Now().UnixMicro()
	index.start(t)
	const follows = "app.bsky.graph.follow"
	clients := []*realClient{
		index.follow(t, "skyware", 1), index.follow(t, "atcute", began),
		index.follow(t, "skyware", began, "app.bsky.graph.*"), index.follow(t, "atcute", 1, follows),
	}
	same := func(want realTruth) {
		t.Helper()
		index.waitTruth(t, want)
		some := want.wanted(follows, follows)
		eventually(t, streamLimit, func() error {
			for i, c := range clients {
				truth := want
				if i >= 2 {
					truth = some
				}
				if err := c.differs(truth); err != nil {
					return err
				}
			}
			return nil
		})
	}
	same(hosts.truth(t))
	index.waitFollowing(t)
	hosts.mutate(t, "create u000 1", "create u001 3", "delete u001 "+follows, "update u002", "batch u004", "handle u005 renamed005.test",
		"deactivate u006", "takedown u007", "deleteaccount u008")
	same(hosts.truth(t))
	renamed := hosts.did(t, "u005")
	eventually(t, streamLimit, func() error {
		for _, c := range clients {
			if got := c.handle(renamed); got != "renamed005.test" && got != "handle.invalid" {
				return fmt.Errorf("%s has handle %q", c.name, got)
			}
		}
		return nil
	})

	index.stop(t) // the clients connect again by themselves, and go on at their cursors
	hosts.mutate(t, "activate u006", "untakedown u007", "create u006 1", "create u000 2", "update u010", "batch u011")
	index.start(t)
	end := hosts.truth(t)
	same(end)
	late := index.follow(t, "atcute", began)
	eventually(t, streamLimit, func() error { return late.differs(end) })
	index.stop(t)
	index.check(t)
}
