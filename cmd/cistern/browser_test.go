//go:build browser

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
	devtools(t, b, log.Enable, cdp.Empty{})
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

// devtools sends a command of the DevTools protocol.
func devtools[P, R any](t *testing.T, b *browser, c cdp.Command[P, R], params P) R {
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
	devtools(t, b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: int64(width), Height: int64(height), DeviceScaleFactor: 1, Mobile: width < 500})
	devtools(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// screen keeps a picture of the whole page.
func (b *browser) screen(t *testing.T, name string) {
	t.Helper()
	b.do(t, chromedp.Evaluate[chromedp.Void]("scrollTo(0, 0)")) // the head of the page stays in view
	whole := true
	picture := devtools(t, b, browserpage.CaptureScreenshot, browserpage.CaptureScreenshotParams{CaptureBeyondViewport: &whole}).Data
	file := filepath.Join(b.screens, name+".png")
	if err := os.WriteFile(file, picture, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("screenshot: %s", file)
}

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
