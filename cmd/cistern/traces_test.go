package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"cistern/ingest/simnet"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// traceCollector takes spans by OTLP over HTTP.
type traceCollector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*otlp.Span // mu guards
}

func newTraceCollector(t *testing.T) *traceCollector {
	c := &traceCollector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// tracedTask is one trace.
type tracedTask struct {
	root  *otlp.Span
	steps []*otlp.Span // by beginning
}

func (tr *tracedTask) attribute(key string) string {
	for _, a := range tr.root.Attributes {
		if a.Key != key {
			continue
		}
		if n, ok := a.Value.Value.(*common.AnyValue_IntValue); ok {
			return fmt.Sprint(n.IntValue)
		}
		return a.Value.GetStringValue()
	}
	return ""
}

func (tr *tracedTask) names() (names []string) {
	for _, s := range tr.steps {
		names = append(names, s.Name)
	}
	return names
}

// traces returns the traces of a kind whose root has arrived. Every step must be a child of the root,
// within its time, and after the step before.
func (c *traceCollector) traces(t *testing.T, name string) (all []*tracedTask) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	byID := map[string]*tracedTask{}
	for _, s := range c.spans {
		if len(s.ParentSpanId) == 0 && s.Name == name {
			byID[string(s.TraceId)] = &tracedTask{root: s}
			all = append(all, byID[string(s.TraceId)])
		}
	}
	for _, s := range c.spans {
		if tr := byID[string(s.TraceId)]; tr != nil && s != tr.root {
			tr.steps = append(tr.steps, s)
		}
	}
	for _, tr := range all {
		slices.SortStableFunc(tr.steps, func(a, b *otlp.Span) int { return int(a.StartTimeUnixNano) - int(b.StartTimeUnixNano) })
		end := tr.root.StartTimeUnixNano
		for _, s := range tr.steps {
			if string(s.ParentSpanId) != string(tr.root.SpanId) {
				t.Errorf("step %s of %s is not below its root", s.Name, name)
			}
			if s.StartTimeUnixNano < end || s.EndTimeUnixNano < s.StartTimeUnixNano || s.EndTimeUnixNano > tr.root.EndTimeUnixNano {
				t.Errorf("step %s of %s is not within its root, after the step before", s.Name, name)
			}
			end = s.EndTimeUnixNano
		}
	}
	return all
}

// TestTracesRefused: the log of the dashboard says that the collector does not take spans.
func TestTracesRefused(t *testing.T) {
	t.Parallel()
	n, x := startNetwork(t, simnet.Options{Seed: 24, Repos: 2, Hosts: 1}), newTestIndex(t)
	x.start(t, x.args(n, "--mode", "full", "--relay", n.Relay(), "--traces", "http://127.0.0.1:1", "--trace-share", "100"))
	x.await(t, "the log to say so", func() error {
		var o struct{ Log []struct{ Message string } }
		err := x.call(t.Context(), "GET", "/overview", nil, func(b []byte) error { return json.Unmarshal(b, &o) })
		for _, l := range o.Log {
			if strings.HasPrefix(l.Message, "the collector of traces does not take spans") {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("the log has %v", o.Log))
	})
}

// TestTraces: a collector gets the way of a fetch from the queue to the flip, of one that fails, and
// of a commit from the socket to the log.
func TestTraces(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 23, Repos: 6, Hosts: 2})
	n.Host(1).Inject(simnet.Fault{Kind: simnet.ServerError, Count: 1})
	c, x := newTraceCollector(t), newTestIndex(t)
	stop := x.start(t, x.args(n, "--mode", "full", "--relay", n.Relay(), "--traces", c.URL, "--trace-share", "100"))
	x.settle(t, map[string]int64{"synced": 6})
	x.follow(t, n.Relays()...)
	a := n.Accounts()[0]
	var revs []string
	for i := range 5 {
		commit, err := a.Put("com.example.thing/"+a.NextTID(), map[string]any{"$type": "com.example.thing", "n": i})
		if err != nil {
			t.Fatal(err)
		}
		revs = append(revs, commit.Rev)
	}
	x.awaitRevs(t, n.Accounts())
	stop() // sends what waits
	fetched, failed := map[string]bool{}, 0
	for _, tr := range c.traces(t, "fetch") {
		switch tr.attribute("result") {
		case "synced":
			fetched[tr.attribute("did")] = true
			if got := fmt.Sprint(tr.names()); !strings.HasSuffix(got, "request write group flip]") || !strings.HasPrefix(got, "[resolve") {
				t.Errorf("a fetch has the steps %s", got)
			}
			if tr.attribute("rev") == "" || tr.attribute("records") == "" || !strings.HasPrefix(tr.attribute("host"), "http://") {
				t.Errorf("a fetch has the attributes %v", tr.root.Attributes)
			}
		case "transport":
			failed++
			if tr.attribute("error.type") != "transport" || tr.root.Status.GetCode() != otlp.Status_STATUS_CODE_ERROR || tr.root.Status.Message == "" {
				t.Errorf("a fetch that failed has the attributes %v and the status %v", tr.root.Attributes, tr.root.Status)
			}
		}
	}
	if len(fetched) != 6 || failed == 0 {
		t.Errorf("%d repositories have a trace of their fetch, and %d fetches failed", len(fetched), failed)
	}
	applied := map[string]bool{}
	for _, tr := range c.traces(t, "commit") {
		if tr.attribute("did") != a.DID() || tr.attribute("outcome") != "applied" {
			continue
		}
		applied[tr.attribute("rev")] = true
		names := tr.names()
		if names[0] != "queue" || !strings.HasSuffix(fmt.Sprint(names), "verify write sync]") {
			t.Errorf("a commit has the steps %s", names)
		}
		if tr.attribute("records") != "1" || tr.attribute("seq") == "" || !strings.HasPrefix(tr.attribute("host"), "ws://") {
			t.Errorf("a commit has the attributes %v", tr.root.Attributes)
		}
	}
	for _, rev := range revs {
		if !applied[rev] {
			t.Errorf("commit %s has no trace", rev)
		}
	}
	x.wantStore(t, n.Accounts())
}
