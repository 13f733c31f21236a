package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/copies"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// copyItem is a copy as GET /copies shows it. Times are "set" or empty.
type copyItem struct {
	Kind, Destination       string
	Running                 int
	Since, Ended, Succeeded string
	Generation              string
	Bytes                   int64
	Error                   string
	Failures                int
}

// copies returns the answer of GET /copies, which must be that of /overview.
func (w *world) copies(t testing.TB) []copyItem {
	t.Helper()
	var answer, overview struct{ Copies []copyItem }
	w.show(t, "/copies", &answer)
	w.show(t, "/overview", &overview)
	for _, all := range [][]copyItem{answer.Copies, overview.Copies} {
		for i := range all {
			for _, at := range []*string{&all[i].Since, &all[i].Ended, &all[i].Succeeded} {
				if *at != "" {
					*at = "set"
				}
			}
		}
	}
	if diff := cmp.Diff(answer, overview); diff != "" {
		t.Error(diff)
	}
	return answer.Copies
}

// show reads the answer of a path of the private listener.
func (w *world) show(t testing.TB, path string, to any) {
	t.Helper()
	res, err := http.Get(w.admin.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	err = json.NewDecoder(res.Body).Decode(to)
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	if err != nil || res.StatusCode != 200 {
		t.Fatal(path, res.Status, err)
	}
}

// sendJSON sends a body, and returns the status and the text of the answer.
func (w *world) sendJSON(t testing.TB, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.admin.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// borrow asks for a checkpoint, and returns the id of its copy. end ends the request.
func (w *world) borrow(t testing.TB, body string) (id string, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", w.admin.URL+"/checkpoint", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	end = func() { cancel(); res.Body.Close() }
	t.Cleanup(end)
	line, err := bufio.NewReader(res.Body).ReadBytes('\n')
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res.Status, string(line), err)
	}
	var row struct{ ID string }
	if err := json.Unmarshal(line, &row); err != nil {
		t.Fatal(err)
	}
	return row.ID, end
}

// idle waits until no more than most copies are under way.
func (w *world) idle(t testing.TB, most int) []copyItem {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		var answer struct{ Copies []copyItem }
		w.show(t, "/copies", &answer) // a copy may end before /overview is read
		running := 0
		for _, c := range answer.Copies {
			running += c.Running
		}
		if running <= most {
			return w.copies(t)
		}
		if time.Now().After(end) {
			t.Fatalf("under way: %+v", answer.Copies)
		}
	}
}

// report reports a result, and wants a status and a part of the answer.
func (w *world) report(t testing.TB, id, body string, status int, says string) {
	t.Helper()
	got, text := w.sendJSON(t, "PUT", "/copies/"+id+"/result", body)
	if got != status || !strings.Contains(text, says) {
		t.Errorf("%.80s: %d %s, want %d %q", body, got, text, status, says)
	}
}

const (
	backupBody = `{"kind":"backup","destination":"s3://backups/a"}`
	exportBody = `{"kind":"export","destination":"/exports"}`
)

// TestCopies: a copy is shown while it is under way, then with its result, and as failed if its command
// is killed. An export and two backups at once are apart.
func TestCopies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	want := func(got []copyItem, all ...copyItem) {
		t.Helper()
		if diff := cmp.Diff(all, got, cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
	want(w.copies(t))
	first, endFirst := w.borrow(t, backupBody)
	second, endSecond := w.borrow(t, backupBody)
	_, endThird := w.borrow(t, exportBody)
	old, endOld := w.borrow(t, ``) // an older command states nothing
	if old != "" {
		t.Errorf("a checkpoint without a statement has the id %q", old)
	}
	backup := copyItem{Kind: "backup", Destination: "s3://backups/a", Running: 2, Since: "set"}
	export := copyItem{Kind: "export", Destination: "/exports", Running: 1, Since: "set"}
	want(w.copies(t), backup, export)

	w.report(t, second, `{"complete":false,"error":"the destination is locked"}`, 200, "saved")
	backup.Running, backup.Ended, backup.Error, backup.Failures = 1, "set", "the destination is locked", 1
	want(w.copies(t), backup, export)
	w.report(t, second, `{"complete":true}`, 404, "has a result already")
	endSecond()
	w.report(t, first, `{"complete":true,"generation":"g1","bytes":7}`, 200, "saved")
	backup = copyItem{Kind: "backup", Destination: "s3://backups/a", Ended: "set", Succeeded: "set", Generation: "g1", Bytes: 7}
	want(w.copies(t), backup, export)
	endFirst()
	endOld()
	endThird() // killed
	export = copyItem{Kind: "export", Destination: "/exports", Ended: "set", Error: copies.Gone, Failures: 1}
	want(w.idle(t, 0), backup, export)

	wantNotes := func(n int) {
		t.Helper()
		var overview struct{ Verdict struct{ Notes []string } }
		call(t, "GET", w.admin.URL+"/overview", "", nil, &overview)
		notes := slices.DeleteFunc(overview.Verdict.Notes, func(note string) bool { return !strings.Contains(note, "backup by command") })
		if len(notes) != n || n > 0 && !strings.Contains(notes[0], "s3://backups/a failed") {
			t.Errorf("%q, want %d notes about backups", notes, n)
		}
	}
	wantNotes(0) // an export failed
	third, end := w.borrow(t, backupBody)
	end()
	backup.Error, backup.Failures = copies.Gone, 1
	want(w.idle(t, 0), backup, export)
	w.report(t, third, `{"complete":true}`, 404, "its request for a checkpoint has ended")
	wantNotes(1)
}

// TestHostileCopies: what a command sends is bounded and checked, lends no checkpoint and changes no
// result if it is refused.
func TestHostileCopies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{Checkpoint: func(context.Context) (*store.Checkpoint, error) {
		return nil, fmt.Errorf("it is lent: %w", store.ErrCheckpoints)
	}})
	long := strings.Repeat("a", 1025)
	for _, row := range []struct {
		body   string
		status int
		says   string
	}{
		{backupBody, 409, "it is lent"},
		{`{}`, 409, "it is lent"},
		{`{"kind":"restore","destination":"/b"}`, 400, `kind \"restore\": want backup or export`},
		{`{"destination":"/b"}`, 400, "want backup or export"},
		{`{"kind":"backup"}`, 400, "needs a destination"},
		{`{"kind":"backup","destination":7}`, 400, "destination is a number"},
		{`{"kind":"backup","destination":"` + long + `"}`, 400, "at most 1024"},
		{`{"kind":"backup","destination":"/b\u001b[2J"}`, 400, "U+001B"},
		{`{"kind":"backup","destination":"s3://id:hunter22@b"}`, 400, "without credentials"},
		{`{"kind":"backup","destination":"/b","dir":"/etc"}`, 400, "unknown field"},
		{`[]`, 400, "want a JSON object"},
		{backupBody + `{}`, 400, "goes on"},
		{`{"kind":"` + strings.Repeat("a", 9<<10) + `"}`, 413, "longer than"},
	} {
		status, text := w.sendJSON(t, "POST", "/checkpoint", row.body)
		if status != row.status || !strings.Contains(text, row.says) || strings.Contains(text, "hunter22") {
			t.Errorf("%.80s: %d %s, want %d %q", row.body, status, text, row.status, row.says)
		}
	}
	if all := w.copies(t); len(all) > 0 {
		t.Errorf("copies %+v", all)
	}

	w = newWorldOn(t, storetest.Open(t, store.Options{}), api.Options{})
	id, _ := w.borrow(t, backupBody)
	for _, row := range []struct {
		body   string
		status int
		says   string
	}{
		{``, 400, "want a JSON object"},
		{`{}`, 400, "needs an error"},
		{`{"complete":"yes"}`, 400, "complete is a string"},
		{`{"complete":true,"bytes":-1}`, 400, "bytes -1"},
		{`{"complete":true,"bytes":1e30}`, 400, "bytes is a number"},
		{`{"complete":true,"generation":"` + long + `"}`, 400, "generation has 1025 bytes"},
		{`{"complete":false,"generation":"g","error":"e"}`, 400, "neither a generation nor bytes"},
		{`{"error":"` + long + `"}`, 400, "error has 1025 bytes"},
		{`{"error":"a\nb"}`, 400, "U+000A"},
		{`{"error":"` + strings.Repeat("a", 9<<10) + `"}`, 413, "longer than"},
	} {
		w.report(t, id, row.body, row.status, row.says)
	}
	w.report(t, "x%2F..", `{"complete":true}`, 404, "no copy")
	if status, text := w.sendJSON(t, "POST", "/copies/"+id+"/result", `{"complete":true}`); status != 405 {
		t.Errorf("POST: %d %s", status, text)
	}
	res, err := http.Post(w.admin.URL+"/checkpoint", "text/plain", strings.NewReader(backupBody))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 415 {
		t.Errorf("a form of a web page: %s", res.Status)
	}
	if all := w.copies(t); len(all) != 1 || all[0].Running != 1 || all[0].Ended != "" {
		t.Errorf("refused results changed %+v", all)
	}
	w.report(t, id, `{"complete":true,"generation":"g","bytes":1}`, 200, "saved")
}
