//go:build browser

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/alert"
	"cistern/backfill"
	"cistern/chart"
	"cistern/condition"
	"cistern/ingest/simnet"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	browserpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const (
	// browserVariable says that the tests in a browser must not be skipped.
	browserVariable = "CISTERNTEST_BROWSER"
	// screensVariable names a directory that keeps the screenshots.
	screensVariable = "CISTERNTEST_SCREENS"
)

// browser is a page of a headless Chromium.
type browser struct {
	ctx     context.Context
	screens string

	mu     sync.Mutex
	errors []string // mu guards: what the console complained of
}

// startBrowser starts Chromium. A machine without Chromium skips the test, unless browserVariable is
// set.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" && os.Getenv(browserVariable) != "" {
		t.Fatalf("no Chromium is installed, and %s is set", browserVariable)
	} else if path == "" {
		t.Skip("no Chromium is installed (on Debian: apt-get install chromium)")
	}
	b := &browser{screens: os.Getenv(screensVariable)}
	if b.screens == "" {
		b.screens = t.TempDir()
	}
	if err := os.MkdirAll(b.screens, 0o755); err != nil {
		t.Fatal(err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(cancel)
	b.ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Listen(b.ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	command(t, b, log.Enable, cdp.Empty{})
	return b
}

// listen keeps what the console complains of.
func (b *browser) listen(event any) {
	text := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text = "exception: " + e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			text += " " + x.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" || e.Type == "assert" {
			text = "console: " + string(e.Type)
			for _, arg := range e.Args {
				text += fmt.Sprintf(" %s%s", arg.Value, arg.Description)
			}
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			text = fmt.Sprintf("%s: %s (%s)", e.Entry.Source, e.Entry.Text, e.Entry.URL)
		}
	}
	if text != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.errors = append(b.errors, text)
	}
}

// wantErrors checks what the console complained of since the call before: each has to contain the
// text at its place.
func (b *browser) wantErrors(t *testing.T, want ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.errors) != len(want) {
		t.Errorf("the console has %q, want %q", b.errors, want)
	}
	for i, text := range b.errors {
		if i < len(want) && !strings.Contains(text, want[i]) {
			t.Errorf("the console has %q, want %q", text, want[i])
		}
	}
	b.errors = nil
}

// do does actions one after the other. Those that look for an element wait until it is there.
func (b *browser) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// get evaluates an expression of JavaScript.
func get[T any](t *testing.T, b *browser, expression string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// command sends a command of the DevTools protocol.
func command[P, R any](t *testing.T, b *browser, c cdp.Command[P, R], params P) R {
	t.Helper()
	result, err := chromedp.Call(b.ctx, c, params)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func open(url, selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(chromedp.Navigate(url), visible(selector))
}

func visible(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.WaitVisible(chromedp.CSS(selector))
}

func click(selector string) chromedp.Action[chromedp.Void] {
	return chromedp.Click(chromedp.CSS(selector))
}

// enter replaces the text of an input, and presses Enter.
func enter(selector, text string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(visible(selector), chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.querySelector(%q).value = ''", selector)),
		chromedp.SendKeys(chromedp.CSS(selector), text+kb.Enter))
}

// text returns the text of an element.
func (b *browser) text(t *testing.T, selector string) string {
	t.Helper()
	return get[string](t, b, fmt.Sprintf("document.querySelector(%q)?.textContent ?? 'absent'", selector))
}

// await waits until an expression is true.
func (b *browser) await(t *testing.T, x *testIndex, what, expression string) {
	t.Helper()
	seen := map[string]bool{}
	x.awaitFor(t, 20*time.Second, what, func() error {
		if get[bool](t, b, expression) {
			return nil
		}
		// The wait goes on for as long as the page is refreshed, some times.
		if seen[b.text(t, "#asof")] = true; len(seen) < 10 {
			return fmt.Errorf("refresh %d", len(seen))
		}
		return errors.New("ten refreshes have not shown it")
	})
}

// refreshes waits for more refreshes of the page.
func (b *browser) refreshes(t *testing.T, x *testIndex, n int) {
	t.Helper()
	for range n {
		b.await(t, x, "a refresh", fmt.Sprintf("document.getElementById('asof').textContent !== %q", b.text(t, "#asof")))
	}
}

// view sets the size of the window and the colour scheme.
func (b *browser) view(t *testing.T, width, height int, scheme string) {
	t.Helper()
	command(t, b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: int64(width), Height: int64(height), DeviceScaleFactor: 1, Mobile: width < 500})
	command(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// screen keeps a picture of the whole page.
func (b *browser) screen(t *testing.T, name string) {
	t.Helper()
	b.do(t, chromedp.Evaluate[chromedp.Void]("scrollTo(0, 0)")) // the head of the page stays in view
	whole := true
	picture := command(t, b, browserpage.CaptureScreenshot, browserpage.CaptureScreenshotParams{CaptureBeyondViewport: &whole}).Data
	file := filepath.Join(b.screens, name+".png")
	if err := os.WriteFile(file, picture, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("screenshot: %s", file)
}

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
	t.Run("repositories", func(t *testing.T) { b.repositories(t, x, bad[0].DID(), good[0].DID(), len(bad)) })
	t.Run("keyboard", func(t *testing.T) { b.keyboard(t, x) })
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
		"#verdict":           {"1 alert"},
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
	b.await(t, x, "the disk to alert", `document.getElementById("verdict").textContent.includes("2 alerts, disk is short")`)
	b.refreshes(t, x, 1)
	if text := b.text(t, "#conditions tbody"); !strings.Contains(text, "backfill") || !strings.Contains(text, "48 MiB free") {
		t.Errorf("the pause is not shown: %s", text)
	}
	shifts := get[[]string](t, b, "window.shifts") // before the picture, which changes the size of the window
	b.screen(t, "alerts-1280-light")
	m.set(func() { m.free = 500e6 })
	b.await(t, x, "the disk to be well", `!document.getElementById("verdict").textContent.includes("disk")`)
	if len(shifts) > 0 {
		t.Errorf("parts of the page moved when it was refreshed: %s", strings.Join(shifts, "\n"))
	}
}

// screenshots keeps the dashboard in each size and scheme.
func (b *browser) screenshots(t *testing.T, x *testIndex) { b.fits(t, x, "dashboard") }

// fits keeps the page in each size and scheme, and checks that it fits and that the schemes differ.
func (b *browser) fits(t *testing.T, x *testIndex, name string) {
	t.Helper()
	grounds := map[string]bool{}
	for _, c := range []struct {
		width, height int
		scheme        string
	}{{1280, 900, "light"}, {1280, 900, "dark"}, {375, 812, "dark"}, {375, 812, "light"}} {
		b.view(t, c.width, c.height, c.scheme)
		b.await(t, x, "the charts to fit", `(() => { const canvas = document.querySelector("#chart-0 canvas"), box = document.getElementById("chart-0");
			return canvas && Math.abs(canvas.clientWidth - box.clientWidth) < 2; })()`)
		b.screen(t, fmt.Sprintf("%s-%d-%s", name, c.width, c.scheme))
		if wide := get[int](t, b, "document.documentElement.scrollWidth"); wide > c.width {
			t.Errorf("at %d px the page is %d px wide: %s", c.width, wide, get[string](t, b, `[...document.querySelectorAll("body *")].filter(
				(e) => e.getBoundingClientRect().right > innerWidth && !e.closest(".scroll")).map((e) => e.id || e.className || e.tagName).join(" ")`))
		}
		grounds[c.scheme+get[string](t, b, "getComputedStyle(document.documentElement).backgroundColor")] = true
	}
	if len(grounds) != 2 {
		t.Errorf("grounds of the schemes: %v", grounds)
	}
	b.view(t, 1280, 900, "light")
}

// focusName is an expression that names the element with the focus.
const focusName = `(() => { const e = document.activeElement;
	return e.id || e.name || e.dataset.count || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.getAttribute("href") || e.tagName; })()`

// focusOutline is an expression for the outline of the element with the focus.
const focusOutline = `(() => { const a = document.activeElement, e = a.matches(".switch input") ? a.nextElementSibling : a;
	return e === document.body ? "" : getComputedStyle(e).outlineStyle; })()`

// observeShifts notes from the beginning of the page on what moves without an input of the reader
// (Layout Instability), for wantStill.
func (b *browser) observeShifts(t *testing.T) {
	t.Helper()
	b.do(t, chromedp.Evaluate[chromedp.Void](`window.shifted = { sum: 0, parts: [] }; new PerformanceObserver((all) => { for (const e of all.getEntries()) {
		if (e.hadRecentInput) continue;
		window.shifted.sum += e.value;
		for (const s of e.sources) window.shifted.parts.push(e.value.toFixed(4) + " " + ((s.node?.nodeType === 1 ? s.node : s.node?.parentElement)?.outerHTML ?? "").slice(0, 120));
	} }).observe({ type: "layout-shift", buffered: true })`))
}

// shiftMost is the cumulative layout shift from which a page is not good any more (Web Vitals).
const shiftMost = 0.1

// wantStill checks how far parts of the page have moved since it began to load.
func (b *browser) wantStill(t *testing.T) {
	t.Helper()
	if sum := get[float64](t, b, "window.shifted.sum"); sum >= shiftMost {
		t.Errorf("the cumulative layout shift is %.3f: %s", sum, strings.Join(get[[]string](t, b, "window.shifted.parts"), "\n"))
	} else {
		t.Logf("the cumulative layout shift is %.4f", sum)
	}
}

// repositories finds, lists and changes repositories.
func (b *browser) repositories(t *testing.T, x *testIndex, bad, good string, failing int) {
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
	b.do(t, click(`[aria-label="Run gc"]`))
	b.await(t, x, "gc to be requested", `document.getElementById("said").textContent.includes("gc: requested")`)
}

// keyboard goes through the page by the Tab key.
func (b *browser) keyboard(t *testing.T, x *testIndex) {
	b.do(t, open("http://"+x.admin+"/", "body[data-loaded] #tiles"))
	b.do(t, chromedp.KeyEvent(kb.Tab))
	if first := get[string](t, b, `document.activeElement.className`); first != "skip" {
		t.Errorf("the first element is %q", first)
	}
	b.do(t, chromedp.KeyEvent(kb.Enter))
	if main := get[string](t, b, `document.activeElement.id`); main != "main" {
		t.Errorf("the link leads to %q", main)
	}
	reached := map[string]bool{}
	for range 60 {
		b.do(t, chromedp.KeyEvent(kb.Tab))
		name := get[string](t, b, `(() => { const e = document.activeElement;
			return e.id || e.name || e.dataset.count || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.tagName; })()`)
		reached[name] = true
		if name == "range" && !reached["day"] {
			reached["day"] = true
			b.do(t, chromedp.KeyEvent(kb.ArrowRight))
			b.await(t, x, "the charts of a day", `document.getElementById("chart-0").getAttribute("aria-label").startsWith("Throughput in the last day: stored now ")`)
		}
		if outline := get[string](t, b, `(() => { const e = document.activeElement.matches(".switch input") ? document.activeElement.nextElementSibling : document.activeElement;
			return getComputedStyle(e).outlineStyle; })()`); outline == "none" && name != "BODY" {
			t.Errorf("the focus on %s is not visible", name)
		}
	}
	for _, name := range []string{"range", "synced", "resync", "find-text", "h-find", "h-hosts", "Run compact", "log"} {
		if !reached[name] {
			t.Errorf("%s cannot be reached: %v", name, reached)
		}
	}
}
