package api_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/api"
	"cistern/logbook"
	"cistern/maintain"
)

// rowless keeps nothing.
type rowless struct{}

func (rowless) Load() ([]maintain.Row, error) { return nil, nil }
func (rowless) Save(maintain.Row) error       { return nil }

// operated returns a world with a coordinator that runs: long runs until its context ends or next
// gets what it returns, and bad fails.
// readURL returns the body of an answer.
func readURL(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func operated(t *testing.T) (w *world, begun chan struct{}, next chan error) {
	begun, next = make(chan struct{}, 10), make(chan error)
	c, err := maintain.New(maintain.Options{Keeper: rowless{}, Operations: []maintain.Operation{
		{Name: "long", Space: maintain.Consumes, Run: func(ctx context.Context, p *maintain.Progress) error {
			p.Set(3, 10)
			p.Item("an item", 1, 2)
			begun <- struct{}{}
			select {
			case err := <-next:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}},
		{Name: "bad", Every: time.Hour, Run: func(context.Context, *maintain.Progress) error { return errors.New("it is bad") }},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); run.Wait() })
	book := logbook.New()
	return newWorld(t, api.Options{Maintenance: c, Journal: book, Logger: slog.New(book.Handler(slog.DiscardHandler))}), begun, next
}

type operation struct {
	Name, State, Waits, Since, Ended, Succeeded, Error, Due string

	Requested bool
	Failures  int
	Progress  *struct {
		Done, Total int64
		Item        string
		ItemDone    int64 `json:"item_done"`
		ItemTotal   int64 `json:"item_total"`
	}
}

func (w *world) operation(t *testing.T, name string) operation {
	t.Helper()
	var answer struct {
		Operations []operation
		DiskShort  string `json:"disk_short"`
	}
	call(t, "GET", w.admin.URL+"/maintenance", "", nil, &answer)
	for _, o := range answer.Operations {
		if o.Name == name {
			return o
		}
	}
	t.Fatalf("no operation %s in %+v", name, answer)
	return operation{}
}

// await looks at an operation until ok holds.
func (w *world) await(t *testing.T, name string, ok func(operation) bool) operation {
	t.Helper()
	for {
		if o := w.operation(t, name); ok(o) || t.Context().Err() != nil {
			return o
		}
		time.Sleep(time.Millisecond)
	}
}

var asJSON = map[string]string{"Content-Type": "application/json"}

func TestMaintenance(t *testing.T) {
	t.Parallel()
	w, begun, next := operated(t)
	do := func(method, path string, status int, result string) {
		t.Helper()
		var answer struct{ Name, Result, Error, Message string }
		res := call(t, method, w.admin.URL+"/maintenance/"+path, "", asJSON, &answer)
		if got := answer.Result + answer.Error; res.StatusCode != status || got != result {
			t.Errorf("%s %s: %d %+v, want %d %s", method, path, res.StatusCode, answer, status, result)
		}
	}
	do("POST", "none", http.StatusNotFound, "NotFound")
	do("DELETE", "none", http.StatusNotFound, "NotFound")
	var refusal struct{ Message string }
	call(t, "POST", w.admin.URL+"/maintenance/backup", "", asJSON, &refusal)
	if !strings.Contains(refusal.Message, "--backup DEST") || !strings.Contains(refusal.Message, "'cistern backup DEST'") {
		t.Errorf("without --backup: %q", refusal.Message)
	}
	do("POST", "long?wait=perhaps", http.StatusBadRequest, "InvalidRequest")
	do("DELETE", "long", http.StatusOK, "idle")
	if res := call(t, "POST", w.admin.URL+"/maintenance/long", "", nil, nil); res.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("without a content type: %s", res.Status)
	}

	do("POST", "long", http.StatusAccepted, "requested")
	<-begun
	o := w.operation(t, "long")
	if p := o.Progress; o.State != "running" || o.Since == "" || p == nil || p.Done != 3 || p.Total != 10 || p.Item != "an item" || p.ItemDone != 1 || p.ItemTotal != 2 {
		t.Errorf("while it runs: %+v", o)
	}
	do("POST", "long", http.StatusAccepted, "requested")
	if o := w.operation(t, "long"); !o.Requested {
		t.Errorf("requested again: %+v", o)
	}
	do("DELETE", "long", http.StatusOK, "cancelled")
	o = w.await(t, "long", func(o operation) bool { return o.State == "idle" })
	if o.Error != "cancelled" || o.Ended == "" || o.Succeeded != "" || o.Failures != 0 {
		t.Errorf("cancelled: %+v", o)
	}

	do("POST", "bad?wait=true", http.StatusInternalServerError, "OperationFailed")
	if o := w.operation(t, "bad"); o.Error != "it is bad" || o.Failures == 0 || o.Due == "" {
		t.Errorf("failed: %+v", o)
	}
	if text := readURL(t, w.admin.URL+"/overview"); !strings.Contains(text, "it is bad") || strings.Contains(text, "internal error") {
		t.Errorf("an operation that failed is an internal error: %s", text)
	}

	var waits sync.WaitGroup
	wait := func(status int, result string) {
		waits.Go(func() { do("POST", "long?wait=true", status, result) })
		<-begun
	}
	wait(http.StatusOK, "done")
	next <- nil
	waits.Wait()
	wait(http.StatusConflict, "Conflict")
	do("DELETE", "long", http.StatusOK, "cancelled")
	waits.Wait()
}

// TestMaintenanceWaiterLeaves: closing the connection takes the request back, and with it the last
// reason for the run, whether or not the request has a body.
func TestMaintenanceWaiterLeaves(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "{}"} {
		testWaiterLeaves(t, body)
	}
}

func testWaiterLeaves(t *testing.T, body string) {
	w, begun, _ := operated(t)
	ctx, leave := context.WithCancel(t.Context())
	var waits sync.WaitGroup
	waits.Go(func() {
		req, err := http.NewRequestWithContext(ctx, "POST", w.admin.URL+"/maintenance/long?wait=true",
			strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Content-Type", "application/json")
		if res, err := http.DefaultClient.Do(req); err == nil {
			t.Errorf("answered with %s", res.Status)
			res.Body.Close()
		}
	})
	<-begun
	leave()
	waits.Wait()
	if o := w.await(t, "long", func(o operation) bool { return o.State == "idle" }); o.Error != "cancelled" {
		t.Errorf("with the body %q: %+v", body, o)
	}
}

// TestNoMaintenance: a server without a coordinator has no operations.
func TestNoMaintenance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	var answer struct{ Operations []operation }
	if res := call(t, "GET", w.admin.URL+"/maintenance", "", nil, &answer); res.StatusCode != http.StatusOK || answer.Operations == nil || len(answer.Operations) > 0 {
		t.Errorf("%s: %+v", res.Status, answer)
	}
	for _, method := range []string{"POST", "DELETE"} {
		if res := call(t, method, w.admin.URL+"/maintenance/prune", "", asJSON, nil); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", method, res.Status)
		}
	}
}

// deadlines records the deadlines of the last connection that was accepted.
type deadlines struct {
	net.Listener
	mu          sync.Mutex
	read, write time.Time // zero: none
	had         bool      // had a deadline to write
}

func (d *deadlines) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	return deadlineConn{c, d}, err
}

// set records deadlines where they are given.
func (d *deadlines) set(read, write *time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if read != nil {
		d.read = *read
	}
	if write != nil {
		d.write, d.had = *write, d.had || !write.IsZero()
	}
}

type deadlineConn struct {
	net.Conn
	d *deadlines
}

func (c deadlineConn) SetDeadline(t time.Time) error { c.d.set(&t, &t); return c.Conn.SetDeadline(t) }
func (c deadlineConn) SetReadDeadline(t time.Time) error {
	c.d.set(&t, nil)
	return c.Conn.SetReadDeadline(t)
}
func (c deadlineConn) SetWriteDeadline(t time.Time) error {
	c.d.set(nil, &t)
	return c.Conn.SetWriteDeadline(t)
}

// TestMaintenanceOutlastsDeadlines: a run may take longer than a usual request and its answer. While it
// is awaited, its connection has no deadline.
func TestMaintenanceOutlastsDeadlines(t *testing.T) {
	t.Parallel()
	w, begun, next := operated(t)
	server := httptest.NewUnstartedServer(w.server.Admin())
	server.Config.ReadTimeout, server.Config.WriteTimeout = time.Hour, time.Hour
	d := &deadlines{Listener: server.Listener}
	server.Listener = d
	server.Start()
	t.Cleanup(server.Close)
	var wait sync.WaitGroup
	wait.Go(func() {
		var answer struct{ Result string }
		if call(t, "POST", server.URL+"/maintenance/long?wait=true", "{}", asJSON, &answer); answer.Result != "done" {
			t.Errorf("%+v", answer)
		}
	})
	<-begun
	d.mu.Lock()
	if !d.had || !d.read.IsZero() || !d.write.IsZero() {
		t.Errorf("deadlines to read %s and to write %s; had deadlines: %t", d.read, d.write, d.had)
	}
	d.mu.Unlock()
	next <- nil
	wait.Wait()
}
