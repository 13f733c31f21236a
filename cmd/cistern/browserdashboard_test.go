//go:build browser

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"cistern/alert"
	"cistern/api/names"
	"cistern/backfill"
	"cistern/chart"
	"cistern/condition"
	"cistern/ingest/simnet"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestBrowser looks at the dashboard of a running daemon with faults, as an operator does.
func TestBrowser(t *testing.T) {
	b := startBrowser(t)
	n := startNetwork(t, simnet.Options{Seed: 41, Repos: 60, Hosts: 4})
	broken := n.Accounts()[7].Host()
	broken.Inject(simnet.Fault{Kind: simnet.ServerError})
	var bad, good []*simnet.Account
	for i, a := range n.Accounts() {
		switch {
		case a.Host() == broken: // they are queued, or wait to be tried again
		case i%6 == 0:
			a.Host().Inject(simnet.Fault{Kind: simnet.BadSignature, DID: a.DID()})
			bad = append(bad, a)
		default:
			good = append(good, a)
		}
	}
	x := newTestIndex(t)
	x.token = "open&sesame!"
	m := &machine{free: 500e6, now: time.Now(), stalled: map[condition.Resource]float64{}}
	tune := m.tune()
	tune.backfill = func(o *backfill.Options) { o.RetryBase, o.RetryMax = time.Hour, time.Hour }
	tune.alerts = func(o *alert.Options) { o.Every = 100 * time.Millisecond }
	tune.charts = func(o *chart.Options) { o.Step = 250 * time.Millisecond }
	tune.names = func(o *names.Options) { o.DNS = nameServer(n) }
	dead := "ws://" + freeAddress(t)
	x.startTuned(t, []string{"run", "--data", x.dir, "--listen", x.public, "--admin", x.admin, "--plc", n.PLC(), "--allow-private",
		"--log-level", "error", "--admin-token", x.token, "--disk-reserve", "100MB", "--crawl", "repos::" + n.Relay(),
		"--relay", n.Relay(), "--pds", dead, "--alert-after", "source=0", "--backfill-hours", "0-24"}, tune)
	x.await(t, "the good repositories", func() error {
		counts, err := x.counts(t.Context())
		if err == nil && (counts["synced"] != int64(len(good)) || counts["error_generic"] != int64(len(bad))) {
			err = fmt.Errorf("%v", counts)
		}
		return err
	})
	b.view(t, 1280, 900, "light")
	b.login(t, x)
	t.Run("figures", func(t *testing.T) { b.figures(t, x, strings.TrimPrefix(broken.URL(), "http://"), dead) })
	t.Run("shifts", func(t *testing.T) { b.shifts(t, x, m, good) })
	t.Run("screens", func(t *testing.T) { b.screenshots(t, x) })
	t.Run("repositories", func(t *testing.T) { b.repositories(t, x, bad[0], good[0].DID(), len(bad)) })
	t.Run("subscriptions", func(t *testing.T) { b.subscriptions(t, x) })
	t.Run("maintenance", func(t *testing.T) { b.maintenance(t, x, good[0].Host()) })
	t.Run("keyboard", func(t *testing.T) { b.keyboard(t, x, bad[1].DID()) })
	b.wantErrors(t)
	b.do(t, click("#logout button"), visible("#token"))
	b.do(t, open("http://"+x.admin+"/", "#token"))
	b.wantErrors(t)
}

// login gives a wrong token, and then the right one. Neither is ever in a URL.
func (b *browser) login(t *testing.T, x *testIndex) {
	t.Helper()
	address := func(want string) {
		t.Helper()
		if at := get[string](t, b, "location.href"); at != "http://"+x.admin+want {
			t.Errorf("the address is %s, want %s", at, want)
		}
	}
	b.do(t, open("http://"+x.admin+"/", "#token"))
	address("/login")
	b.screen(t, "login")
	b.do(t, enter("#token", "wrong"), visible(".failed"))
	address("/login")
	b.wantErrors(t, "403")
	b.do(t, enter("#token", x.token), visible("body[data-loaded] #tiles"))
	address("/")
	if cookies := get[string](t, b, "document.cookie"); cookies != "" {
		t.Errorf("scripts can read the cookie: %s", cookies)
	}
	b.wantErrors(t)
}

// compare compares the counts that the page shows with those of /stats.
func (b *browser) compare(t *testing.T, x *testIndex) (err error) {
	counts, err := x.counts(t.Context())
	if err != nil {
		return err
	}
	shown := get[map[string]string](t, b, `({ repos: repos.textContent, records: records.textContent, queue: queue.textContent, failing: failing.textContent,
		...Object.fromEntries([...document.querySelectorAll("#states [data-count]")].map((e) => [e.dataset.count, e.closest("tr").lastChild.textContent])) })`)
	wants := map[string]int64{"queue": counts["pending"], "failing": counts["resync"]}
	for _, name := range []string{"repos", "records", "synced", "pending", "draining", "resync", "gone", "idle", "syncing", "behind", "lacking", "returning"} {
		wants[name] = counts[name]
	}
	for _, kind := range []string{"ratelimited", "transport", "generic"} {
		wants[kind] = counts["error_"+kind]
	}
	for name, want := range wants {
		if got := strings.ReplaceAll(shown[name], ",", ""); got != strconv.FormatInt(want, 10) {
			err = errors.Join(err, fmt.Errorf("%s: the page shows %q, /stats %d", name, shown[name], want))
		}
	}
	return err
}

// figures compares what the page shows with /stats, and looks for the faults.
func (b *browser) figures(t *testing.T, x *testIndex, host, dead string) {
	x.await(t, "the figures of /stats", func() error { return b.compare(t, x) })
	b.await(t, x, "the dead source to alert", `document.querySelector("#alerts tbody").textContent.includes("source")`)
	for selector, wants := range map[string][]string{
		"#verdict":           {"1 problem"},
		"#attention tbody":   {"problem", "alert: source " + dead, "connection refused"},
		"#alerts tbody":      {"alert", dead, "dial: "},
		"#sources tbody":     {"connected", "failing", strings.TrimPrefix(dead, "ws://"), "dial: "},
		"#sources-count":     {"1 of 2 connected"},
		"#hosts tbody":       {host, "parked", "at a time", "503"},
		"#conditions tbody":  {"disk", "hours", "ok"},
		"#maintenance tbody": {"prune", "compact", "Run"},
		"#disk-count":        {"in all"},
		"#forecast":          {"477 MiB of"},
		"#log":               {"serving", "data="},
		"#about":             {"up "},
		"#charts":            {"Throughput", "Lag behind the firehoses", "Disk"},
	} {
		text := b.text(t, selector)
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q: %s", selector, want, text)
			}
		}
	}
	if drawn := get[int](t, b, `document.querySelectorAll("#charts canvas").length`); drawn != 6 {
		t.Errorf("%d charts are drawn", drawn)
	}
}

// shifts lets every part of the page change, and checks that nothing on it moves.
func (b *browser) shifts(t *testing.T, x *testIndex, m *machine, accounts []*simnet.Account) {
	b.observeShifts(t)
	b.do(t, chromedp.Evaluate[chromedp.Void](`window.shifts = []; new PerformanceObserver((all) => { for (const e of all.getEntries()) {
		for (const s of e.sources) {
			const node = s.node?.nodeType === 1 ? s.node : s.node?.parentElement; // a row that comes moves the others of its table
			if (!node?.closest(".scroll")) window.shifts.push(e.value + " " + (node?.id || node?.outerHTML?.slice(0, 200)));
		} }
	}).observe({ type: "layout-shift", buffered: true })`))
	b.refreshes(t, x, 1)
	m.set(func() { m.free = 50e6 })
	for i, a := range accounts {
		if _, err := a.Mutate(1 + i%7); err != nil {
			t.Fatal(err)
		}
	}
	b.await(t, x, "the disk to alert", `document.getElementById("verdict").textContent.includes("2 problems, 2 notes")`)
	b.refreshes(t, x, 1)
	if text := b.text(t, "#conditions tbody"); !strings.Contains(text, "backfill") || !strings.Contains(text, "48 MiB free") {
		t.Errorf("the pause is not shown: %s", text)
	}
	b.wantStill(t)
	shifts := get[[]string](t, b, "window.shifts") // before the picture, which changes the size of the window
	b.screen(t, "alerts-1280-light")
	m.set(func() { m.free = 500e6 })
	b.await(t, x, "the disk to be well", `!document.querySelector("#attention tbody").textContent.includes("the disk is short")`)
	if len(shifts) > 0 {
		t.Errorf("parts of the page moved when it was refreshed: %s", strings.Join(shifts, "\n"))
	}
}

// screenshots keeps the dashboard in each size and scheme.
func (b *browser) screenshots(t *testing.T, x *testIndex) { b.fits(t, x, "dashboard") }

// repositories finds, lists and changes repositories.
func (b *browser) repositories(t *testing.T, x *testIndex, failed *simnet.Account, good string, failing int) {
	bad := failed.DID()
	find := func(text string) {
		t.Helper()
		b.do(t, enter("#find-text", text))
	}
	found := func(what string, rows int, wants ...string) {
		t.Helper()
		quoted, err := json.Marshal(wants)
		if err != nil {
			t.Fatal(err)
		}
		b.await(t, x, what, fmt.Sprintf(`document.querySelectorAll("#found tbody tr:not(.none)").length === %d &&
			%s.every((w) => document.querySelector("#found tbody").textContent.includes(w))`, rows, quoted))
	}
	b.do(t, click(`#states [data-count="generic"]`))
	found("the failing repositories", failing, bad, "resync", "signature", "in ")
	b.screen(t, "found-1280-light")
	find(failed.Handle())
	found("the repository of a handle", 1, bad, "resync", "in a row")
	find("@" + strings.ToUpper(failed.Handle()))
	found("the same by another way to write it", 1, bad, "resync")
	find(bad)
	found("one repository", 1, bad, "resync", "in a row")
	b.do(t, click(`[aria-label="Resync `+bad+`"]`))
	b.await(t, x, "the result", `document.getElementById("said").textContent.includes("queued")`)
	find(good)
	found("another repository", 1, good, "synced")
	b.do(t, click(`[aria-label="Untrack `+good+`"]`))
	b.await(t, x, "the question", fmt.Sprintf(`document.querySelector('[aria-label="Untrack %s"]').textContent === "Really?"`, good))
	if counts, err := x.counts(t.Context()); err != nil || counts["idle"] != 0 {
		t.Errorf("one click untracks a repository: %v, %v", counts, err)
	}
	b.do(t, click(`[aria-label="Untrack `+good+`"]`))
	found("an untracked repository", 1, good, "idle")
	b.await(t, x, "the count", `document.querySelector('#states [data-count="idle"]').closest("tr").lastChild.textContent === "1"`)
	b.wantErrors(t)
	find("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	b.await(t, x, "the refusal", `document.getElementById("find-said").textContent.includes("no repository of did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")`)
	b.wantErrors(t, "404")
	find("absent.sim.test")
	b.await(t, x, "the refusal of a handle", `document.getElementById("find-said").textContent.includes("absent.sim.test")`)
	b.wantErrors(t, "400")
}

// subscriptions makes durable subscriptions, and looks for their rows.
func (b *browser) subscriptions(t *testing.T, x *testIndex) {
	for name, body := range map[string]string{"search": `{"start":"oldest"}`, "feed": `{"start":"head"}`} {
		if status, answer := x.send(t, "PUT", "/subscriptions/"+name, body); status != 201 {
			t.Fatalf("%s: %d %s", name, status, answer)
		}
	}
	b.await(t, x, "the rows of the subscriptions", `document.querySelectorAll("#subscriptions tbody tr:not(.none)").length === 2`)
	x.await(t, "the lag of /subscriptions", func() error {
		var s struct{ Lag int64 }
		if err := x.call(t.Context(), "GET", "/subscriptions/search", nil, func(b []byte) error { return json.Unmarshal(b, &s) }); err != nil {
			return err
		}
		cells := get[[]string](t, b, `[...document.querySelector('#subscriptions tr[data-key="search"]').cells].map((c) => c.textContent)`)
		if s.Lag == 0 || cells[0] != "search" || cells[1] != "not connected" || strings.ReplaceAll(cells[2], ",", "") != strconv.FormatInt(s.Lag, 10) || cells[3] != "0" {
			return fmt.Errorf("the row is %q, the lag %d", cells, s.Lag)
		}
		return nil
	})
	if count := b.text(t, "#subscriptions-count"); count != "2" {
		t.Errorf("the heading counts %q", count)
	}
	b.wantErrors(t)
}

// maintenance runs an operation that waits for a host, looks at its progress, and cancels it.
func (b *browser) maintenance(t *testing.T, x *testIndex, limited *simnet.Host) {
	// It holds the operation up for an hour. The other hosts with faults are asked or given up within
	// seconds, at some times, and the operation would end between two refreshes of the page.
	limited.Inject(simnet.Fault{Kind: simnet.RateLimited, Endpoint: "com.atproto.sync.listRepos", RetryAfter: time.Hour})
	b.do(t, click(`[aria-label="Run gc"]`))
	b.await(t, x, "gc to be requested", `document.getElementById("said").textContent.includes("gc: requested")`)
	b.do(t, click(`[aria-label="Run reconcile"]`))
	b.await(t, x, "a bar of progress", `(() => { const row = document.querySelector('#maintenance tr[data-key="reconcile"]'), bar = row.querySelector("progress");
		return row.cells[1].textContent === "running" && bar.checkVisibility() && bar.max > 1 && bar.value > 0 && bar.value < bar.max && bar.clientWidth > 20 &&
			/^\d.* % /.test(bar.nextSibling.textContent) && row.cells[4].textContent.startsWith("for "); })()`)
	b.do(t, click(`[aria-label="Cancel reconcile"]`))
	b.await(t, x, "reconcile to end", `(() => { const row = document.querySelector('#maintenance tr[data-key="reconcile"]');
		return row.cells[1].textContent !== "running" && !row.querySelector("progress").checkVisibility() && row.querySelector("button").textContent === "Run"; })()`)
	b.wantErrors(t)
}

// keyboard goes through the page by the Tab key.
func (b *browser) keyboard(t *testing.T, x *testIndex, did string) {
	b.do(t, open("http://"+x.admin+"/", "body[data-loaded] #tiles"))
	b.do(t, chromedp.KeyEvent(kb.Tab))
	if first := get[string](t, b, `document.activeElement.className`); first != "skip" {
		t.Errorf("the first element is %q", first)
	}
	b.do(t, chromedp.KeyEvent(kb.Enter))
	if main := get[string](t, b, `document.activeElement.id`); main != "main" {
		t.Errorf("the link leads to %q", main)
	}
	tab := func() string {
		t.Helper()
		b.do(t, chromedp.KeyEvent(kb.Tab))
		name := get[string](t, b, focusName)
		if get[string](t, b, focusOutline) == "none" {
			t.Errorf("the focus on %s is not visible", name)
		}
		return name
	}
	var order []string
	reach := func(name string) {
		t.Helper()
		for range 40 {
			order = append(order, tab())
			if order[len(order)-1] == name {
				return
			}
		}
		t.Fatalf("%s cannot be reached: %v", name, order)
	}
	reach("range")
	b.do(t, chromedp.KeyEvent(kb.ArrowRight))
	b.await(t, x, "the charts of a day", `document.getElementById("chart-0").getAttribute("aria-label").startsWith("Throughput in the last day: stored now ")`)
	for _, name := range []string{"synced", "resync", "find-text"} {
		reach(name)
	}
	b.do(t, chromedp.KeyEvent(did+kb.Enter))
	b.await(t, x, "the repository", `document.querySelector("#found tbody").textContent.includes("`+did+`")`)
	for _, name := range []string{"h-find", "Resync " + did} {
		reach(name)
	}
	b.do(t, chromedp.KeyEvent(kb.Enter))
	b.await(t, x, "the result", `document.getElementById("said").textContent.includes("queued")`)
	for _, name := range []string{"Untrack " + did, "h-hosts", "Run compact", "log"} {
		reach(name)
	}
	reverse := len(order)
	b.do(t, chromedp.KeyEvent(kb.Tab, chromedp.KeyModifiers(chromedp.ModifierShift)))
	if name := get[string](t, b, focusName); reverse < 2 || name != order[reverse-2] {
		t.Errorf("Shift+Tab leads to %s after %v", name, order)
	}
}

// nameServer answers for the handles of all accounts of a network.
func nameServer(n *simnet.Network) *net.Resolver {
	return simnet.NameServer(func(name string) *simnet.Name {
		for _, a := range n.Accounts() {
			if handle, ok := strings.CutPrefix(name, "_atproto."); ok && handle == a.Handle() {
				return &simnet.Name{Texts: []string{"did=" + a.DID()}}
			}
		}
		return nil
	})
}
