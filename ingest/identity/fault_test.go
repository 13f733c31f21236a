package identity_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/alert"
	"cistern/ingest/identity"
)

const (
	firstPLC  = "https://first.example"
	secondPLC = "https://second.example"
)

// request is one that a PLC directory gets.
type request struct {
	base  string
	did   string
	at    time.Duration // since the start
	count int           // of the requests to it until now
}

// reply is an answer about the DID of a request.
type reply struct {
	status int           // 0: none before the request is given up
	wait   string        // Retry-After
	after  time.Duration // how long the directory takes to answer
}

// observer runs a Directory, and an alert board with the usual graces, in a synctest bubble.
type observer struct {
	t      *testing.T
	start  time.Time
	d      *identity.Directory
	board  *alert.Board
	dids   int
	answer func(request) reply
	turns  []string // of alerts
	faults bool     // whether there was one, also without an alert

	// mu guards:
	mu    sync.Mutex
	asked map[string]int
}

// observe runs a story with PLC directories that answer as answer says. Run probes meanwhile.
func observe(t *testing.T, bases []string, answer func(request) reply, story func(*observer)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &observer{t: t, start: time.Now(), answer: answer, asked: map[string]int{},
			board: alert.NewBoard(alert.DefaultPolicies())}
		o.d = newDirectory(t, identity.Options{PLC: bases, Timeout: 2 * time.Second})
		identity.WrapTransport(o.d, func(http.RoundTripper) http.RoundTripper { return o })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- o.d.Run(ctx) }()
		story(o)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// RoundTrip answers a request to a directory.
func (o *observer) RoundTrip(req *http.Request) (*http.Response, error) {
	base := req.URL.Scheme + "://" + req.URL.Host
	r := request{base, strings.TrimPrefix(req.URL.Path, "/"), time.Since(o.start), o.count(base)}
	a := o.answer(r)
	var answered <-chan time.Time
	if a.status != 0 {
		answered = time.After(a.after)
	}
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case <-answered:
	}
	return &http.Response{StatusCode: a.status, Request: req,
		Header: http.Header{"Content-Type": {"application/json"}, "Retry-After": {a.wait}},
		Body:   io.NopCloser(strings.NewReader(`{"id":"` + r.did + `"}`))}, nil
}

// count counts a request to a directory.
func (o *observer) count(base string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked[base]++
	return o.asked[base]
}

// account returns the DID of an account.
func account(n int) string {
	return "did:plc:" + strings.Map(func(c rune) rune { return 'a' + c - '0' }, fmt.Sprintf("%024d", n))
}

// lookUp looks up an account that is not cached.
func (o *observer) lookUp(ctx context.Context) error {
	o.dids++
	_, err := o.d.Resolve(ctx, account(o.dids))
	return err
}

// watch looks at the alerts every 10 seconds until an instant, and looks up an account at every
// multiple of a time, 0 for never.
func (o *observer) watch(until, every time.Duration) {
	for at := time.Since(o.start).Truncate(10 * time.Second); at < until; at += 10 * time.Second {
		// Seconds later than probes, which begin with a full minute and may take two seconds.
		time.Sleep(time.Until(o.start.Add(at + 3*time.Second)))
		if every > 0 && at%every == 0 {
			_ = o.lookUp(o.t.Context())
		}
		var failures []alert.Failure
		for _, f := range o.d.Faults() {
			failures = append(failures, alert.Failure{Kind: alert.Directory, Name: f.Base, Since: f.Since,
				Attempts: f.Attempts, Error: f.Error})
			o.faults = true
		}
		for _, s := range o.board.Look(time.Now(), failures) {
			o.turns = append(o.turns, fmt.Sprintf("%s %s %s", at, s.Name, s.Now))
		}
	}
}

// want compares the turns of alerts, with their times, with those given.
func (o *observer) want(turns ...string) {
	o.t.Helper()
	if !slices.Equal(o.turns, turns) {
		o.t.Errorf("turns %q, want %q", o.turns, turns)
	}
}

// TestAlertOfADirectory: when a PLC directory alerts that fails in a steady way.
func TestAlertOfADirectory(t *testing.T) {
	t.Parallel()
	const never = 0
	all := func(request) bool { return true }
	every := func(n int) func(request) bool { return func(r request) bool { return r.count%n == 1 } }
	first := func(n int) func(request) bool { return func(r request) bool { return r.count <= n } }
	minutes := func(n int64) func(request) bool {
		return func(r request) bool { return int64(r.at/time.Minute)%n == 0 }
	}
	exists := func(r request) bool { return r.did != "did:plc:"+strings.Repeat("a", 24) }
	for name, c := range map[string]struct {
		reply reply // if it fails; else it has a document
		fails func(request) bool
		every time.Duration // of lookups, after one at the start
		alert time.Duration // never: not within two hours
		grace bool          // it has a fault, but no alert
	}{
		"silence":           {reply{}, all, time.Minute, 11 * time.Minute, false},
		"errors":            {reply{status: 500}, all, time.Minute, 11 * time.Minute, false},
		"errors and probes": {reply{status: 500}, all, never, 11*time.Minute + 30*time.Second, false},
		// The answers between failures do not hide an alert.
		"every second request": {reply{status: 500}, every(2), 10 * time.Second, 10*time.Minute + 40*time.Second, false},
		"every second probe":   {reply{status: 500}, every(2), never, 13 * time.Minute, false},
		"every second minute":  {reply{status: 500}, minutes(2), 10 * time.Second, 10*time.Minute + 20*time.Second, false},
		"every tenth request":  {reply{status: 500}, every(10), 10 * time.Second, never, false},
		// An answer that a DID does not exist is no sign that one which exists would be found.
		"those that exist":            {reply{status: 500}, exists, time.Minute, 11 * time.Minute, false},
		"those that exist and probes": {reply{status: 500}, exists, never, 11*time.Minute + 30*time.Second, false},
		// These say nothing about the directory, or not enough.
		"no such account": {reply{status: 404}, all, 10 * time.Second, never, false},
		"tombstones":      {reply{status: 410}, all, 10 * time.Second, never, false},
		"three requests":  {reply{status: 500}, first(3), 10 * time.Second, never, false},
		"three probes":    {reply{status: 500}, first(3), never, never, false},
		"a minute of 20":  {reply{status: 500}, minutes(20), 10 * time.Second, never, true},
		// Lookups that are only delayed are made in the end.
		"429 to every second request": {reply{status: 429}, every(2), 10 * time.Second, never, false},
		"429 but for a minute of 5": {reply{status: 429},
			func(r request) bool { return r.at/time.Minute%5 != 0 }, 10 * time.Second, 11*time.Minute + 30*time.Second, false},
		"429":               {reply{status: 429}, all, time.Minute, 11*time.Minute + 30*time.Second, false},
		"429 for 5 minutes": {reply{status: 429, wait: "300"}, all, time.Minute, 11*time.Minute + 30*time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			answer := func(r request) reply {
				if c.fails(r) {
					return c.reply
				}
				return reply{status: 200}
			}
			observe(t, []string{firstPLC}, answer, func(o *observer) {
				_ = o.lookUp(o.t.Context())
				o.watch(2*time.Hour, c.every)
				if o.faults != (c.alert != never || c.grace) {
					t.Errorf("a fault: %v", o.faults)
				}
				if c.alert == never {
					o.want()
				} else {
					o.want(fmt.Sprint(c.alert, " ", firstPLC, " alert"))
				}
			})
		})
	}
}

// fails answers 500 to requests, and else with a document.
func fails(when func(request) bool) func(request) reply {
	return func(r request) reply {
		if when(r) {
			return reply{status: 500}
		}
		return reply{status: 200}
	}
}

// TestAlertOfADirectoryEnds: an alert ends once lookups have succeeded for some minutes, also if
// nothing is looked up, and not before.
func TestAlertOfADirectoryEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		every time.Duration // of lookups
		ends  time.Duration
	}{
		"lookups of many accounts": {10 * time.Second, 26*time.Minute + 30*time.Second},
		"probes only":              {0, 26*time.Minute + 30*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			outage := func(r request) bool { return r.at < 20*time.Minute }
			observe(t, []string{firstPLC}, fails(outage), func(o *observer) {
				_ = o.lookUp(o.t.Context())
				o.watch(20*time.Minute, c.every)
				o.turns = nil
				o.watch(2*time.Hour, c.every)
				o.want(fmt.Sprint(c.ends, " ", firstPLC, " ok"))
				if all := o.d.Faults(); len(all) > 0 {
					t.Errorf("faults at the end: %+v", all)
				}
			})
		})
	}
}

// TestAlertOfADirectoryStays: five minutes in which all requests succeed do not end an alert.
func TestAlertOfADirectoryStays(t *testing.T) {
	outage := func(r request) bool { return r.at%(390*time.Second) < 90*time.Second }
	observe(t, []string{firstPLC}, fails(outage), func(o *observer) {
		o.watch(2*time.Hour, 10*time.Second)
		o.want("10m30s " + firstPLC + " alert")
	})
}

// TestAlertOfOneDirectory: of two PLC directories only the one alerts that fails, first or second.
func TestAlertOfOneDirectory(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{firstPLC, secondPLC} {
		t.Run(bad, func(t *testing.T) {
			answer := func(r request) reply {
				switch {
				case r.base == bad:
					return reply{status: 500}
				case r.base == firstPLC:
					return reply{status: 404} // so that the second one is asked
				}
				return reply{status: 200}
			}
			observe(t, []string{firstPLC, secondPLC}, answer, func(o *observer) {
				o.watch(2*time.Hour, 10*time.Second)
				o.want("10m30s " + bad + " alert")
			})
		})
	}
}

// TestFaultOfOneAccount: an account whose lookup fails each time is no fault of a PLC directory which
// has the document of another one. Without that it is: nothing shows that the directory works.
func TestFaultOfOneAccount(t *testing.T) {
	t.Parallel()
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprint("known ", known), func(t *testing.T) {
			bad := func(r request) bool { return !known || r.did == account(2) }
			observe(t, []string{firstPLC}, fails(bad), func(o *observer) {
				_ = o.lookUp(o.t.Context())
				for range 10 {
					_, _ = o.d.Resolve(o.t.Context(), account(2))
					o.watch(time.Since(o.start)+3*time.Minute, 0)
				}
				if o.faults == known {
					t.Errorf("a fault: %v", o.faults)
				}
			})
		})
	}
}

// TestStoppedLookupsAreNoFaults: lookups that the caller stops are no faults, as at the end of a daemon.
func TestStoppedLookupsAreNoFaults(t *testing.T) {
	silent := func(request) reply { return reply{} }
	observe(t, []string{firstPLC}, silent, func(o *observer) {
		for range 100 {
			ctx, cancel := context.WithTimeout(o.t.Context(), time.Second)
			if err := o.lookUp(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a lookup that was stopped: %v", err)
			}
			cancel()
			o.watch(time.Since(o.start)+10*time.Second, 0)
		}
		if o.faults || o.asked[firstPLC] != 100 {
			t.Errorf("a fault: %v, after %d requests", o.faults, o.asked[firstPLC])
		}
	})
}

// TestFaultCountsRequests: a fault counts the requests of the last five minutes, names the newest
// error, and says when few requests fail again.
func TestFaultCountsRequests(t *testing.T) {
	outage := func(r request) bool { return r.count%2 == 0 && r.at < 10*time.Minute }
	observe(t, []string{"https://user:secret@first.example"}, fails(outage), func(o *observer) {
		o.watch(10*time.Minute, 10*time.Second)
		all := o.d.Faults()
		if len(all) != 1 || all[0].Base != "https://user:xxxxx@first.example" || all[0].Failed*2 != all[0].Asked ||
			all[0].Asked != 40 || all[0].Attempts < 39 || all[0].Error != "HTTP 500 from first.example" || all[0].Well {
			t.Errorf("faults %+v", all)
		}
		o.watch(15*time.Minute, 10*time.Second)
		if all := o.d.Faults(); len(all) != 1 || !all[0].Well || all[0].Failed*10 >= all[0].Asked {
			t.Errorf("faults when all is well again %+v", all)
		}
	})
}
